from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.labelmaps import check_same_grid, read_label_names, read_labelmap
from DiffuSAMLib.segmentation_files import write_segmentation
from DiffuSAMLib.terminology import segment_for


def save(
    path: Path, array: np.ndarray, fields: dict[str, str] | None = None, *, layers: bool = False
) -> Path:
    image = sitk.GetImageFromArray(array, isVector=layers)
    for key, value in (fields or {}).items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path))
    return path


def cube(value: int, *, dtype: type = np.uint8) -> np.ndarray:
    array = np.zeros((4, 5, 6), dtype)
    array[1:3, 1:3, 1:3] = value
    return array


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_labels(tmp_path: Path, dtype: type) -> None:
    labels = read_labelmap(save(tmp_path / "a.nii.gz", cube(3, dtype=dtype)), {3: "liver"})
    assert labels.array.dtype == np.uint8
    assert np.array_equal(labels.array, cube(3))
    assert labels.names == {3: "liver"}


def test_what_is_no_label_map_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not whole numbers"):
        read_labelmap(save(tmp_path / "a.nii.gz", cube(1, dtype=np.float32) * 0.5))
    with pytest.raises(InputError, match="not finite"):
        read_labelmap(save(tmp_path / "b.nii.gz", cube(1, dtype=np.float32) * np.float32(np.nan)))
    with pytest.raises(InputError, match="not whole numbers"):
        read_labelmap(save(tmp_path / "b.nrrd", cube(1, dtype=np.float32) * np.float32(np.nan)))
    with pytest.raises(InputError, match="from 0 to 300"):
        read_labelmap(save(tmp_path / "c.nii.gz", cube(300, dtype=np.int16)))
    with pytest.raises(InputError, match="from -1 to 0"):
        read_labelmap(save(tmp_path / "d.nii.gz", cube(-1, dtype=np.int16)))
    with pytest.raises(InputError, match="every voxel is 0"):
        read_labelmap(save(tmp_path / "e.nii.gz", cube(0)))
    with pytest.raises(InputError, match="not a single label map"):
        read_labelmap(save(tmp_path / "f.nii.gz", np.stack([cube(1), cube(2)])))
    with pytest.raises(InputError, match="folder"):
        read_labelmap(tmp_path)


def layered_fields() -> dict[str, str]:
    """Three segments in two layers: two share the first and the third, listed first, has the second."""
    rows = [("late", 1, 1), ("one", 1, 0), ("two", 2, 0)]
    return {
        f"Segment{n}_{key}": str(value)
        for n, (name, label, layer) in enumerate(rows)
        for key, value in {"ID": f"S{n}", "Name": name, "LabelValue": label, "Layer": layer}.items()
    }


@pytest.mark.parametrize("kind", [b"vector", b"list"])
def test_the_layers_of_a_slicer_file_are_merged_and_the_later_wins(tmp_path: Path, kind: bytes) -> None:
    layers = np.zeros((4, 5, 6, 2), np.uint8)
    layers[0, ..., 0] = 1
    layers[1:3, ..., 0] = 2
    layers[2:, ..., 1] = 1
    path = save(tmp_path / "a.seg.nrrd", layers, layered_fields(), layers=True)
    data = path.read_bytes()
    assert b"kinds: vector domain" in data
    path.write_bytes(data.replace(b"kinds: vector domain", b"kinds: " + kind + b" domain", 1))
    labels = read_labelmap(path)
    assert labels.names == {1: "late", 2: "one", 3: "two"}
    assert labels.array[:, 0, 0].tolist() == [2, 3, 1, 1]
    assert labels.overlap == 5 * 6


def test_a_single_layer_keeps_its_label_values(tmp_path: Path) -> None:
    fields = {
        "Segment0_ID": "Segment_1",
        "Segment0_Name": "liver",
        "Segment0_LabelValue": "6",
        "Segment0_Layer": "0",
    }
    labels = read_labelmap(save(tmp_path / "a.seg.nrrd", cube(6), fields), {2: "spleen"})
    assert labels.names == {6: "liver", 2: "spleen"}
    assert labels.array.max() == 6


