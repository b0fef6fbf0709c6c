"""Texts that hold names whose bytes are not UTF-8, made printable."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with escapes for what is not UTF-8, which Python keeps as lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
