"""The warm child process: one JSON job a line on standard input, JSON lines on standard output.

    {"job": "segment", "image": "in.nrrd", "live": "labels.raw", "organs": ["liver"]}
    {"job": "download", "name": "sam2.1_tiny"}
    {"job": "import", "file": "prior.safetensors"}
    {"job": "train", "name": "mine", "cases": [{"name": "a", "image": "a.nrrd", "labels": "a.seg.nrrd"}], ...}
    {"job": "stop", "keep": true}
    {"job": "quit"}

A training takes, besides its name (the new prior's in the catalogue) and its cases (each with, if wanted,
"label_names" such as {"1": "spleen"}, where the label map does not name its labels, and "modality"): "organs",
"title", "licence", "modality" (of all cases), "backbone", "start" (a prior to begin with, or "none"), "minutes",
"iterations", "seed", "device", "config" (a recipe file), "replace": true (of a prior of that name), and "unfinished":
what to do with an earlier run of that name that was not finished, "refuse" (the default: an error of code
"unfinished"), "resume" or "restart". Besides `progress` it tells

    {"event": "check", "level": "info" | "warning" | "error", "case": "a" | null, "message": "One sentence."}
    {"event": "losses", "iteration": 120, "iterations": 2300, "seconds": 93.1, "seconds_left": 1710.0,
     "losses": {"prior": 0.61, ...}, "total": 5.11}
    {"event": "validation", "iteration": 400, "seconds": 310.0, "dice": {"spleen": 0.81, "liver": null},
     "mean_dice": 0.81, "best": true, "overlay": "mine.run/overlay_000400.png"}

and when the prior is in the catalogue `done`, with "name", "path", "labels", "stopped", "iterations", "minutes",
"mean_dice" and "run_folder". While it runs, "stop" is read at once: with "keep", the prior is written as it is and
the answer is that `done`; else the run is kept for "resume", and the answer is an `error` of code "interrupted".

At the start comes `{"event": "ready", "pid": ...}`; each job is answered by `progress` and `slice` events and
exactly one `done` or `error`. The loaded prior and the last image's features are kept between jobs. The process
ends when its input closes, that is when the parent has gone, and at SIGTERM, in both cases at once and without
leaving a half-written file.
"""

from __future__ import annotations

import _thread
import dataclasses
import json
import logging
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

if __name__ == "__main__" and not __package__:
    # Started by its path: the modules beside it belong to a package, and must not be found without it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "DiffuSAMLib"

from DiffuSAMLib.errors import DiffuSAMError, InputError
from DiffuSAMLib.interrupts import EXIT_TERMINATED
from DiffuSAMLib.out_of_memory import telling_memory
from DiffuSAMLib.stop_request import StopRequest

if TYPE_CHECKING:
    from .progress import JsonProgress
    from .segment_file import FileSegmenter, SegmentRequest

log = logging.getLogger(__name__)

_REPORT = "Please report this with the log."
_PATHS = ("image", "output", "confidence", "report", "preview")
_TEXTS = ("prior", "device", "modality", "series")
_NUMBERS = ("steps", "samples", "seed")


class _LibraryError(Exception):
    """A package is there, but does not load."""


class Worker:
    """Does jobs one after another.

    Args:
        events: Where the JSON lines go.
        stop: Ends a training.
    """

    def __init__(self, events: TextIO, stop: StopRequest) -> None:
        self._events = events
        self._stop = stop
        self._segmenter: FileSegmenter | None = None

    def run(self, line: str) -> None:
        """Does one job; whatever goes wrong is told as an event."""
        try:
            from .progress import JsonProgress

            progress = JsonProgress(self._events)
            try:
                # Most steps say more exactly what they had no room for.
                with telling_memory("this job"):
                    done = self._do(_parse(line), progress)
                progress.done(**done)
            except DiffuSAMError as error:
                log.info("%s", error)
                progress.error(error)
            except KeyboardInterrupt as error:
                progress.error(error)
        except (ImportError, _LibraryError) as error:
            log.exception("A package cannot be imported")
            self._say_missing(error)
        except Exception as error:
            log.exception("The job failed")
            self._say("error", code="internal", message=f"{type(error).__name__}: {error}", hint=_REPORT)

    def _do(self, job: dict[str, Any], progress: JsonProgress) -> dict[str, Any]:
        """What the job's `done` event says."""
        kind = job.pop("job", None)
        if kind == "download":
            return self._download(_text(job, "name"), progress)
        if kind == "import":
            return self._import(Path(_text(job, "file")))
        if kind == "segment":
            return self._segment(job, progress)
        if kind == "train":
            return self._train(job, progress)
        raise InputError(f'There is no job "{kind}".')

    def _segment(self, job: dict[str, Any], progress: JsonProgress) -> dict[str, Any]:
        try:
            from .live_labels import LiveLabels
            from .segment_file import FileSegmenter
        except OSError as error:
            # Windows, where a library of a package does not load.
            raise _LibraryError(str(error)) from error
        live = job.pop("live", None)
        request = _request(job)
        listener = None
        if live is not None:
            listener = LiveLabels(Path(str(live)), lambda organ, box: progress.slice(organ=organ, box=box))
        self._segmenter = self._segmenter or FileSegmenter()
        report = self._segmenter.segment(request, progress=progress, live=listener)
        return {"output": request.output, "report": report.to_json()}

    def _train(self, job: dict[str, Any], progress: JsonProgress) -> dict[str, Any]:
        # What is kept for segmenting would take memory that the training needs.
        self._segmenter = None
        try:
            from .training_job import run_training_job
        except OSError as error:
            raise _LibraryError(str(error)) from error
        return run_training_job(job, progress, self._stop)

    def _download(self, name: str, progress: JsonProgress) -> dict[str, Any]:
        from .catalogue import fetch
        from .progress import ProgressEvent

        path = fetch(name, progress=lambda done, total: progress(ProgressEvent("download", done, total)))
        return {"name": name, "path": path}

    def _import(self, path: Path) -> dict[str, Any]:
        from .catalogue import import_file

        return {"name": import_file(path).name}

    def ready(self) -> None:
        """Tells the parent whom to end, should a launcher stand between the two."""
        self._say("ready", pid=os.getpid())

    def _say_missing(self, error: Exception) -> None:
        name = getattr(error, "name", None)
        what = f"The Python package {name} is missing" if name else "A Python package cannot be loaded"
        hint = "Install the packages of DiffuSAM Segment, then try again."
        self._say("error", code="packages", message=f"{what} ({error}).", hint=hint)

    def _say(self, event: str, **fields: Any) -> None:
        self._events.write(json.dumps({"event": event, **fields}) + "\n")
        self._events.flush()


