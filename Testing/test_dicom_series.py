from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cases import write_dicom_slices

from DiffuSAMLib.dicom_series import list_series
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.labelmaps import check_same_grid, read_labelmap
from DiffuSAMLib.volumes import read_volume

DATA = Path(os.environ.get("DIFFUSAM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SIZE = 8


def write_series(
    folder: Path,
    positions: list[float],
    *,
    uid: str = "1.2.3.1",
    number: int = 1,
    description: str = "portal venous",
    modality: str = "MR",
    tilt: float = 0.0,
    size: int = SIZE,
) -> np.ndarray:
    """Axial slices at the given heights (mm); `tilt` shifts each along y by that much of its height."""
    array = np.random.default_rng(number).integers(0, 500, (len(positions), size, size)).astype(np.int16)
    write_dicom_slices(
        folder,
        array,
        [(-10, 5 + tilt * z, z) for z in positions],
        spacing=(0.8, 0.9),
        modality=modality,
        uid=uid,
        number=number,
        description=description,
    )
    return array


def write_multi_frame(file: Path, *, frames: int, modality: str, uid: str = "1.2.3.9") -> None:
    """An enhanced CT or MR image of one file."""
    array = np.random.default_rng(0).integers(0, 500, (frames, SIZE, SIZE)).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.9, 3.0))
    image.SetMetaData("0008|0016", f"1.2.840.10008.5.1.4.1.1.{2 if modality == 'CT' else 4}.1")
    image.SetMetaData("0008|0018", f"{uid}.900")
    image.SetMetaData("0008|0060", modality)
    image.SetMetaData("0020|000d", "1.2.7")
    image.SetMetaData("0020|000e", uid)
    # Files of one position and no number make GDCM crash.
    image.SetMetaData("0020|0013", "4")
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(file))
    writer.Execute(image)


def test_a_series_is_read_in_the_order_of_its_positions(tmp_path: Path) -> None:
    array = write_series(tmp_path, [4, -2, 1, 7])
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, array[[1, 2, 0, 3]])
    np.testing.assert_allclose(volume.geometry.spacing, (0.8, 0.9, 3.0))
    np.testing.assert_allclose(volume.geometry.origin, (-10, 5, -2))
    assert volume.geometry.orientation == "LPS"
    assert volume.modality == "MR"


def test_a_modality_that_is_not_said_is_guessed_aloud(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 1, 2], modality="")
    volume = read_volume(tmp_path)
    assert volume.warnings == (
        f"The DICOM series in {tmp_path} does not say its modality; it is taken for {volume.modality}.",
    )
    assert read_volume(tmp_path, modality="CT").warnings == ()


def test_other_files_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 1, 2])
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "more").mkdir()
    assert read_volume(tmp_path).array.shape == (3, SIZE, SIZE)


def test_one_slice_is_a_volume(tmp_path: Path) -> None:
    array = write_series(tmp_path, [4])
    assert np.array_equal(read_volume(tmp_path).array, array)
    with pytest.raises(InputError, match="single DICOM slice"):
        read_volume(next(tmp_path.iterdir()))


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_multi_frame_dicom_is_refused_however_it_is_given(tmp_path: Path, modality: str) -> None:
    """SimpleITK tells no position of a frame, so no such file can be read with certainty."""
    file = tmp_path / "a.dcm"
    write_multi_frame(file, frames=4, modality=modality)
    with pytest.raises(
        InputError, match=r"one file of 4 frames, whose positions cannot be checked.*dcm2niix"
    ) as told:
        read_volume(tmp_path)
    assert str(file) in str(told.value)
    with pytest.raises(InputError, match=r"one file of 4 frames"):
        read_volume(file, modality=modality)
    with pytest.raises(InputError, match=r"one file of 4 frames"):
        read_labelmap(file)
    renamed = file.rename(tmp_path / "a.mha")
    with pytest.raises(InputError, match=r"one file of 4 frames"):
        read_volume(renamed)


def test_a_series_with_a_multi_frame_file_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 1, 2])
    write_multi_frame(tmp_path / "z.dcm", frames=2, modality="MR", uid="1.2.3.1")
    with pytest.raises(InputError, match=r"z\.dcm is multi-frame DICOM: one file of 2 frames"):
        read_volume(tmp_path)


