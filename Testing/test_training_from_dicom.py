"""Trainings whose images are folders of real DICOM files, label maps beside them; the bundled backbone at 64 px."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import LABEL_NAMES, ORGANS, json_events, small_abdomen, write_case, write_dicom
from safetensors.torch import load_file

from DiffuSAMLib.cli import main
from DiffuSAMLib.prior_files import read_header
from DiffuSAMLib.segmentation_files import write_segmentation
from DiffuSAMLib.terminology import segment_for
from DiffuSAMLib.volumes import read_volume

pytestmark = pytest.mark.usefixtures("quick_trainings")
QUICK = [
    *("--image-size", "64", "--batch", "2", "--iterations", "2", "--validation", "none", "--device", "cpu"),
    *("--set", "width=[16,32]", "--set", "outline_width=8"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two patients: `scans/<name>/*.dcm`, `segmentations/<name>.seg.nrrd`, and the same as NIfTI files."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "segmentations").mkdir()
    for seed, name in ((3, "anna"), (4, "bert")):
        abdomen = small_abdomen(seed)
        write_dicom(tmp_path / "scans" / name, abdomen.volume)
        write_segmentation(
            tmp_path / "segmentations" / f"{name}.seg.nrrd",
            abdomen.labels.array,
            abdomen.labels.geometry,
            [segment_for(organ, value) for value, organ in abdomen.labels.names.items()],
        )
        write_case(tmp_path, name, abdomen)
    return tmp_path


def folders(data: Path) -> list[str]:
    return ["--images", str(data / "scans"), "--labels", str(data / "segmentations")]


def test_a_prior_comes_of_it_the_same_as_of_files(data: Path) -> None:
    of_series, of_files = data / "series.safetensors", data / "files.safetensors"
    assert main(["train", *folders(data), *QUICK, "-o", str(of_series)]) == 0
    header = read_header(of_series)
    assert header.training["cases"] == ["anna", "bert"]
    assert [label.name for label in header.labels] == list(ORGANS)
    assert header.modalities == ("CT",)
    files = ["--images", str(data / "images"), "--labels", str(data / "labels"), "--label-names", LABEL_NAMES]
    assert main(["train", *files, *QUICK, "-o", str(of_files)]) == 0
    # The origin was written with a few digits: the grids differ in the last ones.
    torch.testing.assert_close(load_file(of_series), load_file(of_files), atol=1e-3, rtol=1e-2)


def test_the_series_with_most_slices_is_learnt_from(data: Path) -> None:
    whole = read_volume(data / "scans" / "anna")
    scout = small_abdomen(5).volume
    write_dicom(data / "scans" / "anna", scout, slices=3, uid="1.2.9", number=2)
    assert np.array_equal(read_volume(data / "scans" / "anna").array, whole.array)
    assert main(["train", *folders(data), "--check-only"]) == 0


def test_what_matched_is_told(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "scans" / "carla").mkdir()
    assert main(["train", *folders(data), "--check-only"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "anna goes with anna.seg.nrrd."
    assert "Image carla has no label map of the same name; left out." in lines
    assert lines[-1] == f"2 cases can be trained on: {', '.join(ORGANS)}."


def test_a_missing_slice_is_found_by_the_check(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sorted((data / "scans" / "anna").iterdir())[-1].unlink()
    assert main(["train", *folders(data), *QUICK, "-o", str(data / "prior.safetensors")]) == 2
    sentence = capsys.readouterr().err
    assert "anna" in sentence
    assert sentence.count("\n") == 1
    assert not (data / "prior.safetensors").exists()


def test_an_empty_folder_is_told_before_anything_is_learnt(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (data / "scans" / "anna").iterdir():
        path.unlink()
    assert main(["train", *folders(data), "--check-only", "--json-progress"]) == 2
    captured = capsys.readouterr()
    assert any("anna" in str(event) for event in json_events(captured.out)) or "anna" in captured.err
