"""The end of a program from outside, as an exception that lets it save its work first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM: somebody ends the program as Ctrl-C would."""


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Within the block, SIGTERM raises `Terminated`; only the main thread can arrange that, others do without."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        # None is a handler that is not Python's own, as an application may have: it cannot be put back.
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within the block, SIGINT and SIGTERM wait until it has ended, then do what they would have done at once.

    Only the main thread is ever interrupted; others need not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[signal.Signals, FrameType | None]] = []
    before: dict[signal.Signals, Any] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        held.append((signal.Signals(number), frame))

    try:
        for which in (signal.SIGINT, signal.SIGTERM):
            # A handler that is not Python's own, as an application may have, could not be put back.
            if (handler := signal.getsignal(which)) is not None:
                before[which] = handler
                signal.signal(which, hold)
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
    if held:
        signalled, frame = held[0]
        handler = before[signalled]
        if callable(handler):
            handler(signalled, frame)
        elif handler == signal.SIG_DFL:
            signal.raise_signal(signalled)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated
