from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import EVERYWHERE, finding_segmenter, reordered, small_abdomen

from DiffuSAMLib.encoded_volume import EncodedVolume
from DiffuSAMLib.errors import OutputError
from DiffuSAMLib.live_labels import Box, LiveLabels

VALUES = {"spleen": 7, "right kidney": 2, "left kidney": 3, "liver": 40}


def test_every_change_is_told_and_the_end_looks_like_the_result(tmp_path: Path) -> None:
    volume = reordered(small_abdomen().volume, (1, 2, 0), (False, True, True))
    path = tmp_path / "labels.raw"
    known = np.zeros(volume.array.shape, np.uint8)
    organs: list[str] = []

    def on_change(organ: str, box: Box) -> None:
        now = np.fromfile(path, np.uint8).reshape(known.shape)
        part = tuple(slice(*ends) for ends in box)
        changed = now != known
        assert changed[part].any()
        assert set(np.unique(now[changed])) == {VALUES[organ]}
        known[part] = now[part]
        np.testing.assert_array_equal(now, known)
        organs.append(organ)

    live = LiveLabels(path, on_change)
    segmenter = finding_segmenter()
    encoded = EncodedVolume(volume, segmenter.backbone)
    live.begin(encoded, VALUES)
    assert not np.fromfile(path, np.uint8).any()
    as_decoded = replace(EVERYWHERE, smooth=False, refine=False)
    result = segmenter.segment(volume, as_decoded, encoded=(encoded,), on_decoded=live)
    final = np.array([0, *VALUES.values()], np.uint8)[result.labels]
    assert set(organs) == set(VALUES)
    np.testing.assert_array_equal(known, final)
    live.finish(final)
    np.testing.assert_array_equal(np.fromfile(path, np.uint8).reshape(final.shape), final)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    volume = small_abdomen().volume
    live = LiveLabels(tmp_path / "nowhere" / "labels.raw", lambda organ, box: None)
    with pytest.raises(OutputError, match="cannot be written"):
        live.begin(EncodedVolume(volume, finding_segmenter().backbone), VALUES)


@pytest.mark.skipif(
    not hasattr(os.stat_result, "st_blocks"), reason="Windows does not tell what a file takes."
)
def test_the_file_has_its_place_on_the_disk(tmp_path: Path) -> None:
    """Once the disk is full, writing to a hole in it would end the process."""
    volume = small_abdomen().volume
    path = tmp_path / "labels.raw"
    LiveLabels(path, lambda organ, box: None).begin(
        EncodedVolume(volume, finding_segmenter().backbone), VALUES
    )
    state = path.stat()
    assert 512 * state.st_blocks >= state.st_size == volume.array.size


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Only Linux has a disk that is always full.")
def test_a_full_disk_is_told() -> None:
    encoded = EncodedVolume(small_abdomen().volume, finding_segmenter().backbone)
    with pytest.raises(OutputError, match="not enough space"):
        LiveLabels(Path("/dev/full"), lambda organ, box: None).begin(encoded, VALUES)
