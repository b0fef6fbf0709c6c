from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffuSAMLib.errors import InputError, OutOfMemoryError, OutputError
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.labelmaps import check_same_grid, read_labelmap
from DiffuSAMLib.segmentation_files import (
    SCALAR_ENDINGS,
    SEGMENTATION_ENDINGS,
    require_ending,
    write_scalar,
    write_segmentation,
)
from DiffuSAMLib.terminology import Segment, segment_for

ORGANS = ("spleen", "right kidney", "left kidney", "liver")


@pytest.fixture
def geometry() -> Geometry:
    """Oblique and left-handed."""
    c, s = np.cos(0.3), np.sin(0.3)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, -1]]) * [1, 1.5, 2.5]
    matrix[:3, 3] = (-10, 20, 33.3)
    return Geometry((5, 6, 7), matrix)


@pytest.fixture
def labels() -> np.ndarray:
    array = np.zeros((5, 6, 7), np.uint8)
    array[1, 1:3, 2:4] = 1
    array[3, 2:5, 4:6] = 4
    return array


@pytest.fixture
def segments() -> list[Segment]:
    return [segment_for(name, value) for value, name in enumerate(ORGANS, 1)]


@pytest.mark.parametrize("ending", SEGMENTATION_ENDINGS)
def test_labels_and_grid_come_back_from_every_format(
    tmp_path: Path, ending: str, labels: np.ndarray, geometry: Geometry, segments: list[Segment]
) -> None:
    path = tmp_path / f"case.v1{ending}"
    write_segmentation(path, labels, geometry, segments)
    back = read_labelmap(path)
    assert np.array_equal(back.array, labels)
    check_same_grid(geometry, back.geometry)
    assert geometry.skew_mm < 1e-9
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "name", ["U.MHA", "C.NII.GZ", "a.Nii", "b.Nii.Gz", "c.nii.GZ", "d.NRRD", "e.Seg.NRRD", "Größe.MHA"]
)
def test_endings_may_be_in_capitals(
    tmp_path: Path, name: str, labels: np.ndarray, geometry: Geometry, segments: list[Segment]
) -> None:
    """ITK itself writes other files than these, or none."""
    write_segmentation(tmp_path / name, labels, geometry, segments)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert np.array_equal(read_labelmap(tmp_path / name).array, labels)


@pytest.mark.parametrize("ending", SEGMENTATION_ENDINGS)
def test_a_sheared_grid_is_written_as_it_is_or_not_at_all(
    tmp_path: Path, ending: str, labels: np.ndarray, segments: list[Segment]
) -> None:
    """NIfTI as it is written here has perpendicular axes."""
    matrix = np.diag([1.0, 1.5, 2.5, 1.0])
    matrix[0, 2] = 0.5
    sheared = Geometry((5, 6, 7), matrix)
    assert sheared.skew_mm > 1
    path = tmp_path / f"case{ending}"
    if ".nii" in ending:
        with pytest.raises(InputError, match="not perpendicular"):
            write_segmentation(path, labels, sheared, segments)
        assert list(tmp_path.iterdir()) == []
    else:
        write_segmentation(path, labels, sheared, segments)
        check_same_grid(sheared, read_labelmap(path).geometry)


def test_names_come_back_from_slicers_format(tmp_path: Path, labels: np.ndarray, geometry: Geometry) -> None:
    path = tmp_path / "case.seg.nrrd"
    write_segmentation(path, labels, geometry, [segment_for("liver", 1), segment_for("Größe\nx", 4)])
    assert read_labelmap(path).names == {1: "liver", 4: "Größe x"}