def test_one_frame_of_an_enhanced_class_is_a_slice(tmp_path: Path) -> None:
    write_multi_frame(tmp_path / "a.dcm", frames=1, modality="MR")
    volume = read_volume(tmp_path)
    assert volume.array.shape == (1, SIZE, SIZE)
    assert volume.modality == "MR"


def test_the_series_with_most_slices_is_taken_unless_one_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    short = write_series(tmp_path, [0, 5], uid="1.2.3.1", number=1, description="arterial")
    long = write_series(tmp_path, [0, 1, 2], uid="1.2.3.2", number=2, description="Portal venous")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, long)
    assert volume.series_uid == "1.2.3.2"
    assert ["The folder holds 2 series" in sentence for sentence in volume.warnings] == [True]
    assert "arterial" in caplog.text
    assert "Portal venous" in caplog.text
    for series in ("1", 1, "1.2.3.1", "ARTER"):
        assert np.array_equal(read_volume(tmp_path, series=series).array, short)
    assert np.array_equal(read_volume(tmp_path, series="portal").array, long)
    for series in ("3", "delayed", ""):
        with pytest.raises(InputError, match=r"No series matches.*1: arterial.*2: Portal venous"):
            read_volume(tmp_path, series=series)
    with pytest.raises(InputError, match="2 series match"):
        read_volume(tmp_path, series="al")


def test_a_number_that_may_mean_two_series_is_refused(tmp_path: Path) -> None:
    """The place in the list counts, but DICOM numbers series, too."""
    for number, description in ((2, "arterial"), (3, "portal")):
        write_series(tmp_path, [0, 1, 2], uid=f"1.2.3.{number}", number=number, description=description)
    assert read_volume(tmp_path, series="1").series_uid == "1.2.3.2"
    with pytest.raises(
        InputError, match="the place in the list of one series and the series number of another"
    ) as told:
        read_volume(tmp_path, series="2")
    assert told.value.hint == (
        "Give the UID or the description from: 1: arterial, series number 2, MR, 3 files, 1.2.3.2; "
        "2: portal, series number 3, MR, 3 files, 1.2.3.3."
    )
    with pytest.raises(InputError, match=r"No series matches '3'\. Choose a place in the list, UID"):
        read_volume(tmp_path, series=3)


def test_a_series_number_that_is_none_is_no_error(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 1, 2], number=10)
    for file in tmp_path.iterdir():
        # The element (0020,0011) with its length.
        number = b"\x20\x00\x11\x00\x02\x00\x00\x0010"
        assert file.read_bytes().count(number) == 1
        file.write_bytes(file.read_bytes().replace(number, b"\x20\x00\x11\x00\x04\x00\x00\x00--5 "))
    assert ["no series number" in str(series) for series in list_series(tmp_path)] == [True]
    assert read_volume(tmp_path).array.shape == (3, SIZE, SIZE)


def test_a_directory_of_a_medium_is_no_damaged_image(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 1, 2], modality="CT")
    classes = {b"\x02\x00\x02\x00": "1.2.840.10008.1.3.10", b"\x04\x00\x10\x15": "1.2.840.10008.5.1.4.1.1.2"}
    elements = (
        tag + b"UI" + (len(uid) + len(uid) % 2).to_bytes(2, "little") + uid.encode() + b"\0" * (len(uid) % 2)
        for tag, uid in classes.items()
    )
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"".join(elements))
    assert read_volume(tmp_path).array.shape == (3, SIZE, SIZE)


def test_a_missing_slice_is_refused(tmp_path: Path) -> None:
    """Wherever it lies, and however few slices there are to tell their distance by."""
    for number, (heights, gap) in enumerate(
        {
            (
                0,
                2,
                4,
                8,
                10,
            ): "4 mm lies between its slices 3 and 4 (1_98.dcm and 1_97.dcm), where others are 2 mm",
            (0, 2, 6): "4 mm lies between its slices 2 and 3",
            (0, 4, 6): "4 mm lies between its slices 1 and 2",
            (*range(0, 60, 10), *range(140, 240, 10)): "90 mm lies between its slices 6 and 7",
        }.items()
    ):
        write_series(tmp_path / str(number), list(heights))
        with pytest.raises(InputError, match=re.escape(gap)):
            read_volume(tmp_path / str(number))


