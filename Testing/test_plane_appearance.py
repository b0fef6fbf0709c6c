from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import EVERYWHERE, SIZE, finding_segmenter, small_abdomen, taught

from DiffuSAMLib.encoded_volume import EncodedVolume
from DiffuSAMLib.full_resolution import PlaneLogits
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.plane_appearance import weigh_plane
from DiffuSAMLib.prior import PriorConfig
from DiffuSAMLib.volumes import Volume


def test_only_slices_near_what_is_found_are_looked_at() -> None:
    segmenter = finding_segmenter()
    array = np.random.default_rng(0).normal(50, 60, (40, 32, 32)).astype(np.float32)
    long = Volume(array, Geometry((40, 32, 32), np.diag([5.0, 5.0, 5.0, 1.0])), "CT", "noise")
    view = EncodedVolume(long, segmenter.backbone)
    found = PlaneLogits(view.order, view.grid, np.full((40, 1, SIZE // 4, SIZE // 4), -10, np.float16))
    assert weigh_plane(view, found, weight=2.0, across=True) is found
    found.logits[20, :, :8, :8] = 5
    weighed = weigh_plane(view, found, weight=2.0, across=True).logits
    assert weighed.shape == (40, 1, SIZE // 2, SIZE // 2)
    changed = np.flatnonzero((weighed > -10).any((1, 2, 3)))
    assert (changed[0], changed[-1]) == (18, 22)


def test_a_prior_of_few_cases_asks_how_bright_organs_are() -> None:
    segmenter, volume = finding_segmenter(), small_abdomen().volume
    few = taught(segmenter, appearance=2.0)
    without = segmenter.segment(volume, EVERYWHERE).labels
    assert not np.array_equal(few.segment(volume, EVERYWHERE).labels, without)
    off = replace(EVERYWHERE, appearance=False)
    np.testing.assert_array_equal(few.segment(volume, off).labels, without)


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_an_impossible_weight_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="appearance"):
        PriorConfig(("liver",), 16, (8, 16, 32), appearance=value)