def test_the_header_is_what_slicer_writes_for_one_shared_layer(
    tmp_path: Path, labels: np.ndarray, geometry: Geometry, segments: list[Segment]
) -> None:
    path = tmp_path / "case.seg.nrrd"
    write_segmentation(path, labels, geometry, segments)
    header = path.read_bytes().split(b"\n\n", 1)[0].decode("utf-8")
    fields = dict(re.findall(r"^(\w+):=(.*)$", header, re.MULTILINE))
    assert "space: left-posterior-superior" in header
    assert "encoding: gzip" in header
    assert fields["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert fields["Segmentation_ContainedRepresentationNames"] == "Binary labelmap|"
    assert fields["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"
    assert fields["Segmentation_ConversionParameters"].startswith("Reference image geometry|-0.955336")
    assert fields["Segmentation_ConversionParameters"].endswith(";0;6;0;5;0;4;|&")
    assert fields["Segment3_ID"] == "Segment_4"
    assert fields["Segment3_Name"] == "liver"
    assert fields["Segment3_Color"] == "0.866667 0.509804 0.396078"
    assert fields["Segment3_LabelValue"] == "4"
    assert fields["Segment1_Tags"] == (
        "TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy list"
        "~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~SCT^24028007^Right"
        "~Anatomic codes - DICOM master list~^^~^^|"
    )
    # Slicer crops the layer to the extent of its first segment.
    assert {fields[f"Segment{n}_Extent"] for n in range(4)} == {"0 6 0 5 0 4"}
    assert {fields[f"Segment{n}_Layer"] for n in range(4)} == {"0"}


@pytest.mark.parametrize("ending", SCALAR_ENDINGS)
def test_a_scalar_map_comes_back(tmp_path: Path, ending: str, geometry: Geometry) -> None:
    array = np.random.default_rng(0).random(geometry.shape, np.float32)
    path = tmp_path / f"confidence{ending}"
    write_scalar(path, array, geometry)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), array)


def test_an_unknown_ending_is_refused_before_anything_is_written(
    tmp_path: Path, labels: np.ndarray, geometry: Geometry
) -> None:
    with pytest.raises(InputError, match=r"case\.png.*\.seg\.nrrd"):
        write_segmentation(tmp_path / "case.png", labels, geometry, [])
    with pytest.raises(InputError):
        write_scalar(tmp_path / "confidence.seg.nrrd", labels, geometry)
    with pytest.raises(InputError):
        require_ending(".nii.gz", SEGMENTATION_ENDINGS)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_told(tmp_path: Path, labels: np.ndarray, geometry: Geometry) -> None:
    with pytest.raises(OutputError, match="no folder"):
        write_segmentation(tmp_path / "absent" / "case.nii.gz", labels, geometry, [])


def test_a_name_that_is_not_utf8_is_told(tmp_path: Path, labels: np.ndarray, geometry: Geometry) -> None:
    """SimpleITK would end the process without a word."""
    with pytest.raises(OutputError, match=r"caf\\udce9\.nii\.gz holds a character that is not UTF-8"):
        write_segmentation(tmp_path / "caf\udce9.nii.gz", labels, geometry, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", SCALAR_ENDINGS)
def test_a_disk_that_fills_up_leaves_the_old_file_alone(tmp_path: Path, ending: str) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no limit on file sizes to test with.")
    signal = pytest.importorskip("signal")
    path = tmp_path / f"map{ending}"
    path.write_bytes(b"old")
    noise = np.random.default_rng(0).random((20, 50, 50), np.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="written"):
            write_scalar(path, noise, Geometry(noise.shape, np.eye(4)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_a_format_cannot_hold_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    array = np.zeros((1, 1, 40_000), np.float32)
    with pytest.raises(OutputError, match="maximum possible dimension 32767") as caught:
        write_scalar(tmp_path / "a.nii.gz", array, Geometry(array.shape, np.eye(4)))
    assert caught.value.hint == "Write it in another format."
    assert not list(tmp_path.iterdir())


def test_too_little_memory_to_write_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("Exception thrown in SimpleITK ImageFileWriter_Execute: std::bad_alloc")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    array = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(OutOfMemoryError, match=r"too little free memory for writing .*a\.mha"):
        write_scalar(tmp_path / "a.mha", array, Geometry(array.shape, np.eye(4)))
    assert not list(tmp_path.iterdir())


def test_organs_are_found_whatever_their_spelling() -> None:
    right, left = segment_for("Right_Kidney", 7), segment_for("left kidney", 2)
    assert (right.name, right.value) == ("Right_Kidney", 7)
    assert "SCT^64033007^Kidney~SCT^24028007^Right" in right.terminology
    assert "SCT^64033007^Kidney~SCT^7771000^Left" in left.terminology
    assert segment_for("spleen", 1).color == (157 / 255, 108 / 255, 162 / 255)


def test_unknown_organs_are_tissue_in_colours_of_their_own() -> None:
    unknown = [segment_for(f"thing {value}", value) for value in range(1, 21)]
    assert all("SCT^85756007^Tissue~SCT^85756007^Tissue" in segment.terminology for segment in unknown)
    colors = np.array([segment.color for segment in unknown])
    assert colors.min() >= 0
    assert colors.max() <= 1
    distances = np.abs(colors[:, None] - colors[None]).sum(2) + np.eye(20)
    assert distances.min() > 0.05
