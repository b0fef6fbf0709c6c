"""One spelling for names with accents."""

from __future__ import annotations

import unicodedata


def composed(name: str) -> str:
    """The name with its accents in one character with their letters (NFC); macOS stores them apart."""
    return unicodedata.normalize("NFC", name)
