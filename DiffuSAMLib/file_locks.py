"""Files of which each is held by one process at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@dataclass(frozen=True)
class FileLock:
    """A file that is held. The system lets go of it when the process ends, however it ends.

    Attributes:
        path: Made for the lock; goes with it.
        exclusive: Whether nobody else holds it; not so where the file system has no locks.
        descriptor: Of the open file.
    """

    path: Path
    exclusive: bool
    descriptor: int

    def release(self) -> None:
        """Lets go of the file and removes it."""
        if sys.platform == "win32":
            os.close(self.descriptor)
            # Refused where the next one has opened it already.
            with suppress(OSError):
                self.path.unlink()
        else:
            # Before the lock goes, else it might be the next one's file.
            with suppress(OSError):
                self.path.unlink()
            os.close(self.descriptor)


def take_lock(path: Path) -> FileLock | None:
    """The lock of that name; None where another has it.

    Raises:
        OSError: The file cannot be made.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            exclusive = _lock(descriptor)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            return FileLock(path, exclusive, descriptor)
        os.close(descriptor)


@contextmanager
def held(path: Path, *, refusal: Exception) -> Iterator[None]:
    """Within the block nobody else holds the lock of that name.

    A file that a killed process leaves behind blocks nobody. Where no lock can be had, for want of them on the file
    system or of the right to write there, the block runs without: what cannot be written is told by whoever writes it.

    Args:
        path: As for `take_lock`.
        refusal: Raised where another has it.
    """
    lock = None
    with suppress(OSError):
        lock = take_lock(path)
        if lock is None:
            raise refusal
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _lock(descriptor: int) -> bool:
    """Whether the file system has locks.

    Raises:
        BlockingIOError, PermissionError: Another has this one.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise
    except OSError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file is still the one of that name: who had the lock may have removed it since it was opened."""
    if sys.platform == "win32":
        return True  # an open file cannot be removed there
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
