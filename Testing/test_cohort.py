"""Cohorts, on a cluster inside this process, and on worker processes as a user starts them."""

from __future__ import annotations

import csv
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from cases import (
    ORGANS,
    Installation,
    files_in,
    install_random_weights,
    read_array,
    small_abdomen,
    write_case,
)

from DiffuSAMLib import cohort_worker
from DiffuSAMLib.cli import main
from DiffuSAMLib.cohort_cases import list_cases
from DiffuSAMLib.cohort_cluster import local_cluster
from DiffuSAMLib.errors import InputError

distributed = pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with small random weights, which other processes find too."""
    folder = tmp_path_factory.mktemp("installed")
    install_random_weights(folder / "Resources")
    unwanted = shutil.ignore_patterns("Weights", "__pycache__")
    shutil.copytree(REPOSITORY / "Resources", folder / "Resources", ignore=unwanted, dirs_exist_ok=True)
    shutil.copytree(REPOSITORY / "DiffuSAMLib", folder / "DiffuSAMLib", ignore=unwanted)
    return folder


@pytest.fixture(autouse=True)
def _use_random_weights(installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Installation(installed / "Resources").use(monkeypatch, tmp_path / "cache")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster with a worker of two threads, inside this process."""
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address=None,
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two good images, a damaged one and a time series."""
    for name, seed in (("first", 3), ("second", 4)):
        write_case(tmp_path, name, small_abdomen(seed))
    folder = tmp_path / "images"
    add_bad_images(folder)
    (folder / "notes.txt").write_text("not an image")
    (folder / "first.seg.nrrd").write_text("not an image either")
    return folder


def add_bad_images(folder: Path) -> None:
    (folder / "damaged.nii.gz").write_bytes(b"not a NIfTI at all")
    times = sitk.GetImageFromArray(np.zeros((2, 3, 4, 4), np.float32), isVector=False)
    sitk.WriteImage(times, str(folder / "times.nii.gz"))


@pytest.fixture
def segment(address: str, images: Path, tmp_path: Path) -> Callable[..., int]:
    """Segments the images on the cluster of this process."""

    def run(*options: str) -> int:
        folders = ["--images", str(images), "-o", str(tmp_path / "out"), "--dask", address]
        return main(["segment", *folders, "--device", "cpu", *options])

    return run


def table(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of `cohort.csv` by case, after a check that `cohort.json` says the same."""
    with (folder / "cohort.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    content = json.loads((folder / "cohort.json").read_text(encoding="ascii"))
    assert content["schema_version"] == 1
    assert [(case["name"], case["status"], case["error"]) for case in content["cases"]] == [
        (name, row["status"], row["error"]) for name, row in rows.items()
    ]
    return rows


def statuses(folder: Path) -> dict[str, str]:
    return {name: row["status"] for name, row in table(folder).items()}


def events_of(output: str) -> list[dict[str, Any]]:
    assert output.isascii()
    return [json.loads(line) for line in output.splitlines()]


def test_bad_cases_end_with_a_sentence_in_the_table_and_the_others_go_on(
    segment: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment("--json-progress", "--format", "seg.nrrd", "--preview") == 2
    captured = capsys.readouterr()
    sentence = f"2 of 4 cases could not be segmented. The table {out / 'cohort.csv'} says why."
    assert captured.err == f"diffusam: {sentence}\n"
    events = events_of(captured.out)
    assert [event["event"] for event in events].count("case") == 4
    progress = [event for event in events if event["event"] == "progress"]
    assert [(e["stage"], e["done"], e["total"]) for e in progress] == [("cohort", n, 4) for n in range(5)]
    assert events[-1]["event"] == "error"

    rows = table(out)
    assert statuses(out) == {"damaged": "failed", "first": "done", "second": "done", "times": "failed"}
    assert "damaged.nii.gz" in rows["damaged"]["error"]
    assert "has 4 dimensions" in rows["times"]["error"]
    cases = json.loads((out / "cohort.json").read_text())["cases"]
    assert [case["attempts"] for case in cases] == [1, 1, 1, 1]
    good = {
        f"{name}.{end}" for name in ("first", "second") for end in ("seg.nrrd", "report.json", "preview.png")
    }
    assert set(files_in(out)) == {"cohort.csv", "cohort.json", *good}
    labels = read_array(out / "first.seg.nrrd")
    for value, organ in enumerate(ORGANS, start=1):
        volume = (labels == value).sum() * 3.5 * 3.5 * 20 / 1000
        assert float(rows["first"][f"{organ} (ml)"]) == pytest.approx(volume, abs=0.06)
    assert float(rows["first"]["seconds"]) > 0


def test_only_what_changed_is_done_again(
    segment: Callable[..., int], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for name in ("damaged", "times"):
        (images / f"{name}.nii.gz").unlink()

    def reused() -> dict[str, bool]:
        assert set(statuses(out).values()) == {"done"}
        return {
            case["name"]: case["reused"] for case in json.loads((out / "cohort.json").read_text())["cases"]
        }

    assert segment() == 0
    assert reused() == {"first": False, "second": False}
    before = files_in(out)
    # A copy with another time is the same image.
    os.utime(images / "first.nii.gz")
    assert segment() == 0
    assert reused() == {"first": True, "second": True}
    assert {**files_in(out), "cohort.json": b""} == {**before, "cohort.json": b""}
    assert capsys.readouterr().out.endswith(f"2 cases: {out / 'cohort.csv'}\n")

    shutil.copy(images / "second.nii.gz", images / "first.nii.gz")
    assert segment() == 0
    assert reused() == {"first": False, "second": True}
    (out / "second.nii.gz").unlink()
    assert segment() == 0
    assert reused() == {"first": True, "second": False}
    (out / "second.report.json").write_text("{")
    assert segment("--seed", "0") == 0
    assert reused() == {"first": True, "second": False}
    assert segment("--organs", "liver") == 0
    assert reused() == {"first": False, "second": False}
    assert list(table(out)["first"]) == ["case", "status", "seconds", "liver (ml)", "error", "image"]


def test_a_fault_is_tried_again_and_told_in_the_end(
    segment: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Faulty:
        def segment(self, request: Any) -> None:
            calls.append(request.image.name)
            raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cohort_worker, "_segmenter", Faulty())
    assert segment("--retries", "1") == 2
    assert calls.count("first.nii.gz") == 2
    row = table(tmp_path / "out")["first"]
    assert (row["status"], row["error"]) == ("failed", "The program failed (ZeroDivisionError: a bug).")


def test_a_prior_that_changes_during_the_run_stops_it(
    segment: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cohort_worker, "sha256_of", lambda path: "another")
    assert segment() == 2
    assert "The prior abdomen of a worker is not the one that this run began with." in capsys.readouterr().err
    assert set(statuses(tmp_path / "out").values()) == {"pending"}


def test_results_of_somebody_else_are_not_replaced(
    segment: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "first.nii.gz").write_bytes(b"labels drawn by hand")
    assert segment() == 2
    assert "already holds first.nii.gz" in capsys.readouterr().err
    assert files_in(out) == {"first.nii.gz": b"labels drawn by hand"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--organs", "liver,brain"], "This prior does not know brain."),
        (["--steps", "0"], "The number of sampling steps must be 1 to"),
        (["--samples", "0"], "The number of samples must be 1 or more"),
        (["--seed", "-1"], "The seed must be 0 to"),
        (["--retries", "-1"], "The number of retries must be 0 or more"),
        (["--workers", "2"], "Give --dask or --workers, not both."),
        (["--confidence", "map.nii.gz"], "With --images, --confidence takes no file name."),
        (["--report", "report.json"], "With --images, every case has a report."),
        (["--prior", "nothing"], "There are no weights called nothing"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    segment: Callable[..., int],
    tmp_path: Path,
    options: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert segment(*options) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_one_image_or_a_folder(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = str(images / "first.nii.gz"), str(tmp_path / "out.nii.gz")
    for command, sentence in (
        (["-o", out], "No image is given."),
        ([image, "--images", str(images), "-o", out], "Both an IMAGE and --images are given."),
        ([image, "-o", out, "--retries", "1"], "--retries belongs to --images."),
        ([image, "-o", out, "--preview"], "--preview names no file."),
        (["--images", str(images), "-o", str(images)], "The results would lie among the images."),
        (["--images", str(tmp_path / "none"), "-o", out], "There is no folder"),
        (["--images", str(images), "-o", image], "is a file, where a folder is expected."),
        (["--images", str(images), "-o", out, "--dask", "nonsense://x"], "There is no Dask scheduler at"),
    ):
        assert main(["segment", *command]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1


def test_a_missing_package_is_named(
    segment: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("DiffuSAMLib.cohort_cluster.find_spec", lambda name: None)
    assert segment() == 2
    expected = (
        "diffusam: A cohort needs the Python package distributed, which is not installed. Run: pip install"
    )
    assert capsys.readouterr().err.startswith(expected)


def test_cases_are_named_without_endings(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.NRRD", "c.v1.mha", "d.nhdr", "d.raw", ".hidden.nii", "e.seg.nrrd", "f.txt"):
        (tmp_path / name).touch()
    (tmp_path / "g.x").mkdir()
    (tmp_path / "out").mkdir()
    cases = list_cases(tmp_path, leave_out=tmp_path / "out")
    assert [case.name for case in cases] == ["a", "b", "c.v1", "d", "g.x"]


@pytest.mark.parametrize("names", [("a.nii.gz", "a.mha"), ("A.nii", "a.nrrd"), ("a.nii", "a.confidence.nii")])
def test_results_of_the_same_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="would have results of the same name"):
        list_cases(tmp_path, leave_out=tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "sentence"), [("1.dcm", "DICOM files of one image"), ("a.txt", "no images")]
)
def test_a_folder_without_images_is_refused(tmp_path: Path, file: str, sentence: str) -> None:
    (tmp_path / file).touch()
    with pytest.raises(InputError, match=sentence):
        list_cases(tmp_path, leave_out=tmp_path / "out")


class Command:
    """`diffusam segment --images` in a process group of its own, as a shell starts it."""

    def __init__(self, installed: Path, images: Path, out: Path, cache: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(installed), "DIFFUSAM_HOME": str(cache)}
        options = ["--device", "cpu", "--workers", "2", "--json-progress"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "DiffuSAMLib", "segment", "--images", images, "-o", out, *options],
            cwd=installed,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Whoever started the tests in the background had them, and so the child, ignore interrupts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.lines: list[str] = []
        self._told: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._told.put(line)
        self._told.put(None)

    def wait_for_a_case(self, seconds: float = 300.0) -> bool:
        """Whether a case ended within this time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._told.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return False
            if line is None:
                raise AssertionError("".join(self.lines) + self.end()[1])
            if '"case"' in line:
                return True

    def workers(self) -> list[Any]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def end(self) -> tuple[int, str]:
        code = self.process.wait(timeout=300)
        self._reader.join(timeout=60)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_killed_worker_and_an_interrupt_lose_nothing(installed: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for number in range(6):
        write_case(tmp_path, f"case{number}", small_abdomen(3 + number % 2))
    add_bad_images(images)

    # Two workers, one of them killed in the middle of a case: it is held until the other has ended two more,
    # by when it surely has one.
    command = Command(installed, images, out, tmp_path / "cache")
    command.wait_for_a_case()
    workers = command.workers()
    assert len(workers) == 2
    listening = [
        c.laddr.ip for p in (*workers, psutil.Process(command.process.pid)) for c in p.net_connections()
    ]
    assert set(listening) == {"127.0.0.1"}
    workers[0].suspend()
    while not all(command.wait_for_a_case(20.0) for _ in range(2)):
        # It was stopped while it handed over a result, which the others wait for.
        workers[0].resume()
        assert command.wait_for_a_case()
        workers[0].suspend()
    workers[0].kill()
    code, error = command.end()
    assert code == 2, error
    assert (
        error == f"diffusam: 2 of 8 cases could not be segmented. The table {out / 'cohort.csv'} says why.\n"
    )
    good = {f"case{number}": "done" for number in range(6)}
    assert statuses(out) == {**good, "damaged": "failed", "times": "failed"}
    cases = {case["name"]: case for case in json.loads((out / "cohort.json").read_text())["cases"]}
    assert sum(case["attempts"] for case in cases.values()) == 9
    expected = {f"{name}.{end}" for name in good for end in ("nii.gz", "report.json")}
    assert set(files_in(out)) == {"cohort.csv", "cohort.json", *expected}

    # Four cases again; Ctrl-C reaches the workers as well.
    for name in ("damaged", "times"):
        (images / f"{name}.nii.gz").unlink()
    before = files_in(out)
    for number in range(2, 6):
        (out / f"case{number}.report.json").unlink()
    command = Command(installed, images, out, tmp_path / "cache")
    for _ in range(3):
        command.wait_for_a_case()
    workers = command.workers()
    os.killpg(command.process.pid, signal.SIGINT)
    code, error = command.end()
    assert (code, error) == (130, "diffusam: interrupted.\n")
    assert events_of("".join(command.lines))[-1]["code"] == "interrupted"
    assert not [worker for worker in workers if worker.is_running()]
    found = statuses(out)
    assert list(found.values()).count("done") >= 3
    assert set(found.values()) == {"done", "pending"}
    assert not [name for name in files_in(out) if name.startswith(".")]
    for name in ("case0", "case1"):
        assert files_in(out)[f"{name}.report.json"] == before[f"{name}.report.json"]


def test_local_workers_keep_to_themselves() -> None:
    """A client without the key of the run is turned away."""
    with local_cluster(1) as cluster:
        address = cluster.client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        with pytest.raises((OSError, ValueError, TypeError)):
            distributed.Client(address, timeout=5, set_as_default=False)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_crash_of_the_whole_run_costs_only_the_cases_under_way(installed: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for number in range(4):
        write_case(tmp_path, f"case{number}", small_abdomen(3 + number % 2))
    command = Command(installed, images, out, tmp_path / "cache")
    command.wait_for_a_case()
    workers = command.workers()
    command.process.kill()
    command.process.wait(timeout=60)
    # Workers notice by themselves that nobody is left who wants their work.
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    before = files_in(out)
    finished = [name for name in before if name.endswith(".report.json") and not name.startswith(".")]
    assert finished

    command = Command(installed, images, out, tmp_path / "cache")
    code, error = command.end()
    assert (code, error) == (0, "")
    assert statuses(out) == {f"case{number}": "done" for number in range(4)}
    after = files_in(out)
    assert not [name for name in after if name.startswith(".")]
    assert all(after[name] == before[name] for name in finished)