def test_the_names_are_read_by_themselves_too(tmp_path: Path) -> None:
    layers = np.zeros((4, 5, 6, 2), np.uint8)
    layers[0] = 1
    path = save(tmp_path / "a.seg.nrrd", layers, layered_fields(), layers=True)
    assert read_label_names(path) == read_labelmap(path).names == {1: "late", 2: "one", 3: "two"}
    blank = save(tmp_path / "b.seg.nrrd", np.zeros_like(layers), layered_fields(), layers=True)
    assert read_label_names(blank) == {1: "late", 2: "one", 3: "two"}
    assert read_label_names(save(tmp_path / "c.nrrd", cube(1))) == {}
    with pytest.raises(InputError, match="folder"):
        read_label_names(tmp_path)


def test_names_that_are_not_utf8_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.seg.nrrd"
    geometry = Geometry((4, 5, 6), np.eye(4))
    write_segmentation(path, cube(1), geometry, [segment_for("GefXXe", 1)])
    path.write_bytes(path.read_bytes().replace(b"GefXXe", "Gefäße".encode("latin-1")))
    labels = read_labelmap(path)
    assert labels.names == {1: "Gef??e"}
    write_segmentation(path, labels.array, geometry, [segment_for(labels.names[1], 1)])
    assert read_labelmap(path).names == {1: "Gef??e"}


@pytest.mark.parametrize(
    "wrong", [{"Segment0_Layer": "5"}, {"Segment0_LabelValue": "many"}, {"Segment0_LabelValue": "0"}]
)
def test_a_segment_list_that_does_not_fit_is_told(tmp_path: Path, wrong: dict[str, str]) -> None:
    path = save(tmp_path / "a.seg.nrrd", cube(1), {"Segment0_ID": "S", "Segment0_Layer": "0", **wrong})
    with pytest.raises(InputError, match="does not fit"):
        read_labelmap(path)


def test_more_segments_than_labels_are_told(tmp_path: Path) -> None:
    one = {"Segment0_ID": "S", "Segment0_Layer": "0", "Segment0_LabelValue": "300"}
    with pytest.raises(InputError, match="more than 255 segments"):
        read_labelmap(save(tmp_path / "a.seg.nrrd", cube(1), one))
    many = {f"Segment{number}_ID": f"S{number}" for number in range(256)}
    layers = {f"Segment{number}_Layer": str(number % 2) for number in range(256)}
    both = np.stack([cube(1), cube(2)], axis=-1)
    with pytest.raises(InputError, match="more than 255 segments"):
        read_labelmap(save(tmp_path / "b.seg.nrrd", both, {**many, **layers}, layers=True))


def test_rounding_in_a_header_is_no_other_grid() -> None:
    geometry = Geometry((4, 5, 6), np.diag([0.7, 0.7, 5, 1]))
    check_same_grid(geometry, Geometry(geometry.shape, geometry.matrix + np.eye(4, k=1) * 1e-5))


@pytest.mark.parametrize(
    "other",
    [
        Geometry((4, 5, 7), np.diag([0.7, 0.7, 5, 1])),
        Geometry((4, 5, 6), np.diag([0.7, -0.7, 5, 1])),
        Geometry((4, 5, 6), np.diag([0.7, 0.8, 5, 1])),
        Geometry((4, 5, 6), np.diag([0.7, 0.7, 5, 1]) + np.outer([1, 0, 0, 0], [0, 0, 0, 0.7])),
    ],
)
def test_another_grid_is_told_with_both_grids(other: Geometry) -> None:
    geometry = Geometry((4, 5, 6), np.diag([0.7, 0.7, 5, 1]))
    with pytest.raises(InputError) as caught:
        check_same_grid(geometry, other)
    assert str(geometry) in str(caught.value)
    assert str(other) in str(caught.value)
