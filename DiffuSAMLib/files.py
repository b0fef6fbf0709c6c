"""Files that appear only when complete, and the folders that they appear in."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError, OutputError
from .listing import is_folder, is_there
from .utf8_names import require_utf8

# How much of a file is read or written at a time.
CHUNK_BYTES = 1 << 20
# In bytes, on all usual file systems.
LONGEST_NAME = 255
# Letters of a temporary's name before that of the file: a dot, eight digits and another dot.
TEMPORARY_START = 10


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to its final name when the block succeeds.

    The temporary file lies in the same folder and its name ends the same but for capitals, so that writers which
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
        _flush(temporary)
        temporary.replace(path)


def _flush(path: Path) -> None:
    """Has the disk take what was written: else, after a power cut, the final name may stand for an empty file."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot say; that a disk has failed must be told.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """An empty file beside the one that is to be; after a failure of any kind it is gone."""
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{temporary_end(path)}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
    except BaseException as error:
        remove(temporary)
        if isinstance(error, OSError):
            raise output_error(path, error) from error
        raise


def temporary_end(path: Path) -> str:
    """The file's name as its temporary's has it, by which a cohort knows what was left.

    In lower case and ASCII, for ITK knows few endings in capitals, and on Windows few letters; of a long name as much
    of the end as is no longer than names may be.
    """
    return re.sub(r"[^\x00-\x7f]", "_", path.name.lower())[TEMPORARY_START - LONGEST_NAME :]


def is_temporary_of(path: Path, ends: Collection[str]) -> bool:
    """Whether a file is, by its name, a temporary one with one of these ends."""
    return path.name[TEMPORARY_START:] in ends


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
    try:
        there = is_folder(path.parent)
    except InputError as error:
        raise OutputError(error.message, hint=error.hint) from error
    if not there:
        raise OutputError(
            f"There is no folder {path.parent} to write {path.name} to.", hint="Create it first."
        )
    require_file_name(path)


def require_file_name(path: Path) -> None:
    """Finds what a file cannot or should not replace: a folder, a device or pipe; and a name that no file can have.

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
    if path.exists() and not path.is_file():
        raise OutputError(
            f"{path} is a device or a pipe, which a file would replace.", hint="Give the name of a file."
        )


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths are, or will be, one file, however they are spelled.

    Of files that are not there yet, names that differ in case alone count as one, as they are on Windows and macOS.

    Raises:
        InputError: It cannot be known whether one of them is there.
    """
    if one.resolve() == other.resolve():
        return True
    if is_there(one) or is_there(other):
        return is_there(one) and is_there(other) and one.samefile(other)
    return one.name.casefold() == other.name.casefold() and is_same_file(one.parent, other.parent)


def make_folder(folder: Path, *, to_write: Path | None = None) -> None:
    """Makes a folder, with those that it lies in, unless it is there.

    Args:
        folder: To be there.
        to_write: What an error is to name, such as the file that the folder is needed for; None is the folder.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(to_write or folder, error) from error


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
