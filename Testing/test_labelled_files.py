from __future__ import annotations

import json
from pathlib import Path

import pytest
from cases import LABEL_NAMES, small_abdomen, write_case

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.label_tables import parse_label_names
from DiffuSAMLib.labelled_files import find_cases, read_dataset

NAMES = parse_label_names(LABEL_NAMES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_case(tmp_path, "b", small_abdomen(4, "MR"))
    write_case(tmp_path, "a.1", small_abdomen(3))
    return tmp_path


def test_images_and_labels_are_paired_by_name(folder: Path) -> None:
    cases = find_cases(folder / "images", folder / "labels", NAMES)
    assert [case.name for case in cases] == ["a.1", "b"]
    assert all(case.image.parent.name == "images" and case.labels.parent.name == "labels" for case in cases)
    assert cases[0].label_names == NAMES


def test_only_the_cases_asked_for_are_taken(folder: Path) -> None:
    assert [c.name for c in find_cases(folder / "images", folder / "labels", NAMES, only=["b"])] == ["b"]
    with pytest.raises(InputError, match="no image with a label map: c, d"):
        find_cases(folder / "images", folder / "labels", NAMES, only=["b", "d", "c"])


def test_other_files_images_without_labels_and_hidden_files_are_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "images" / "notes.txt").write_text("x")
    (folder / "images" / "alone.nii.gz").touch()
    for kind in ("images", "labels"):
        (folder / kind / "._b.nii.gz").touch()
    assert [case.name for case in find_cases(folder / "images", folder / "labels", NAMES)] == ["a.1", "b"]
    assert "alone.nii.gz" in caplog.text
    assert "notes" not in caplog.text


def test_a_data_set_brings_its_own_label_table(folder: Path) -> None:
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "right_kidney": 2}}))
    cases = read_dataset(folder, only=["a.1"])
    assert [(case.name, case.label_names) for case in cases] == [("a.1", {2: "right kidney"})]