def main() -> int:
    """Serves jobs until "quit" or until the input closes."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    # What libraries print must not get between the JSON lines.
    events = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    stop = StopRequest()
    worker = Worker(events, stop)
    jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy, closed = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    threading.Thread(target=_read_lines, args=(jobs, stop, busy, closed), daemon=True).start()
    worker.ready()
    try:
        while (line := jobs.get()) is not None and not _is_quit(line):
            busy.set()
            if closed.is_set():
                break  # nobody waits for the answer
            worker.run(line)
            busy.clear()
    except SystemExit:
        return EXIT_TERMINATED
    return 0


def _read_lines(
    jobs: queue.SimpleQueue[str | None],
    stop: StopRequest,
    busy: threading.Event,
    closed: threading.Event,
) -> None:
    # Not through sys.stdin: its lock, held by this thread, would be missed at the end of the interpreter.
    rest = b""
    while chunk := os.read(0, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                _pass_on(line.decode("utf-8", "replace"), jobs, stop)
    closed.set()
    jobs.put(None)
    if busy.is_set():
        _thread.interrupt_main(signal.SIGTERM)


def _pass_on(line: str, jobs: queue.SimpleQueue[str | None], stop: StopRequest) -> None:
    """Queues a job; "stop" does not wait in the queue behind the training that it is to stop."""
    try:
        job = json.loads(line)
    except ValueError:
        job = None
    kind = job.get("job") if isinstance(job, dict) else None
    if kind == "stop":
        stop.press(keep=job.get("keep") is True)
        return
    if kind == "train":
        stop.clear()
    jobs.put(line)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_TERMINATED)


def _is_quit(line: str) -> bool:
    try:
        return bool(json.loads(line) == {"job": "quit"})
    except ValueError:
        return False


def _parse(line: str) -> dict[str, Any]:
    try:
        job = json.loads(line)
    except ValueError as error:
        raise InputError(f"The job is not JSON ({error}).") from error
    if not isinstance(job, dict):
        raise InputError("The job is not a JSON object.")
    return job


def _text(job: dict[str, Any], name: str) -> str:
    value = job.get(name)
    if not isinstance(value, str):
        raise InputError(f'The job has no text "{name}".')
    return value


def _request(job: dict[str, Any]) -> SegmentRequest:
    """The request of a job; fields that are null or left out have their defaults.

    Raises:
        InputError: A field is unknown, of the wrong type, or the image is missing.
    """
    from .segment_file import SegmentRequest
    from .segmenter import SegmentOptions

    request: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in job.items():
        if value is None:
            continue
        if name in _PATHS and isinstance(value, str):
            request[name] = Path(value)
        elif name in _TEXTS and isinstance(value, str):
            request[name] = value
        elif name in _NUMBERS and isinstance(value, int) and not isinstance(value, bool):
            options[name] = value
        elif name == "organs" and isinstance(value, list) and all(isinstance(x, str) for x in value):
            options[name] = tuple(value)
        else:
            raise InputError(f'The job has a field "{name}" that is unknown or of the wrong type.')
    if "image" not in request:
        raise InputError("The job names no image.")
    return dataclasses.replace(SegmentRequest(**request), options=SegmentOptions(**options))


if __name__ == "__main__":
    # The clean-up of a job is done by now; what Python and PyTorch do at their end only takes time.
    os._exit(main())
