"""What identifies the content of files and folders, whatever they are called."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from .errors import InputError
from .files import CHUNK_BYTES

# Formats of two files: the voxels lie beside the header.
DETACHED_HEADERS = (".mhd", ".nhdr")


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's content, or of a folder's, as hexadecimal digits.

    That of a folder is the hash of the sorted hashes of the files directly in it, hidden ones left
    out: renaming or copying a DICOM series does not change it.

    Raises:
        InputError: The path cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            files = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
            return hashlib.sha256("\n".join(sorted(map(sha256_of, files))).encode("ascii")).hexdigest()
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).", hint="Check the path.") from error


def content_sha256(path: Path) -> str:
    """As `sha256_of`, with the voxels of formats whose header is a file of its own.

    Raises:
        InputError: A file cannot be read.
    """
    own = sha256_of(path)
    if path.suffix.lower() not in DETACHED_HEADERS or path.is_dir():
        return own
    others = [
        file
        for file in path.parent.iterdir()
        if file.is_file() and file != path and file.name.split(".")[0] == path.name.split(".")[0]
    ]
    named = _named_data_file(path)
    others += [named] if named is not None and named not in others else []
    return hashlib.sha256("\n".join([own, *sorted(map(sha256_of, others))]).encode("ascii")).hexdigest()


def _named_data_file(header: Path) -> Path | None:
    """The file that a detached header says its voxels are in."""
    text = header.read_bytes()[:CHUNK_BYTES].decode("latin-1")
    match = re.search(
        r"^(?:ElementDataFile\s*=|data ?file:)\s*(\S.*?)\s*$", text, re.MULTILINE | re.IGNORECASE
    )
    file = header.parent / match[1] if match else header
    return file if file != header and file.is_file() else None
