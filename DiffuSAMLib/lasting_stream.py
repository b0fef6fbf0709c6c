"""A text stream whose reader may leave before the job is done."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


class LastingStream:
    """A stream that drops what is written once its reader has gone, as `| head` does; the job goes on.

    What else a stream can do, the one inside does.

    Args:
        stream: Where the text goes; what cannot be written for another reason, such as a full disk, is an OSError.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropping():
            self._stream.flush()

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            gone = isinstance(error, (BrokenPipeError, ConnectionResetError))
            # Windows reports a closed pipe as an invalid argument; a full disk must not pass for one.
            if not gone and (os.name != "nt" or error.errno != errno.EINVAL):
                raise
            # What failed is still buffered; without somewhere to go it would fail again at exit.
            with Path(os.devnull).open("w", encoding="ascii") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
