"""What is odd about an image that can be read all the same: logged, and kept for the report."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# A variable of the context, so that images read side by side keep their warnings apart.
_kept: ContextVar[list[str] | None] = ContextVar("_kept", default=None)


def warn(log: logging.Logger, sentence: str) -> None:
    """Log a warning, and keep it if what is being read is within `kept_warnings`."""
    log.warning("%s", sentence)
    kept = _kept.get()
    if kept is not None:
        kept.append(sentence)


@contextmanager
def kept_warnings() -> Iterator[list[str]]:
    """The list that the warnings told inside are added to, whatever the level of the log."""
    sentences: list[str] = []
    token = _kept.set(sentences)
    try:
        yield sentences
    finally:
        _kept.reset(token)
