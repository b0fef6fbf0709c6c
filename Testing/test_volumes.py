from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffuSAMLib.errors import InputError, OutOfMemoryError
from DiffuSAMLib.geometry import Geometry, to_canonical
from DiffuSAMLib.segmentation_files import write_scalar
from DiffuSAMLib.volumes import Volume, guess_modality, normalise, read_volume

DATA = Path(os.environ.get("DIFFUSAM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


def random_array(shape: tuple[int, ...] = (5, 6, 7)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)


def save(path: Path, array: np.ndarray, *, vectors: bool = False) -> Path:
    image = sitk.GetImageFromArray(array, isVector=vectors)
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_volume_keeps_its_values_and_grid(tmp_path: Path, ending: str) -> None:
    array = random_array()
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 5.0))
    image.SetOrigin((-100.0, 20.0, 3.0))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    path = tmp_path / f"case.v1{ending}"
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.matrix, Geometry.from_sitk(image).matrix, atol=1e-5)
    assert (volume.modality, volume.source) == ("MR", str(path))


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_single_slice_is_a_volume(tmp_path: Path, ending: str) -> None:
    assert read_volume(save(tmp_path / f"a{ending}", random_array((1, 6, 7)))).array.shape == (1, 6, 7)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_fourth_axis_of_length_one_is_dropped(tmp_path: Path, ending: str) -> None:
    array = random_array((1, 5, 6, 7))
    assert np.array_equal(read_volume(save(tmp_path / f"a{ending}", array)).array, array[0])


def test_the_stated_modality_goes_before_the_guess(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nrrd", random_array())
    assert read_volume(path, modality="ct").modality == "CT"
    with pytest.raises(InputError, match="not a modality"):
        read_volume(path, modality="PET")


def test_a_series_can_only_be_chosen_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a DICOM folder"):
        read_volume(save(tmp_path / "a.nrrd", random_array()), series="1")


def test_missing_empty_and_foreign_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file or folder"):
        read_volume(tmp_path / "absent.nii.gz")
    for ending in ENDINGS:
        empty = tmp_path / f"empty{ending}"
        empty.touch()
        with pytest.raises(InputError, match="empty"):
            read_volume(empty)
        text = tmp_path / f"text{ending}"
        text.write_text("hello " * 200)
        with pytest.raises(InputError, match=r"text\."):
            read_volume(text)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt.*NIfTI"):
        read_volume(tmp_path / "notes.txt")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("part", [0.01, 0.6, 0.98])
def test_a_truncated_file_is_refused_silently(
    tmp_path: Path, ending: str, part: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / f"a{ending}", random_array((20, 30, 40)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"a\."):
        read_volume(path)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_gzip_stream_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", random_array((20, 30, 40)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="unpacked"):
        read_volume(path)


def test_a_header_without_its_data_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mhd", random_array())
    (tmp_path / "a.raw").unlink()
    with pytest.raises(InputError, match=r"a\.mhd"):
        read_volume(path)


def test_other_things_than_one_scalar_volume_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="flat image"):
        read_volume(save(tmp_path / "flat.nii.gz", random_array((6, 7))))
    with pytest.raises(InputError, match="4 dimensions"):
        read_volume(save(tmp_path / "times.nii.gz", random_array((3, 5, 6, 7))))
    with pytest.raises(InputError, match="3 values a voxel"):
        read_volume(save(tmp_path / "colour.nrrd", random_array((5, 6, 7, 3)), vectors=True))
    with pytest.raises(InputError, match="complex"):
        read_volume(save(tmp_path / "complex.nii.gz", (random_array() + 1j).astype(np.complex64)))
    with pytest.raises(InputError, match="every voxel has the value 4"):
        read_volume(save(tmp_path / "constant.nii.gz", np.full((5, 6, 7), 4, np.int16)))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_told(tmp_path: Path, ending: str, dtype: type, value: float) -> None:
    array = random_array().astype(dtype)
    array[2, 3, 4] = value
    with pytest.raises(InputError, match="1 voxel that is not finite"):
        read_volume(save(tmp_path / f"a{ending}", array))


def test_too_little_memory_for_the_copy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("Unable to allocate 244. MiB for an array")

    path = save(tmp_path / "a.nii", random_array())
    monkeypatch.setattr("DiffuSAMLib.volumes.require_contrast", fail)
    with pytest.raises(OutOfMemoryError, match=r"too little free memory for .*a\.nii"):
        read_volume(path)


def test_ct_is_told_from_mr_by_its_values() -> None:
    rng = np.random.default_rng(0)
    ct = np.concatenate([np.full(500, -1000.0), rng.normal(-100, 10, 200), rng.normal(50, 20, 300)])
    assert guess_modality(ct) == "CT"
    assert guess_modality(ct - ct.min()) == "MR"
    assert guess_modality(rng.normal(0, 1, 1000)) == "MR"
    assert guess_modality(rng.uniform(-4096, 4095, 1000)) == "MR"


def volume_of(array: np.ndarray, modality: str) -> Volume:
    array = array.astype(np.float32)
    return Volume(array, Geometry(array.shape, np.eye(4)), "CT" if modality == "CT" else "MR", "test")


def test_ct_is_windowed() -> None:
    array = np.array([-1000, -125, 75, 275, 3000.0]).reshape(1, 1, 5)
    np.testing.assert_allclose(normalise(volume_of(array, "CT")).ravel(), [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("tissue_share", [0.9, 0.3, 0.02])
def test_mr_tissue_keeps_its_contrast_however_much_air_is_in_view(tissue_share: float) -> None:
    rng = np.random.default_rng(0)
    array = np.abs(rng.normal(0, 2, (20, 50, 50)))
    tissue = rng.random(array.shape) < tissue_share
    array[tissue] = rng.uniform(100, 400, int(tissue.sum()))
    array[0, 0, 0] = 1e6
    scaled = normalise(volume_of(array, "MR"))
    assert scaled.dtype == np.float32
    assert (scaled.min(), scaled.max()) == (0, 1)
    assert np.ptp(np.percentile(scaled[tissue], [5, 95])) > 0.6


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0), (1000.0, 0), (3.0, 50)])
def test_mr_normalisation_ignores_the_scale(scale: float, offset: float) -> None:
    array = np.random.default_rng(0).gamma(2, 100, (10, 20, 20))
    plain, scaled = (normalise(volume_of(a, "MR")) for a in (array, array * scale + offset))
    np.testing.assert_allclose(plain, scaled, atol=1e-5)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_normalisation_is_monotonic(modality: str) -> None:
    array = np.random.default_rng(0).normal(50, 200, (10, 20, 20))
    scaled = normalise(volume_of(array, modality)).ravel()
    assert (np.diff(scaled[np.argsort(array.astype(np.float32).ravel())]) >= 0).all()


