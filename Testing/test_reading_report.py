"""What the report says about how a DICOM folder was read."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from cases import EVERYWHERE, install_random_weights, small_abdomen, write_dicom, write_dicom_slices

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.reading_warnings import kept_warnings, warn
from DiffuSAMLib.segment_file import FileSegmenter, SegmentRequest
from DiffuSAMLib.volumes import read_volume

log = logging.getLogger(__name__)


def test_the_report_names_the_series_and_what_was_odd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = install_random_weights(tmp_path / "Resources")
    installation.use(monkeypatch, tmp_path / "cache")
    folder = tmp_path / "dicom"
    write_dicom(folder, small_abdomen().volume)
    scout = np.arange(2 * 64, dtype=np.int16).reshape(2, 8, 8)
    positions = [(0.0, 0.0, 0.0), (0.0, 0.0, 5.0)]
    write_dicom_slices(folder, scout, positions, spacing=(1, 1), modality="CT", uid="1.2.9", number=2)

    segmenter = FileSegmenter()
    request = SegmentRequest(folder, device="cpu", report=tmp_path / "report.json", options=EVERYWHERE)
    # The second run reads nothing, and still tells it.
    for _ in range(2):
        segmenter.segment(request)
        entry = json.loads((tmp_path / "report.json").read_text(encoding="ascii"))["inputs"][0]
        assert entry["series_uid"] == "1.2.8"
        assert len(entry["warnings"]) == 1
        assert entry["warnings"][0].startswith("The folder holds 2 series")


def test_warnings_are_kept_whatever_the_level_of_the_log_and_only_while_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, log.name)
    with kept_warnings() as outer:
        warn(log, "one.")
        with kept_warnings() as inner:
            warn(log, "100 % of it.")
        warn(log, "three.")
    warn(log, "four.")
    assert (outer, inner) == (["one.", "three."], ["100 % of it."])


def test_a_failed_reading_keeps_nothing_for_the_next(tmp_path: Path) -> None:
    with kept_warnings() as outer:
        with pytest.raises(InputError):
            read_volume(tmp_path)
        warn(log, "one.")
    assert outer == ["one."]
