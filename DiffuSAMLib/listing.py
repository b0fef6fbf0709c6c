"""What lies in a folder, and whether something lies there at all, told as errors a user understands."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

from .errors import InputError

# Nothing lies there; a link that leads to itself leads to nothing.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def list_folder(folder: Path) -> list[Path]:
    """What a folder holds, sorted.

    Raises:
        InputError: It cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be listed ({error.strerror}).", hint="Check its permissions."
        ) from error


def is_there(path: Path) -> bool:
    """Whether there is a file or folder of that name.

    Raises:
        InputError: That cannot be known: a folder on the way to it is closed, or no file can have the name.
    """
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Whether there is a file of that name.

    Raises:
        InputError: As `is_there`.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name.

    Raises:
        InputError: As `is_there`.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _mode(path: Path) -> int | None:
    """None where nothing is there. `Path.exists` and its like answer differently from one Python to the next."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise InputError(
            f"{path} cannot be looked at ({error.strerror}).", hint="Check its name and its permissions."
        ) from error
    except ValueError:
        # A null character, which no name of a file has.
        return None