def test_a_constant_or_nearly_empty_mr_gives_finite_values() -> None:
    assert not normalise(volume_of(np.full((2, 3, 4), 7), "MR")).any()
    lonely = np.zeros((10, 20, 20))
    lonely[5, 5, 5] = 9
    scaled = normalise(volume_of(lonely, "MR"))
    assert scaled[5, 5, 5] == 1
    assert scaled.sum() == 1


@pytest.mark.parametrize(
    ("folder", "modality"),
    [
        ("btcv-ct/images", "CT"),
        ("chaos-mr-t2spir/images", "MR"),
        ("msd-hippocampus-mr/images", "MR"),
        ("totalsegmentator-examples/ct_a", "CT"),
    ],
)
def test_the_modality_of_every_development_image_is_guessed_right(folder: str, modality: str) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"No folder {DATA / folder}; set DIFFUSAM_DATA to the development data.")
    files = [file for file in sorted((DATA / folder).glob("*.nii.gz")) if not file.name.startswith("label")]
    assert files
    for file in files:
        volume = read_volume(file)
        assert volume.modality == modality, file.name
        scaled = normalise(volume)
        assert np.isfinite(scaled).all()
        assert 0.05 < scaled[scaled > 0].mean() < 0.95, file.name


def test_a_header_that_places_the_voxels_nowhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    sitk.WriteImage(image, str(path))
    header = bytearray(path.read_bytes())
    # The last column of the first row of NIfTI's sform.
    header[280 + 12 : 280 + 16] = np.float32(np.nan).tobytes()
    path.write_bytes(header)
    with pytest.raises(InputError, match="does not say where its voxels lie"):
        read_volume(path)


def test_all_48_axis_orders_come_back_from_a_file_exactly(tmp_path: Path) -> None:
    """As Slicer and ITK write them: the same voxel at the same place in the world."""
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    for number, (axes, flips) in enumerate(
        itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    ):
        matrix = np.eye(4)
        matrix[:3, :3] = np.diag(flips)[:, axes] * (0.75, 1.5, 4.0)
        matrix[:3, 3] = (-10, 20.5, 33)
        geometry = Geometry(array.shape, matrix)
        path = tmp_path / f"{number}.nrrd"
        write_scalar(path, array, geometry)
        volume = read_volume(path, modality="MR")
        assert np.array_equal(volume.array, array)
        assert np.allclose(volume.geometry.matrix, matrix, atol=1e-9)
        order = to_canonical(volume.geometry)
        stack = order.apply(volume.array)
        back = np.zeros_like(array)
        order.view(back)[:] = stack
        assert np.array_equal(back, array)
