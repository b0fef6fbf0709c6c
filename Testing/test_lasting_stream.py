from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from DiffuSAMLib.lasting_stream import LastingStream


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class ResetConnection(io.TextIOWrapper):
    def write(self, text: str) -> int:
        raise ConnectionResetError


def test_what_is_written_arrives(tmp_path: Path) -> None:
    with (tmp_path / "out.txt").open("w", encoding="ascii") as file:
        stream = LastingStream(file)
        assert stream.write("line\n") == 5
        stream.flush()
        assert stream.fileno() == file.fileno()
    assert (tmp_path / "out.txt").read_text(encoding="ascii") == "line\n"


def test_what_nobody_reads_is_dropped() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="ascii") as file:
        stream = LastingStream(file)
        for _ in range(2):
            stream.write("line\n")
            stream.flush()


def test_a_reader_that_breaks_off_is_one_that_has_gone(tmp_path: Path) -> None:
    with ResetConnection((tmp_path / "out.txt").open("wb")) as file:
        assert LastingStream(file).write("line\n") == 5


def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        LastingStream(FullDisk()).write("line\n")
