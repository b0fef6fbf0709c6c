from __future__ import annotations

import errno
import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from DiffuSAMLib import downloads
from DiffuSAMLib.downloads import download
from DiffuSAMLib.errors import OutputError, WeightsError

CONTENT = bytes(range(256)) * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FileHandler(BaseHTTPRequestHandler):
    """Serves one content; the path says how it misbehaves."""

    server: FileServer

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.path == "/absent":
            self.send_error(404)
            return
        if self.path == "/moved-away":
            self.send_response(302)
            self.send_header("Location", "http://example.invalid/file")
            self.end_headers()
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.end_headers()
            return
        if self.path == "/no-satisfying" and wanted:
            self.send_error(416)
            return
        content = self.server.content
        start = 0
        if wanted and self.path != "/no-ranges":
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.path != "/no-length":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = len(content) // 2 if self.path == "/breaks" and not wanted else len(content)
        self.wfile.write(content[start:stop])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class FileServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FileHandler)
        self.content = CONTENT
        self.ranges: list[str | None] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "weights.pt"


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def fetch(server: FileServer, path: str, target: Path, **options: Any) -> None:
    download(server.url(path), target, **{"sha256": SHA256, "size": len(CONTENT), **options})


@pytest.mark.parametrize("path", ["/file", "/moved", "/no-length"])
def test_a_file_arrives_whole_and_alone(path: str, server: FileServer, target: Path) -> None:
    steps: list[tuple[int, int]] = []
    fetch(server, path, target, progress=lambda here, size: steps.append((here, size)))
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert steps == sorted(steps)
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_a_download_that_broke_off_is_resumed(server: FileServer, target: Path) -> None:
    with pytest.raises(WeightsError, match=rf"broke off after {len(CONTENT) // 2} of {len(CONTENT)} bytes"):
        fetch(server, "/breaks", target)
    assert not target.exists()
    assert part_of(target).stat().st_size == len(CONTENT) // 2
    fetch(server, "/breaks", target)
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]
    assert target.read_bytes() == CONTENT
    assert not part_of(target).exists()


def test_an_interrupted_download_is_resumed(server: FileServer, target: Path) -> None:
    def interrupt(here: int, size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, "/file", target, progress=interrupt)
    assert part_of(target).stat().st_size > 0
    fetch(server, "/file", target)
    assert server.ranges[1] is not None
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["/no-ranges", "/no-satisfying"])
def test_a_server_that_cannot_resume_sends_it_again(path: str, server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    fetch(server, path, target)
    assert target.read_bytes() == CONTENT


def test_a_complete_part_needs_no_network(target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    download("https://example.invalid/x", target, sha256=SHA256, size=len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_begun_again(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT + b"more")
    fetch(server, "/file", target)
    assert target.read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing(server: FileServer, target: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(WeightsError, match="sha256 differs"):
        fetch(server, "/file", target)
    assert list(target.parent.iterdir()) == []


def test_a_spoilt_part_is_found_and_removed(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(b"x" * 1000)
    with pytest.raises(WeightsError, match="sha256 differs"):
        fetch(server, "/file", target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("content", [CONTENT[:-10], CONTENT + b"more", b""])
def test_a_file_of_another_size_is_refused_before_it_is_fetched(
    content: bytes, server: FileServer, target: Path
) -> None:
    server.content = content
    with pytest.raises(WeightsError, match=f"{len(content)} bytes instead of {len(CONTENT)}"):
        fetch(server, "/file", target)
    assert list(target.parent.iterdir()) == []


def test_an_endless_answer_is_not_written_beyond_the_size(server: FileServer, target: Path) -> None:
    server.content = CONTENT * 3
    fetch(server, "/no-length", target)
    assert target.read_bytes() == CONTENT


def test_a_missing_file_is_said_and_leaves_an_old_one_alone(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(WeightsError, match="the server answered 404"):
        fetch(server, "/absent", target)
    assert target.read_bytes() == b"old"


def test_a_server_that_is_not_there_is_said_in_one_sentence(target: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: nobody else answers here either
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
        with pytest.raises(WeightsError, match=r"failed: .*refused") as caught:
            download(url, target, sha256=SHA256, size=len(CONTENT))
    assert "\n" not in str(caught.value)
    assert "models import" in caught.value.hint


def test_a_silent_server_is_given_up(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.shutdown()  # it still accepts connections, but nothing answers
    monkeypatch.setattr(downloads, "_TIMEOUT_S", 0.2)
    with pytest.raises(WeightsError, match="timed out"):
        fetch(server, "/file", target)


@pytest.mark.parametrize(
    "url", ["http://example.invalid/x", "ftp://127.0.0.1/x", "file:///etc/hostname", "x"]
)
def test_only_https_is_fetched(url: str, target: Path) -> None:
    with pytest.raises(WeightsError, match="only fetched over https"):
        download(url, target, sha256=SHA256, size=1)
    assert not target.parent.exists()


def test_a_redirect_away_from_https_is_not_followed(server: FileServer, target: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"only fetched over https, which http://example\.invalid/file is not"
    ):
        fetch(server, "/moved-away", target)


def test_too_little_space_is_said_before_anything_is_fetched(server: FileServer, target: Path) -> None:
    size = shutil.disk_usage(target.parent.parent).total * 2
    with pytest.raises(OutputError, match="There is no space"):
        fetch(server, "/file", target, size=size)
    assert server.ranges == []


def test_a_folder_that_cannot_be_made_is_said(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        fetch(server, "/file", tmp_path / "file" / "weights.pt")


def test_a_second_download_of_the_same_file_is_refused(server: FileServer, target: Path) -> None:
    refused: list[str] = []

    def meanwhile(here: int, size: int) -> None:
        if not refused:
            with pytest.raises(WeightsError, match="Another process is downloading") as caught:
                fetch(server, "/file", target)
            refused.append(caught.value.message)

    fetch(server, "/file", target, progress=meanwhile)
    assert refused == [
        f"Another process is downloading {target.name}: wait until it has ended, then try again."
    ]
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_without_locks_each_download_has_a_part_of_its_own(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    inside: list[int] = []

    def meanwhile(here: int, size: int) -> None:
        if not inside:
            inside.append(here)
            fetch(server, "/file", target)

    fetch(server, "/file", target, progress=meanwhile)
    assert target.read_bytes() == CONTENT
    with pytest.raises(WeightsError, match="broke off"):
        fetch(server, "/breaks", target)
    assert list(target.parent.iterdir()) == [target]
