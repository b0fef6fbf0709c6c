from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffuSAMLib.content_hashes import content_sha256, sha256_of
from DiffuSAMLib.errors import InputError


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 1_000_000)
    assert sha256_of(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_the_hash_of_a_folder_follows_the_contents_and_not_the_names(tmp_path: Path) -> None:
    for folder, names in {"one": "ab", "two": "ba", "three": "ab"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / names[0]).write_bytes(b"1")
        (tmp_path / folder / names[1]).write_bytes(b"2")
    (tmp_path / "three" / "b").write_bytes(b"3")
    assert sha256_of(tmp_path / "one") == sha256_of(tmp_path / "two")
    assert sha256_of(tmp_path / "one") != sha256_of(tmp_path / "three")


def test_a_missing_file_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        sha256_of(tmp_path / "absent")


@pytest.mark.parametrize(("ending", "voxels"), [(".mhd", ".raw"), (".nhdr", ".raw")])
def test_the_hash_of_a_header_knows_its_voxels(tmp_path: Path, ending: str, voxels: str) -> None:
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)), str(path))
    before = content_sha256(path)
    data = tmp_path / f"a{voxels}"
    changed = bytearray(data.read_bytes())
    changed[0] ^= 1
    data.write_bytes(changed)
    assert content_sha256(path) != before


def test_voxels_in_a_file_of_another_name_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.mhd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), str(path))
    (tmp_path / "a.raw").rename(tmp_path / "voxels of a.raw")
    path.write_text(path.read_text().replace("a.raw", "voxels of a.raw"))
    before = content_sha256(path)
    (tmp_path / "voxels of a.raw").write_bytes(b"\1" * 48)
    assert content_sha256(path) != before


def test_other_files_have_the_hash_of_their_content(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), str(path))
    (tmp_path / "a.txt").write_text("beside it")
    assert content_sha256(path) == sha256_of(path)
