"""TensorBoard's file of a run's curves, written with tensorboardX's messages but without its thread."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar


class EventFile:
    """Appends scalars; they are in the file when a call returns.

    tensorboardX's own writer has a thread, which a full disk ends; whoever then fills its queue waits for ever.

    Args:
        folder: Where the file is made.
        resumed_at: Iteration that the run goes on from; TensorBoard drops what earlier files have from there on.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, folder: Path, *, resumed_at: int) -> None:
        path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        # Unbuffered: what could not be written must not be tried again when the file is closed.
        self._file = path.open("ab", buffering=0)
        self._append([Event(wall_time=time.time(), file_version="brain.Event:2")])
        if resumed_at:
            begun = SessionLog(status=SessionLog.START)
            self._append([Event(wall_time=time.time(), step=resumed_at, session_log=begun)])

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        """One point of each curve.

        Raises:
            OSError: They cannot be written.
        """
        now = time.time()
        self._append(
            [
                Event(wall_time=now, step=iteration, summary=scalar(name, value))
                for name, value in values.items()
            ]
        )

    def close(self) -> None:
        """Raises `OSError` where the file system finds out only now that it could not write."""
        self._file.close()

    def _append(self, events: list[Any]) -> None:
        records = b"".join(_record(event.SerializeToString()) for event in events)
        if self._file.write(records) != len(records):
            # The last bytes of a full disk were taken.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _record(content: bytes) -> bytes:
    """TensorFlow's framing: the length and the content, each with its checksum."""
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _checksum(content: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(content))
