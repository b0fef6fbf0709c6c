from __future__ import annotations

import gzip
import os
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.volumes import read_volume


def save(path: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 1000, (5, 6, 7)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


@pytest.mark.parametrize("place", [40, 70, 108])
def test_a_nonsense_nifti_header_is_refused(tmp_path: Path, place: int) -> None:
    path = save(tmp_path / "a.nii")
    data = bytearray(path.read_bytes())
    data[place : place + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.nii"):
        read_volume(path)


def sheared_nifti(path: Path, shear: float) -> Path:
    save(path.with_suffix(".nii.gz"))
    data = bytearray(gzip.decompress(path.with_suffix(".nii.gz").read_bytes()))
    struct.pack_into("<hh", data, 252, 0, 1)
    struct.pack_into("<12f", data, 280, 1, shear, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    path.write_bytes(data)
    return path


def test_slightly_skewed_nifti_axes_are_made_perpendicular(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = read_volume(sheared_nifti(tmp_path / "a.nii", 0.005))
    direction = volume.geometry.direction
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    assert "off perpendicular" in caplog.text
    assert "ITK_NIFTI_SFORM_PERMISSIVE" not in os.environ


def test_a_sheared_nifti_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sheared"):
        read_volume(sheared_nifti(tmp_path / "a.nii", 0.2))


def test_a_sheared_nifti_is_refused_while_a_skewed_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ITK is told to allow skewed axes by a setting of the whole process."""
    skewed, sheared = sheared_nifti(tmp_path / "a.nii", 0.005), sheared_nifti(tmp_path / "b.nii", 0.2)
    allowed, read = threading.Event(), sitk.ReadImage
    told: list[str] = []

    def read_slowly(path: str, **options: str) -> sitk.Image:
        if "ITK_NIFTI_SFORM_PERMISSIVE" in os.environ:
            allowed.set()
            time.sleep(0.3)
        return read(path, **options)

    def read_sheared() -> None:
        allowed.wait(10)
        with pytest.raises(InputError) as caught:
            read_volume(sheared)
        told.append(caught.value.message)

    monkeypatch.setattr(sitk, "ReadImage", read_slowly)
    other = threading.Thread(target=read_sheared)
    other.start()
    read_volume(skewed)
    other.join()
    assert ["degrees away from perpendicular" in message for message in told] == [True]
    assert "ITK_NIFTI_SFORM_PERMISSIVE" not in os.environ
