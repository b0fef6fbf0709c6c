"""Where the bundled files lie."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError

_ROOT = Path(__file__).resolve().parent.parent / "Resources"


def resource_path(*parts: str) -> Path:
    """A file or folder under `Resources`.

    Raises:
        InputError: It is not there, so the installation is incomplete.
    """
    path = _ROOT.joinpath(*parts)
    if not path.exists():
        raise InputError(
            f"The bundled file {'/'.join(parts)} is missing.", hint="Install DiffuSAM Segment again."
        )
    return path
