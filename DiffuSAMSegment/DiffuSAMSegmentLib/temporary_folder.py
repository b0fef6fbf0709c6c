"""Folders for what the child process reads and writes, where the user wants temporary files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import slicer


def temporaryPath() -> Path:
    """The temporary folder of the application settings, made if it is missing.

    :raises OSError: it cannot be made
    """
    folder = Path(slicer.app.temporaryPath)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def makeTemporaryFolder() -> Path:
    """A new folder of our own; whoever makes it removes it.

    :raises OSError: there is no space, or it may not be made
    """
    return Path(tempfile.mkdtemp(prefix="DiffuSAM-", dir=temporaryPath()))
