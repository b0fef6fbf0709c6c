"""A full disk or a run that is stopped half-way leaves no half-written file."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cases import (
    LABEL_NAMES,
    files_in,
    json_events,
    read_array,
    small_abdomen,
)
from refusals import OLD_RESULT, Refusal, noise, write_image

from DiffuSAMLib.cli import main
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.segmentation_files import write_scalar

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("random_weights")


class FullDisk(io.StringIO):
    """Standard output that fills the disk when a text passes by: from then on no file may grow past `limit`."""

    def __init__(self, text: str, limit: int) -> None:
        super().__init__()
        self.text, self.limit = text, limit

    def write(self, line: str, /) -> int:
        if self.text in line:
            resource = pytest.importorskip("resource")
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (self.limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            )
        return super().write(line)


@contextmanager
def disk_that_fills(monkeypatch: pytest.MonkeyPatch, *, at: str, limit: int = 64) -> Iterator[FullDisk]:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    output = FullDisk(at, limit)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        try:
            yield output
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", ["a few bytes", "many kilobytes"])
@pytest.mark.parametrize("name", ["labels.nii.gz", "new.nii", "new.nrrd", "new.mha", "new.seg.nrrd"])
def test_a_full_disk_leaves_no_half_written_labels(
    image: Path,
    tmp_path: Path,
    out: Path,
    name: str,
    size: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Small files too, which lie in the writer's buffer until it is closed."""
    if size == "a few bytes":
        image = tmp_path / "tiny.nii.gz"
        write_image(image, noise(1, 16, 16))
    command = ["segment", str(image), "-o", str(out / name), "--device", "cpu", "--json-progress"]
    with disk_that_fills(monkeypatch, at='"stage": "write"') as output:
        assert main(command) == 2
    Refusal.check_line(capsys.readouterr().err)
    assert json_events(output.getvalue())[-1]["code"] == "output"
    assert files_in(out) == {"labels.nii.gz": OLD_RESULT}


@pytest.mark.parametrize(
    ("option", "name", "limit"),
    [("--confidence", "c.nrrd", 64), ("--preview", "p.png", 64), ("--report", "r.json", 1500)],
)
def test_a_full_disk_leaves_no_half_written_extras(
    tmp_path: Path,
    out: Path,
    option: str,
    name: str,
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Labels of so few voxels fit on the disk where their report does not."""
    image = tmp_path / "tiny.nii.gz"
    write_image(image, noise(1, 16, 16))
    command = ["segment", str(image), "-o", str(out / "new.nii.gz"), "--device", "cpu", "--json-progress"]
    command += ["--organs", "liver", option, str(out / name)]
    with disk_that_fills(monkeypatch, at='"stage": "write"', limit=limit):
        assert main(command) == 2
    error = capsys.readouterr().err
    Refusal.check_line(error)
    assert name in error
    left = files_in(out)
    # Labels that stand there are complete; the report is written after them.
    assert set(left) == ({"labels.nii.gz", "new.nii.gz"} if option == "--report" else {"labels.nii.gz"})
    if option == "--report":
        assert read_array(out / "new.nii.gz").shape == (1, 16, 16)


def test_a_full_temporary_folder_is_told(
    image: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["segment", str(image), "-o", str(out / "labels.nii.gz"), "--device", "cpu", "--json-progress"]
    with disk_that_fills(monkeypatch, at='"stage": "load"', limit=100_000):
        assert main(command) == 2
    error = capsys.readouterr().err
    Refusal.check_line(error)
    assert "TMPDIR" in error
    assert files_in(out) == {"labels.nii.gz": OLD_RESULT}


@pytest.mark.parametrize(
    ("at", "iterations"), [('"stage": "train"', 1), ('"stage": "train", "done": 11', 12)], ids=str
)
def test_a_full_disk_ends_a_training_without_a_broken_file(
    data: Path,
    out: Path,
    at: str,
    iterations: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before its log is begun, or while events for TensorBoard are being written."""
    command = ["train", "--images", str(data / "images"), "--labels", str(data / "labels")]
    command += ["--label-names", LABEL_NAMES, "-o", str(out / "p.safetensors"), "--image-size", "128"]
    command += ["--iterations", str(iterations), "--device", "cpu", "--json-progress"]
    with disk_that_fills(monkeypatch, at=at):
        assert main(command) == 2
    Refusal.check_line(capsys.readouterr().err)
    # The run's folder may hold half a table, but no half-written prior or checkpoint.
    left = {name: content for name, content in files_in(out).items() if not name.startswith("p.run")}
    assert left == {"labels.nii.gz": OLD_RESULT}
    assert not list((out / "p.run").glob("*.safetensors"))


@pytest.fixture(scope="module")
def long_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough to be interrupted half-way."""
    volume = small_abdomen().volume
    path = tmp_path_factory.mktemp("long") / "long.nii.gz"
    array = np.tile(volume.array, (6, 1, 1))
    write_scalar(path, array, Geometry((60, 96, 96), volume.geometry.matrix))
    return path


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_half_way_leaves_nothing(
    long_image: Path, tmp_path: Path, out: Path, sent: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the bundled weights, as a user runs it."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [
        "segment",
        str(long_image),
        "-o",
        str(out / "labels.nii.gz"),
        "--json-progress",
        "--device",
        "cpu",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "DiffuSAMLib", *command],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started the tests in the background had them, and so the child, ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if '"stage": "encode"' in line:
                process.send_signal(sent)
                break
        lines += process.stdout.readlines()
        error = process.stderr.read()
        code = process.wait(timeout=60)
    if sent != signal.SIGKILL:
        assert code == 130
        assert error == "diffusam: interrupted.\n"
        assert json_events("".join(lines))[-1]["code"] == "interrupted"
    else:
        assert code == -signal.SIGKILL
        assert error == ""
        assert "done" not in [json.loads(line)["event"] for line in lines]
    assert files_in(out) == {"labels.nii.gz": OLD_RESULT}
    assert not files_in(temporary)
    # The cache works as before.
    assert main(["models", "list"]) == 0
    assert "damaged" not in capsys.readouterr().out
    assert not [name for name in files_in(tmp_path / "cache") if "part" in name]
