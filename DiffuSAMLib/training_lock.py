"""One prior is trained by one run at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import InputError
from .training_paths import lock_path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextmanager
def training_lock(output: Path) -> Iterator[None]:
    """Within the block nobody else trains or finishes the same prior.

    The system lets go of the lock when the process ends, however it ends: a file that a killed run leaves behind
    blocks nobody. Where no lock can be had, for want of them on the file system or of the right to write there, the
    block runs without: what cannot be written is told by whoever writes it.

    Args:
        output: Prior file. Its folder is made where there is none, and goes again if it stays empty.

    Raises:
        InputError: Another run has the lock.
    """
    path = lock_path(output)
    with ExitStack() as taken:
        with suppress(OSError):
            made = [folder for folder in path.parents if not folder.exists()]
            taken.callback(_remove_empty, made)
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _take(path)
            if descriptor is None:
                # What to do is in the sentence: the Slicer module leaves out the hints of input errors.
                raise InputError(
                    f"Another run is training {output}: wait until it has ended, or give the prior another name."
                )
            taken.callback(_let_go, descriptor, path)
        yield


def _take(path: Path) -> int | None:
    """An open file with the lock; None where another has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _locked(descriptor):
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Whether the lock was free, or the file system has no locks."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file is still the one of that name: who had the lock may have removed it since it was opened."""
    if sys.platform == "win32":
        return True  # an open file cannot be removed there
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _let_go(descriptor: int, path: Path) -> None:
    if sys.platform == "win32":
        os.close(descriptor)
        # Refused where the next one has opened it already.
        with suppress(OSError):
            path.unlink()
    else:
        # Before the lock goes, else it might be the next one's file.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Removes those that are empty, the innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
