"""Files that appear only when complete, and what identifies their content."""

from __future__ import annotations

import errno
import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError, OutputError
from .utf8_names import require_utf8

CHUNK_BYTES = 1 << 20
# In bytes, on all usual file systems.
LONGEST_NAME = 255


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
    _require_place(path)
    with _temporary_file(path) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """An empty file beside the one that is to be; after a failure of any kind it is gone."""
    start = f".{uuid.uuid4().hex[:8]}."
    # The whole name, by which a cohort knows what was left, or as much of its end as is no longer than names may be.
    end = path.name.encode("utf-8", "ignore")[len(start) - LONGEST_NAME :]
    temporary = path.with_name(start + end.decode("utf-8", "ignore"))
    try:
        temporary.touch(exist_ok=False)
        yield temporary
    except BaseException as error:
        remove(temporary)
        if isinstance(error, OSError):
            raise output_error(path, error) from error
        raise


def require_writable(path: Path) -> None:
    """Find what is in the way of a file, at best before the work is done that is to be written.

    A temporary file is made and removed, for nothing else tells what a folder takes; a file that has the name
    already is left alone.

    Raises:
        OutputError: The folder is missing or takes no file, a folder has the name, or it is no possible one.
    """
    require_utf8(path, OutputError)
    _require_place(path)
    with _temporary_file(path) as temporary:
        temporary.unlink()


def _require_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(
            f"There is no folder {path.parent} to write {path.name} to.", hint="Create it first."
        )
    require_file_name(path)


def require_file_name(path: Path) -> None:
    """Finds a folder that has the name of a file to be, and a name that no file can have.

    Raises:
        OutputError: There is one.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise output_error(path, error) from error
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
