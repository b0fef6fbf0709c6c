from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.progress import JsonProgress, ProgressEvent, TerminalProgress

ROOT = Path(__file__).resolve().parents[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_progress_line_is_exactly_as_agreed() -> None:
    stream = io.StringIO()
    JsonProgress(stream)(ProgressEvent("propagate", 12, 80))
    assert stream.getvalue().splitlines()[0].replace(" ", "") == (
        '{"event":"progress","stage":"propagate","done":12,"total":80}'
    )


def test_lines_are_ascii_and_strict_json() -> None:
    stream = io.StringIO()
    progress = JsonProgress(stream)
    progress.slice(slice=np.int64(3), name="Nière", dice=float("nan"))
    progress.done(output=Path("out.nii.gz"))
    assert stream.getvalue().isascii()
    assert events(stream) == [
        {"event": "slice", "slice": 3, "name": "Nière", "dice": None},
        {"event": "done", "output": "out.nii.gz"},
    ]


def test_nothing_follows_the_end() -> None:
    stream = io.StringIO()
    progress = JsonProgress(stream)
    progress.done()
    progress.error(RuntimeError("late"))
    progress(ProgressEvent("write", 1, 1))
    assert events(stream) == [{"event": "done"}]


def test_an_error_carries_code_message_and_hint() -> None:
    stream = io.StringIO()
    JsonProgress(stream).error(InputError("The file is empty.", hint="Choose another."))
    assert events(stream) == [
        {"event": "error", "code": "input", "message": "The file is empty.", "hint": "Choose another."}
    ]


def test_an_interrupt_and_an_unforeseen_error_have_codes_too() -> None:
    for error, code in ((KeyboardInterrupt(), "interrupted"), (ZeroDivisionError("x / 0"), "internal")):
        stream = io.StringIO()
        JsonProgress(stream).error(error)
        assert events(stream)[0]["code"] == code


def test_each_line_is_flushed() -> None:
    program = (
        "import sys, time\n"
        "from DiffuSAMLib.progress import JsonProgress, ProgressEvent\n"
        "JsonProgress(sys.stdout)(ProgressEvent('encode', 1, 2))\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["stage"] == "encode"
        child.communicate()


def test_a_reader_that_left_is_no_error() -> None:
    program = (
        "import sys\n"
        "from DiffuSAMLib.progress import JsonProgress, ProgressEvent\n"
        "sys.stdin.readline()\n"
        "progress = JsonProgress(sys.stdout)\n"
        "for n in range(3):\n"
        "    progress(ProgressEvent('encode', n, 3))\n"
        "progress.done()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdout.close()
        child.stdin.write(b"go\n")
        child.stdin.close()
        assert child.stderr.read() == b""
        assert child.wait() == 0


def test_a_terminal_sees_stage_share_and_time_left() -> None:
    stream = Terminal()
    with TerminalProgress(stream) as progress:
        for done in range(81):
            progress(ProgressEvent("propagate", done, 80))
    assert "Segmenting" in stream.getvalue()
    assert "80/80" in stream.getvalue()
    assert "left" in stream.getvalue()


def test_a_stage_of_one_step_shows_its_name_only() -> None:
    stream = Terminal()
    with TerminalProgress(stream) as progress:
        progress(ProgressEvent("read", 0, 1))
        progress(ProgressEvent("encode", 2, 2))
    assert "Reading the image" in stream.getvalue()
    assert "0/1" not in stream.getvalue()
    assert "2/2" in stream.getvalue()


def test_a_file_gets_no_bar() -> None:
    stream = io.StringIO()
    with TerminalProgress(stream) as progress:
        progress(ProgressEvent("propagate", 1, 2))
    assert stream.getvalue() == ""
