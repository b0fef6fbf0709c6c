"""Every case is procedural; what is wrong with it is made so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cases import ORGANS, small_abdomen, write_case

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.label_tables import names_in_file
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.learnt_organs import organs_of, unified
from DiffuSAMLib.preflight import Preflight, check_cases
from DiffuSAMLib.segmentation_files import write_scalar, write_segmentation
from DiffuSAMLib.terminology import segment_for

NAMES = dict(enumerate(ORGANS, 1))


def a_case(folder: Path, name: str, seed: int = 3, *, modality: str = "CT") -> LabelledFiles:
    write_case(folder, name, small_abdomen(seed, "MR" if modality == "MR" else "CT"))
    file = f"{name}.nii.gz"
    return LabelledFiles(name, folder / "images" / file, folder / "labels" / file, NAMES)


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = sitk.ReadImage(str(path))
    edited = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    edited.CopyInformation(image)
    sitk.WriteImage(edited, str(path))


def without(*values: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda labels: np.where(np.isin(labels, values), 0, labels).astype(np.uint8)


def check(*cases: LabelledFiles) -> Preflight:
    same = unified(cases)
    return check_cases(same, organs_of(same, None))


def said(preflight: Preflight) -> list[str]:
    return [f"{finding.level}: {finding}" for finding in preflight.findings]


def test_good_cases_are_not_remarked_upon(tmp_path: Path) -> None:
    read: list[str] = []
    cases = [a_case(tmp_path, "a", 3), a_case(tmp_path, "b", 4)]
    preflight = check_cases(cases, ORGANS, on_read=lambda case, volume, labels: read.append(case.name))
    assert said(preflight) == []
    preflight.require_good()
    assert read == ["a", "b"]


def test_labels_on_another_grid_stop_the_training(tmp_path: Path) -> None:
    case = a_case(tmp_path, "a")
    image = sitk.ReadImage(str(case.labels))
    image.SetOrigin([x + 20 for x in image.GetOrigin()])
    sitk.WriteImage(image, str(case.labels))
    preflight = check(case, a_case(tmp_path, "b", 4))
    assert [finding.case for finding in preflight.errors] == ["a"]
    with pytest.raises(InputError, match=r"a: The labels lie on another grid than the image.*--check-only"):
        preflight.require_good()


def test_empty_and_unnamed_labels_stop_the_training(tmp_path: Path) -> None:
    empty, unnamed = a_case(tmp_path, "empty"), a_case(tmp_path, "unnamed", 4)
    edit(empty.labels, without(1, 2, 3, 4))
    edit(unnamed.labels, lambda labels: np.where(labels > 0, labels + 10, 0).astype(np.uint8))
    preflight = check(empty, unnamed, a_case(tmp_path, "good", 5))
    errors = [str(finding) for finding in preflight.errors]
    assert "holds no label" in errors[0]
    assert "unnamed.nii.gz holds none of: spleen, right kidney" in errors[1]
    with pytest.raises(InputError, match="There is 1 more error of this check"):
        preflight.require_good()


def test_an_unreadable_file_stops_the_training(tmp_path: Path) -> None:
    case = a_case(tmp_path, "a")
    case.image.write_bytes(case.image.read_bytes()[:1000])
    assert "cannot be unpacked" in str(check(case, a_case(tmp_path, "b", 4)).errors[0])


def test_missing_organs_are_told(tmp_path: Path) -> None:
    one, other = a_case(tmp_path, "one"), a_case(tmp_path, "other", 4)
    edit(one.labels, without(1, 2))
    edit(other.labels, without(2))
    lines = said(check(one, other))
    assert lines[0] == "error: No case shows right kidney. Check its labels, or leave it out."
    assert any(line.startswith("warning: one: spleen has no voxel here") for line in lines)


def test_labels_without_a_name_and_tiny_organs_are_told(tmp_path: Path) -> None:
    case = a_case(tmp_path, "a")

    def change(labels: np.ndarray) -> np.ndarray:
        labels = np.where(labels == 1, 0, labels).astype(np.uint8)
        labels[5, 50, 50:55] = 1
        labels[0, 0, 0] = 9
        return labels

    edit(case.labels, change)
    lines = said(check(case, a_case(tmp_path, "b", 4)))
    assert "warning: a: spleen has only 5 voxels here; check its label." in lines
    assert "warning: a: label 9 has no name and counts as background." in lines


def test_mixed_modality_and_spacing_are_told(tmp_path: Path) -> None:
    flat = a_case(tmp_path, "b", modality="MR")
    abdomen = small_abdomen(3, "MR")
    matrix = abdomen.volume.geometry.matrix.copy()
    matrix[:3, 2] /= 5
    geometry = Geometry(abdomen.volume.array.shape, matrix)
    write_scalar(flat.image, abdomen.volume.array, geometry)
    segments = [segment_for(organ, value) for value, organ in NAMES.items()]
    write_segmentation(flat.labels, abdomen.labels.array, geometry, segments)
    lines = said(check(a_case(tmp_path, "a"), flat))
    assert any("of both modalities (CT: a; MR: b)" in line for line in lines)
    assert any("distance between slices disagrees: 4 mm in b, 20 mm in a" in line for line in lines)
    assert not any(line.startswith("error") for line in lines)


def test_a_case_given_twice_is_told(tmp_path: Path) -> None:
    one, other = a_case(tmp_path, "one"), a_case(tmp_path, "other")
    assert said(check(one, other)) == ["warning: other: its image is the same as that of one."]
    assert said(check(one, one))[0] == "error: Two cases are called one. Give each another name."


def test_a_segmentation_that_contradicts_the_table_stops_the_training(tmp_path: Path) -> None:
    abdomen = small_abdomen()
    case = a_case(tmp_path, "a")
    labels = tmp_path / "a.seg.nrrd"
    swapped = [segment_for("liver", 1), segment_for("spleen", 4)]
    write_segmentation(labels, abdomen.labels.array, abdomen.labels.geometry, swapped)
    (error,) = check(LabelledFiles("a", case.image, labels, NAMES)).errors[:1]
    assert "calls label 1 liver, which is label 4 in the table given" in error.message


def nameless(folder: Path, *, layers: bool) -> LabelledFiles:
    """A case whose second segment has had its name erased."""
    case = a_case(folder, "a")
    image = sitk.ReadImage(str(case.labels))
    array = sitk.GetArrayFromImage(image)
    if layers:
        array = np.stack([array == 1, array == 2], axis=-1).astype(np.uint8)
    stored = sitk.GetImageFromArray(array, isVector=layers)
    stored.CopyInformation(image)
    for number, name in enumerate(("spleen", "")):
        value, layer = ("1", str(number)) if layers else (str(number + 1), "0")
        for key, text in {"ID": f"S{number}", "Name": name, "LabelValue": value, "Layer": layer}.items():
            stored.SetMetaData(f"Segment{number}_{key}", text)
    path = folder / "labels" / "a.seg.nrrd"
    sitk.WriteImage(stored, str(path))
    return LabelledFiles("a", case.image, path, names_in_file(path))


@pytest.mark.parametrize("layers", [False, True])
def test_a_segment_without_a_name_stops_the_training(tmp_path: Path, *, layers: bool) -> None:
    case = nameless(tmp_path, layers=layers)
    preflight = check(case, a_case(tmp_path, "b", 4))
    (error,) = preflight.errors
    assert str(error).startswith(
        "a: in a.seg.nrrd the segment with label 2 has no name. Name it in 3D Slicer"
    )
    with pytest.raises(InputError, match="has no name"):
        preflight.require_good()
    # Where it is not to be learnt, it is background.
    (line,) = [line for line in said(check_cases([case], ["spleen"])) if "no name" in line]
    assert line.startswith("warning: a: label 2 ") or line.startswith("warning: a: labels 2, ")


def test_segments_that_overlap_are_told(tmp_path: Path) -> None:
    case = a_case(tmp_path, "a")
    image = sitk.ReadImage(str(case.labels))
    labels = sitk.GetArrayFromImage(image)
    layers = np.stack([labels == 4, (labels == 4) & (np.arange(labels.shape[2]) % 2 == 0)], axis=-1)
    layered = sitk.GetImageFromArray(layers.astype(np.uint8), isVector=True)
    layered.CopyInformation(image)
    for number, name in enumerate(("liver", "tumour")):
        fields = {"ID": f"S{number}", "Name": name, "LabelValue": "1", "Layer": str(number)}
        for key, value in fields.items():
            layered.SetMetaData(f"Segment{number}_{key}", value)
    path = tmp_path / "labels" / "a.seg.nrrd"
    sitk.WriteImage(layered, str(path))
    overlapping = LabelledFiles("a", case.image, path, {1: "liver", 2: "tumour"})
    (line,) = [line for line in said(check(overlapping)) if "overlap" in line]
    assert f"overlap in {int(layers[..., 1].sum())} voxels" in line
