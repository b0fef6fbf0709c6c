from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffuSAMLib import metaimage_files
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.image_files import read_image

ARRAY = np.random.default_rng(0).integers(0, 1000, (20, 30, 40)).astype(np.int16)
Edit = Callable[[bytes], bytes]


def write(path: Path, edit: Edit, *, packed: bool) -> Path:
    """A MetaImage file whose bytes are changed: those of the file with the voxels."""
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(path), useCompression=packed)
    file = path if path.suffix == ".mha" else path.with_suffix(".zraw" if packed else ".raw")
    file.write_bytes(edit(file.read_bytes()))
    return path


def flipped(data: bytes) -> bytes:
    at = len(data) * 2 // 3
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def packed_size(change: int) -> Edit:
    """What the header says of the compressed bytes is wrong by so many."""
    return lambda data: re.sub(
        rb"(CompressedDataSize = )(\d+)", lambda size: size[1] + b"%d" % (int(size[2]) + change), data
    )


def with_other_voxels(data: bytes) -> bytes:
    """A whole compressed stream, of half the voxels."""
    header = data[: data.index(b"LOCAL") + 6]
    stream = zlib.compress(halved(ARRAY.tobytes()))
    return re.sub(rb"(?<=CompressedDataSize = )\d+", b"%d" % len(stream), header) + stream


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "edit", "says"),
    [
        ("a.mha", halved, r"a\.mha ends after \d+ of \d+ bytes"),
        ("a.mhd", halved, r"a\.z?raw ends after \d+ of \d+ bytes"),
        ("a.mha", lambda data: data[:150], r"a\.mha ends within its header"),
    ],
)
def test_what_ends_early_is_told(tmp_path: Path, name: str, edit: Edit, says: str, packed: bool) -> None:
    with pytest.raises(InputError, match=rf"{says}\. The file is incomplete or damaged"):
        read_image(write(tmp_path / name, edit, packed=packed))


@pytest.mark.parametrize(
    ("name", "edit", "says"),
    [
        ("a.mha", flipped, r"a\.mha cannot be unpacked: Error -3"),
        ("a.mhd", flipped, r"a\.zraw cannot be unpacked: Error -3"),
        ("a.mha", with_other_voxels, r"a\.mha ends after 24000 of 48000 bytes"),
        ("a.mha", packed_size(-500), r"a\.mha cannot be unpacked: Its compressed data end early"),
        ("a.mha", packed_size(500), r"a\.mha ends after \d+ of \d+ bytes"),
        # MetaIO then unpacks the header, too.
        ("a.mha", lambda data: re.sub(rb"CompressedDataSize.*\n", b"", data), "cannot be unpacked: Error -3"),
    ],
)
def test_compressed_voxels_that_simpleitk_would_fill_up_are_refused(
    tmp_path: Path, name: str, edit: Edit, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        read_image(write(tmp_path / name, edit, packed=True))


def unchanged(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("a.mha", unchanged),
        ("a.mhd", unchanged),
        ("a.mha", lambda data: data + b"more"),
        ("a.mha", lambda data: data.replace(b" = ", b" : ", 5)),
        ("a.mha", lambda data: data.replace(b"\n", b"\r\n", data[: data.index(b"LOCAL")].count(b"\n") + 1)),
        ("a.mha", lambda data: data.replace(b"BinaryData = True\n", b"")),
    ],
)
def test_good_files_of_any_kind_are_read(
    tmp_path: Path, name: str, edit: Edit, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / name, edit, packed=packed)
    assert np.array_equal(sitk.GetArrayFromImage(read_image(path)), ARRAY)
    # Piece by piece, as a long scan is.
    monkeypatch.setattr(metaimage_files, "CHUNK_BYTES", 1000)
    assert np.array_equal(sitk.GetArrayFromImage(read_image(path)), ARRAY)


def test_voxels_that_somebody_packed_are_looked_into(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mhd", unchanged, packed=False)
    voxels = gzip.compress((tmp_path / "a.raw").read_bytes())
    (tmp_path / "a.raw").unlink()
    (tmp_path / "a.raw.gz").write_bytes(voxels)
    assert np.array_equal(sitk.GetArrayFromImage(read_image(path)), ARRAY)
    (tmp_path / "a.raw.gz").write_bytes(flipped(voxels))
    with pytest.raises(InputError, match=r"a\.raw\.gz cannot be unpacked"):
        read_image(path)


def test_voxels_as_text_and_in_a_list_of_files_are_left_to_simpleitk(tmp_path: Path) -> None:
    header = "ObjectType = Image\nNDims = 3\nBinaryData = {}\nDimSize = 2 2 2\nElementType = MET_UCHAR\n"
    path = tmp_path / "a.mha"
    path.write_text(header.format("False") + "ElementDataFile = LOCAL\n1 2 3 4 5 6 7 8\n")
    assert sitk.GetArrayFromImage(read_image(path)).ravel().tolist() == list(range(1, 9))
    path = tmp_path / "b.mhd"
    for number in range(2):
        (tmp_path / f"{number}.raw").write_bytes(bytes(range(4 * number, 4 * number + 4)))
    path.write_text(header.format("True") + "ElementDataFile = LIST\n0.raw\n1.raw\n")
    assert sitk.GetArrayFromImage(read_image(path)).ravel().tolist() == list(range(8))
