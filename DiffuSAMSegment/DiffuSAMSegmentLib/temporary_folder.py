"""Folders for what the child process reads and writes, where the user wants temporary files."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import slicer

PREFIX = "DiffuSAM-"
# Is in each folder, and locked as long as its Slicer lives: the system lets go of it, however Slicer ends.
LOCK = "in-use.lock"
# A folder that is just being made has a lock that nobody holds yet.
MAKING_S = 60

_held: dict[Path, int] = {}


def temporaryPath() -> Path:
    """The temporary folder of the application settings, made if it is missing.

    :raises OSError: it cannot be made
    """
    folder = Path(slicer.app.temporaryPath)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def makeTemporaryFolder() -> Path:
    """A new folder of our own; whoever makes it removes it. Those of a Slicer that was killed go.

    :raises OSError: there is no space, or it may not be made
    """
    removeAbandonedFolders()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=temporaryPath()))
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if _locked(descriptor):
        _held[folder] = descriptor
    else:
        # The file system has no locks. Without the file, nobody takes the folder for abandoned.
        os.close(descriptor)
        (folder / LOCK).unlink()
    return folder


def removeTemporaryFolder(folder: Path) -> None:
    """Removes a folder that was made here, with all that is in it."""
    descriptor = _held.pop(folder, None)
    if descriptor is not None:
        # Windows does not remove a file that is open.
        os.close(descriptor)
    shutil.rmtree(folder, ignore_errors=True)


def removeAbandonedFolders() -> None:
    """Removes the folders that a Slicer left which was killed or crashed: patients' volumes may be in them.

    Never one that may be in use, be it of this Slicer, of another one or of another user.
    """
    with contextlib.suppress(OSError):
        for lock in temporaryPath().glob(f"{PREFIX}*/{LOCK}"):
            if _isAbandoned(lock):
                shutil.rmtree(lock.parent, ignore_errors=True)


def _isAbandoned(lock: Path) -> bool:
    try:
        if time.time() - lock.stat().st_mtime < MAKING_S:
            return False
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return False  # another user's, or removed meanwhile
    try:
        return _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Whether the lock was free; it is ours until the file is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
