"""Files that appear only when complete, and what identifies their content."""

from __future__ import annotations

import errno
import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError, OutputError

CHUNK_BYTES = 1 << 20


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to its final name when the block succeeds.

    The temporary file lies in the same folder and its name ends the same, so that writers which
    choose the format by the ending work. After a failure of any kind, an interrupt too, it is gone and
    a file that had the final name before is untouched.

    Args:
        path: The final name; its folder must exist.

    Yields:
        The temporary path, an empty file.

    Raises:
        OutputError: The file cannot be created, written or moved.
    """
    path = Path(path)
    require_writable(path)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        remove(temporary)
        if isinstance(error, OSError):
            raise output_error(path, error) from error
        raise


def require_writable(path: Path) -> None:
    """Find a missing folder or a folder in the way, at best before the work is done that is to be written.

    Raises:
        OutputError: There is one.
    """
    if not path.parent.is_dir():
        raise OutputError(
            f"There is no folder {path.parent} to write {path.name} to.", hint="Create it first."
        )
    require_file_name(path)


def require_file_name(path: Path) -> None:
    """Finds a folder that has the name of a file to be.

    Raises:
        OutputError: There is one.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder, where a file is to be written.", hint="Give a file name.")


def remove(path: Path) -> None:
    """Remove a file if that is possible; used where another error is under way already."""
    try:
        path.unlink()
    except OSError:
        return


def output_error(path: Path, error: OSError) -> OutputError:
    """What went wrong while writing a file, for the user."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return OutputError(
            f"There is not enough space to write {path}.", hint="Free some, or choose another folder."
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return OutputError(
            f"{path} may not be written.", hint="Check the permissions, or choose another folder."
        )
    return OutputError(
        f"{path} cannot be written ({error.strerror or error}).", hint="Choose another folder."
    )


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
