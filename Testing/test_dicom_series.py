from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from cases import write_dicom_slices

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.volumes import check_same_grid, read_labelmap, read_volume

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


def test_a_series_is_read_in_the_order_of_its_positions(tmp_path: Path) -> None:
    array = write_series(tmp_path, [4, -2, 1, 7])
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, array[[1, 2, 0, 3]])
    np.testing.assert_allclose(volume.geometry.spacing, (0.8, 0.9, 3.0))
    np.testing.assert_allclose(volume.geometry.origin, (-10, 5, -2))
    assert volume.geometry.orientation == "LPS"
    assert volume.modality == "MR"


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


def test_the_series_with_most_slices_is_taken_unless_one_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    short = write_series(tmp_path, [0, 5], uid="1.2.3.1", number=1, description="arterial")
    long = write_series(tmp_path, [0, 1, 2], uid="1.2.3.2", number=2, description="Portal venous")
    assert np.array_equal(read_volume(tmp_path).array, long)
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


def test_a_missing_slice_is_logged_and_the_ends_keep_their_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_series(tmp_path, [0, 2, 4, 8, 10])
    volume = read_volume(tmp_path)
    assert "4 mm between slices 3 and 4, else 2 mm" in caplog.text
    assert volume.geometry.spacing[2] == pytest.approx(2.5)
    assert (volume.geometry.matrix @ [0, 0, 4, 1])[2] == pytest.approx(10)


def test_even_slices_are_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path, [0, 2, 4.01, 6])
    read_volume(tmp_path)
    assert not caplog.text


def test_stacks_that_are_no_volume_are_told(tmp_path: Path) -> None:
    write_series(tmp_path / "times", [0, 1, 1, 2])
    with pytest.raises(InputError, match="several images at one position"):
        read_volume(tmp_path / "times")
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