def test_uneven_slices_are_told_and_the_ends_keep_their_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_series(tmp_path, [0, 2, 4, 6.8, 8.8])
    volume = read_volume(tmp_path)
    assert "2.8 mm between slices 3 and 4, else 2 mm" in caplog.text
    assert "off by up to 0.4 mm" in caplog.text
    assert volume.geometry.spacing[2] == pytest.approx(2.2)
    assert (volume.geometry.matrix @ [0, 0, 4, 1])[2] == pytest.approx(8.8)
    assert volume.warnings == tuple(record.getMessage() for record in caplog.records)


def test_even_slices_are_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path, [0, 2, 4.01, 6])
    volume = read_volume(tmp_path)
    assert not caplog.text
    assert not volume.warnings


def test_stacks_that_are_no_volume_are_told(tmp_path: Path) -> None:
    write_series(tmp_path / "times", [0, 1, 1, 2])
    with pytest.raises(InputError, match="several images at one position"):
        read_volume(tmp_path / "times")
    write_series(tmp_path / "one by one", [0, 1, 2, 0, 1, 2])
    with pytest.raises(InputError, match="several images at one position"):
        read_volume(tmp_path / "one by one")
    write_series(tmp_path / "tilted", [0, 1, 2], tilt=0.2)
    with pytest.raises(InputError, match=r"gantry tilt of 11\.3 degrees"):
        read_volume(tmp_path / "tilted")
    write_series(tmp_path / "sizes", [0, 1, 2])
    write_series(tmp_path / "sizes", [3], number=7, size=6)
    with pytest.raises(InputError, match="different sizes"):
        read_volume(tmp_path / "sizes")


def test_other_modalities_are_refused_unless_one_is_stated(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 1, 2], modality="PT")
    with pytest.raises(InputError, match="modality PT"):
        read_volume(tmp_path)
    assert read_volume(tmp_path, modality="CT").modality == "CT"


def test_a_folder_without_images_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="is empty"):
        read_volume(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="no readable DICOM images"):
        read_volume(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="Names are always text here.")
def test_names_that_are_not_utf8_are_told_where_they_matter(tmp_path: Path) -> None:
    """SimpleITK would end the process without a word."""
    folder = tmp_path / "a"
    write_series(folder, [0, 1, 2])
    (folder / "notes \udce9.txt").write_text("hello")
    assert read_volume(folder).array.shape == (3, SIZE, SIZE)
    (folder / "1_99.dcm").rename(folder / "1_99\udce9.dcm")
    with pytest.raises(InputError, match=r"1_99\\udce9\.dcm holds a character that is not UTF-8"):
        read_volume(folder)
    folder = folder.rename(tmp_path / "a\udce9")
    with pytest.raises(InputError, match=r"a\\udce9 holds a character that is not UTF-8"):
        read_volume(folder)


@pytest.mark.parametrize("part", [0.6, 0.95])
def test_a_truncated_slice_is_told(tmp_path: Path, part: float) -> None:
    write_series(tmp_path, [0, 1, 2], size=64)
    file = sorted(tmp_path.iterdir())[1]
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"damaged or incomplete"):
        read_volume(tmp_path)


def test_the_development_series_lies_on_the_grid_of_its_labels() -> None:
    folder = DATA / "totalsegmentator-examples"
    if not folder.is_dir():
        pytest.skip(f"No folder {folder}; set DIFFUSAM_DATA to the development data.")
    volume = read_volume(folder / "ct_b_dicom")
    labels = read_labelmap(folder / "ct_b_label.nii.gz")
    assert volume.modality == "CT"
    assert volume.array.min() < -900
    with pytest.raises(InputError, match=r"axes LAS, where the image has.*axes LPS"):
        check_same_grid(volume.geometry, labels.geometry)
    liver = labels.array == 5
    assert liver.any()
    # The same place in the world: the labels' rows run the other way.
    assert 40 < volume.array[:, ::-1][liver].mean() < 160
