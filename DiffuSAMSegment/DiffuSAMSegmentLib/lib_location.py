"""Where DiffuSAMLib lies, and which Python runs it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from slicer.i18n import tr as _

from .errors import SegmentationError

_HERE = Path(__file__).resolve().parent
# Installed, the library lies beside the module; in a source checkout, beside the module's folder.
_ROOTS = (_HERE.parent, _HERE.parent.parent)


def libRoot() -> Path:
    """The folder that holds DiffuSAMLib and its Resources.

    :raises SegmentationError: it is gone
    """
    for root in _ROOTS:
        if (root / "DiffuSAMLib" / "worker.py").is_file():
            return root
    raise SegmentationError(_("DiffuSAMLib is missing; install the extension again."), code="internal")


def addLibraryToPath() -> None:
    """Makes `import DiffuSAMLib` work here; its light parts (catalogue, terminology) need no other package."""
    root = str(libRoot())
    if root not in sys.path:
        sys.path.append(root)


def workerPython() -> str:
    """The Python of the child process: Slicer's own, or what DIFFUSAM_PYTHON names."""
    return os.environ.get("DIFFUSAM_PYTHON") or shutil.which("PythonSlicer") or sys.executable


def usesSlicersPython() -> bool:
    """Whether packages have to be installed into Slicer's Python; not where DIFFUSAM_PYTHON names another."""
    return not os.environ.get("DIFFUSAM_PYTHON")
