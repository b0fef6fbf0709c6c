"""What ITK says: kept off the terminal, and the reason taken out of its exceptions."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

from .errors import DiffuSAMError, InputError
from .out_of_memory import is_out_of_memory, memory_error

# Of the writers, where the system did not take what they wrote: those of MetaImage, NRRD and NIfTI.
_SYSTEM_FAILURE = re.compile(r"Reason: |couldn't fopen|failed to write")


class _Silence:
    """Of the whole process: the first block that wants it begins it, and the last one that is left ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._warnings_shown = True
        self._stderr: int | None = None

    def enter(self) -> None:
        with self._lock:
            if not self._blocks:
                self._begin()
            self._blocks += 1

    def leave(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                self._end()

    def _begin(self) -> None:
        self._warnings_shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            self._stderr = os.dup(2)
        except OSError:  # A windowed program may have none.
            self._stderr = None
        else:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 2)
            os.close(sink)

    def _end(self) -> None:
        if self._stderr is not None:
            os.dup2(self._stderr, 2)
            os.close(self._stderr)
        sitk.ProcessObject.SetGlobalWarningDisplay(self._warnings_shown)


_silence = _Silence()


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep what the C++ readers and writers print off the terminal; their exceptions say the same.

    MetaIO, niftilib and GDCM write straight to the descriptor of stderr, which `sys.stderr` does not catch.
    Threads may be in such blocks side by side.
    """
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()


def itk_message(error: RuntimeError) -> str:
    """The last line of a SimpleITK exception, which holds its reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sitk::ERROR: ").rstrip(".") if lines else "no reason given"


def is_system_failure(error: RuntimeError) -> bool:
    """Whether a SimpleITK exception of a writer tells of a full disk, a permission or the like, not of the image."""
    return _SYSTEM_FAILURE.search(str(error)) is not None


def unreadable_image(path: Path, error: RuntimeError, hint: str) -> DiffuSAMError:
    """What SimpleITK said of a file that it could not read, for the user."""
    if is_out_of_memory(error):
        return memory_error(str(path))
    return InputError(f"{path} cannot be read as an image: {itk_message(error)}.", hint=hint)
