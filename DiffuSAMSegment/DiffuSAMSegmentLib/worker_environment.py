"""The environment variables of the child process."""

from __future__ import annotations

import os

import qt
import slicer

from .lib_location import usesSlicersPython
from .temporary_folder import temporaryPath

# Slicer's launcher sets these for its own Python and libraries; another Python breaks with them.
LAUNCHER_VARIABLES = (
    "PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONNOUSERSITE",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)
TEMPORARY_VARIABLES = ("TMPDIR", "TEMP", "TMP")


def workerEnvironment():
    """As a QProcessEnvironment."""
    environment = qt.QProcessEnvironment.systemEnvironment()
    if not usesSlicersPython():
        _restore(environment, slicer.util.startupEnvironment())
    if "OMP_NUM_THREADS" not in os.environ:
        # One core stays free, so that Slicer remains quick.
        environment.insert("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) - 1)))
    environment.insert("PYTHONIOENCODING", "utf-8")
    for name in TEMPORARY_VARIABLES:
        environment.insert(name, str(temporaryPath()))
    return environment


def _restore(environment, before: dict[str, str]) -> None:
    """Sets the launcher's variables to what they were before it."""
    for name in LAUNCHER_VARIABLES:
        if name in before:
            environment.insert(name, before[name])
        else:
            environment.remove(name)
