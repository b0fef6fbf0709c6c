"""Paths as ITK can open them on Windows, where some of its readers know no letters but those of the code page."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def itk_path(path: Path) -> str:
    """The path to give to SimpleITK, in ASCII where Windows has such a one.

    ITK's readers and writers of NIfTI and NRRD open files by the process's code page, in which Python's is seldom
    UTF-8. Short names ("MLLER~1") are in ASCII. Of a file whose own name is, only the folder is shortened: a short
    name has no more than three letters after the dot, and so loses what the file's ending says.

    Args:
        path: Of a file or folder; the file need not be there yet, its folder must.

    Returns:
        The path itself where that is ASCII, on other systems, and where there are no short names.
    """
    if sys.platform != "win32" or str(path).isascii():
        return str(path)
    short = str(Path(_short_path(path.parent), path.name)) if path.name.isascii() else _short_path(path)
    return short if short.isascii() else str(path)


def _short_path(path: Path) -> str:
    """The path in short names; as it is where it has none, or nothing has it."""
    windll = getattr(ctypes, "windll")  # noqa: B009 - absent elsewhere, and type checkers know it
    function = windll.kernel32.GetShortPathNameW
    buffer = ctypes.create_unicode_buffer(function(str(path), None, 0) + 1)
    function(str(path), buffer, len(buffer))
    return buffer.value or str(path)
