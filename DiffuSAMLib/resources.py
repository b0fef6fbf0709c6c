"""Where the bundled files lie."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError

_PACKAGE = Path(__file__).resolve().parent
# Beside the package in a checkout and in 3D Slicer, inside it once installed by pip.
_ROOTS = (_PACKAGE.parent / "Resources", _PACKAGE / "Resources")


def resource_path(*parts: str) -> Path:
    """A file or folder under `Resources`.

    Raises:
        InputError: It is not there, so the installation is incomplete.
    """
    for root in _ROOTS:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise InputError(
        f"The bundled file {'/'.join(parts)} is missing.", hint="Install DiffuSAM Segment again."
    )
