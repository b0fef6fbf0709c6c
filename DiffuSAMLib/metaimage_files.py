"""MetaImage files: whether their voxels are complete, of which SimpleITK says nothing or the wrong thing."""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import InputError
from .files import CHUNK_BYTES
from .incomplete_files import HINT, require_bytes, telling_damage

METAIMAGE_ENDINGS = (".mha", ".mhd")
HEADER_FIELD = re.compile(rb"^[ \t]*(\w+)[ \t]*[=:](.*)(?:\n|\Z)", re.MULTILINE)
ELEMENT_BYTES = {
    f"MET_{sign}{name}": size
    for name, size in {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8}.items()
    for sign in ("", "U")
} | {"MET_FLOAT": 4, "MET_DOUBLE": 8}
# Either zlib's format or that of gzip, as in MetaIO.
ZLIB_OR_GZIP = 47


@dataclass(frozen=True)
class StoredVoxels:
    """Where the voxels of a MetaImage file are, as MetaIO looks for them.

    Args:
        file: The header's own, or the one that it names.
        start: Place of their first byte, packed or not.
        stored: How many bytes of the file they take.
        packed: Whether these are compressed.
        complete: How many bytes they are, unpacked.
    """

    file: Path
    start: int
    stored: int
    packed: bool
    complete: int


def inspect_metaimage(path: Path) -> None:
    """Look for voxels that end early or are damaged; packed ones SimpleITK would fill up without a word.

    Files with voxels as text or in a file for each slice are not looked into, nor are those of other formats.

    Raises:
        InputError: It found some, or the file cannot be read.
    """
    with telling_damage(path):
        voxels = find_voxels(path)
    if voxels is None:
        return
    with telling_damage(voxels.file):
        size = voxels.file.stat().st_size
    require_bytes(voxels.file, size, voxels.start + voxels.stored)
    if voxels.packed:
        with telling_damage(voxels.file), voxels.file.open("rb") as stream:
            stream.seek(voxels.start)
            unpacked = unpacked_size(stream, voxels.stored)
        require_bytes(voxels.file, unpacked, voxels.complete)


def find_voxels(path: Path) -> StoredVoxels | None:
    """Where a header says that the voxels are; `None` where it is none, or they are not the bytes of one file.

    Raises:
        InputError: The header ends early.
        OSError: The file cannot be read.
    """
    fields, end = read_header_fields(path)
    named = fields.get("ElementDataFile")
    if named is None:
        if "NDims" in fields:
            raise InputError(f"{path} ends within its header.", hint=HINT)
        return None
    element = ELEMENT_BYTES.get(fields.get("ElementType", "").removesuffix("_ARRAY"))
    if named.startswith("LIST") or "%" in named or element is None or not _is_true(fields, "BinaryData", "T"):
        return None
    try:
        sizes = [int(size) for size in fields["DimSize"].split()][: int(fields["NDims"])]
        complete = element * int(fields.get("ElementNumberOfChannels", 1)) * math.prod(sizes)
        start = int(fields.get("HeaderSize", 0))
        stored = int(fields.get("CompressedDataSize", 0))
    except (KeyError, ValueError):
        return None
    packed = _is_true(fields, "CompressedData", "F")
    if named.lower() == "local":
        file, own_start = path, end
    else:
        files = [path.parent / f"{named}{ending}" for ending in ("", ".gz", ".Z")]
        there = [file for file in files if file.is_file()]
        if not there:
            return None
        file, own_start = there[0], 0
        packed = packed or file != files[0]
    if packed and stored <= 0:
        # Without their number MetaIO unpacks all bytes of the file, those of a header too.
        return StoredVoxels(file, 0, file.stat().st_size, packed, complete)
    if start < 0:
        # The voxels are at the end of the file.
        own_start = 0
    return StoredVoxels(file, max(start, 0) or own_start, stored if packed else complete, packed, complete)


def read_header_fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a header, and the place of the byte behind its last one, "ElementDataFile".

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        header = stream.read(CHUNK_BYTES)
    fields: dict[str, str] = {}
    for match in HEADER_FIELD.finditer(header):
        name, value = (part.decode("utf-8", "surrogateescape") for part in match.groups())
        fields[name] = value.strip()
        if name == "ElementDataFile":
            return fields, match.end()
    return fields, len(header)


def _is_true(fields: dict[str, str], name: str, default: str) -> bool:
    return (fields.get(name) or default)[0] in "Tt1"


def unpacked_size(stream: BinaryIO, stored: int) -> int:
    """Unpack a compressed stream piece by piece, which finds what is damaged.

    Args:
        stream: At the first byte.
        stored: How many bytes to read.

    Returns:
        The number of bytes that it holds.

    Raises:
        EOFError: It ends early.
        zlib.error: It is damaged.
    """
    unpacking = zlib.decompressobj(wbits=ZLIB_OR_GZIP)
    size = 0
    while not unpacking.eof and (chunk := stream.read(min(CHUNK_BYTES, stored))):
        stored -= len(chunk)
        while chunk and not unpacking.eof:
            size += len(unpacking.decompress(chunk, CHUNK_BYTES))
            chunk = unpacking.unconsumed_tail
    if not unpacking.eof:
        raise EOFError("Its compressed data end early.")
    return size
