from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffuSAMLib import nifti_files
from DiffuSAMLib.errors import InputError, OutOfMemoryError
from DiffuSAMLib.image_files import read_image


@pytest.mark.parametrize("path", ["caf\udce9.nii.gz", "caf\udce9/a.nrrd"])
def test_a_path_that_is_not_utf8_is_told(tmp_path: Path, path: str) -> None:
    """SimpleITK would end the process without a word."""
    with pytest.raises(InputError, match=r"caf\\udce9.* not UTF-8, and cannot be used\. Rename"):
        read_image(tmp_path / path)


@pytest.mark.parametrize(
    "ending", [".NII", ".Nii", ".NII.GZ", ".Nii.Gz", ".nii.GZ", ".NRRD", ".Nhdr", ".MHA", ".Mha", ".MHD"]
)
def test_endings_may_be_in_capitals(tmp_path: Path, ending: str) -> None:
    """ITK itself does not know all of these."""
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = tmp_path / f"a{ending.lower()}"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    path = path.rename(tmp_path / f"A{ending}")
    assert np.array_equal(sitk.GetArrayFromImage(read_image(path)), array)


def test_endings_may_be_in_capitals_where_nobody_may_make_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(link: Path, target: Path) -> None:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    test_endings_may_be_in_capitals(tmp_path, ".nii.GZ")


def test_a_short_name_of_windows_hides_no_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for ending, short in ((".nrrd", "BCHER~1.NRR"), (".nii.gz", "BCHER~2.GZ"), (".mha", "BCHER~3.MHA")):
        path = tmp_path / f"Bücher{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        names = {path: shutil.copy(path, tmp_path / short)}
        monkeypatch.setattr(nifti_files, "itk_path", lambda path, names=names: str(names.get(path, path)))
        assert np.array_equal(sitk.GetArrayFromImage(read_image(path)), array)


def test_too_little_memory_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("itkImportImageContainer.hxx:179:\nFailed to allocate memory for image.")

    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), str(path))
    monkeypatch.setattr(sitk, "ReadImage", fail)
    with pytest.raises(OutOfMemoryError, match=r"too little free memory for .*a\.nrrd"):
        read_image(path)
