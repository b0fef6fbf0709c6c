"""Progress of a long job: as a bar for a person, as JSON lines for a program."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from .errors import DiffuSAMError
from .json_values import to_json_value
from .lasting_stream import LastingStream

STAGE_NAMES = {
    "read": "Reading the image",
    "load": "Loading the model",
    "encode": "Looking at the slices",
    "generate": "Generating memories",
    "propagate": "Segmenting",
    "write": "Writing the result",
    "train": "Training",
    "evaluate": "Evaluating",
    "download": "Downloading",
    "cohort": "Segmenting the cohort",
}
_BAR = "{desc:<22} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {remaining} left"


@dataclass(frozen=True)
class ProgressEvent:
    """How far a stage has come.

    Attributes:
        stage: Short name, such as `propagate`.
        done: Steps finished so far.
        total: Steps in all.
    """

    stage: str
    done: int
    total: int


class Progress(Protocol):
    """What every long job accepts as its listener: a call per event."""

    def __call__(self, event: ProgressEvent, /) -> None: ...


class TerminalProgress:
    """One bar per stage with the time left, on a terminal; silent where the stream is a file or a pipe.

    Use as a context manager, so that the last bar is closed before other text is written.

    Args:
        stream: Where the bar is drawn; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._stage: str | None = None
        self._bar: tqdm | None = None

    def __call__(self, event: ProgressEvent, /) -> None:
        if not self._stream.isatty():
            return
        if self._bar is None or event.stage != self._stage:
            self.close()
            self._stage = event.stage
            self._bar = tqdm(
                total=event.total,
                desc=STAGE_NAMES.get(event.stage, event.stage.capitalize()),
                file=self._stream,
                # A stage of a single step has no share to show.
                bar_format=_BAR if event.total > 1 else "{desc}",
                dynamic_ncols=True,
            )
        self._bar.total = event.total
        self._bar.update(event.done - self._bar.n)

    def close(self) -> None:
        """Finish the current bar; it stays on the screen."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
        self._stage = None

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class JsonProgress:
    """One ASCII JSON object a line, flushed at once, for a parent process that reads along.

    Events are `progress`, `slice`, `case`, those of a training, and at the end exactly one of `done` and `error`:
    whatever comes after that one is dropped. When the reader has gone, the lines are dropped too and the job goes on.

    Args:
        stream: Where the lines are written, usually standard output.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = LastingStream(stream)
        self._finished = False

    def __call__(self, event: ProgressEvent, /) -> None:
        self._write("progress", {"stage": event.stage, "done": event.done, "total": event.total})

    def slice(self, **details: Any) -> None:
        """Tell that the masks of a slice are there; `details` are the fields that say which and where."""
        self._write("slice", details)

    def case(self, **details: Any) -> None:
        """Tell that a case of a cohort has ended; `details` say which and how."""
        self._write("case", details)

    def event(self, name: str, /, **details: Any) -> None:
        """Tell anything else on the way, such as a training's `check`, `losses` and `validation`."""
        self._write(name, details)

    def done(self, **result: Any) -> None:
        """Tell that the job is finished and its result is on disk; `result` says where."""
        self._write("done", result)
        self._finished = True

    def error(self, error: BaseException) -> None:
        """Tell that the job failed: `code`, `message` and `hint`, and what else the error knows.

        An interrupt has the code `interrupted`; an error that is none of ours has `internal`.
        """
        if isinstance(error, DiffuSAMError):
            fields = error.fields()
        elif isinstance(error, KeyboardInterrupt):
            fields = {"code": "interrupted", "message": "The job was stopped.", "hint": ""}
        else:
            message = f"{type(error).__name__}: {error}"
            fields = {"code": "internal", "message": message, "hint": "Please report this with the log."}
        self._write("error", fields)
        self._finished = True

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        if self._finished:
            return
        line = json.dumps({"event": event, **to_json_value(fields)}, ensure_ascii=True, allow_nan=False)
        self._stream.write(line + "\n")
        self._stream.flush()
