"""Names whose bytes are not UTF-8, which Python keeps as lone surrogates: told early, or made printable."""

from __future__ import annotations

from pathlib import Path

from .errors import DiffuSAMError, InputError
from .printable_text import printable


def as_utf8(text: str) -> str:
    """The text with question marks for what is not UTF-8, which no label map or JSON file takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def require_utf8(path: Path, error: type[DiffuSAMError] = InputError) -> None:
    """Refuse a path that ends the process without a word once SimpleITK is given it.

    Args:
        path: Of a file or folder, which need not be there.
        error: What to raise.

    Raises:
        DiffuSAMError: Its name, or that of a folder it lies in, is not UTF-8; of the type given.
    """
    full = str(path.absolute())
    shown = printable(full)
    if shown != full:
        raise error(
            f"The path {shown} holds a character that is not UTF-8, and cannot be used.",
            hint="Rename that file or folder.",
        )
