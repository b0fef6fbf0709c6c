"""How long each stage of a run takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageTimer:
    """Wall time per stage in seconds; a stage entered again adds up.

    Stages may be nested; the outer one then includes the inner one.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - started

    @property
    def seconds(self) -> dict[str, float]:
        """A copy of the times so far, in the order in which the stages were first left."""
        return dict(self._seconds)
