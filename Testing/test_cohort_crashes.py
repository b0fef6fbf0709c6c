"""Cohorts on worker processes as a user starts them, some of which are killed or interrupted."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cases import files_in, small_abdomen, write_case
from cohort_runs import add_bad_images, events_of, statuses

from DiffuSAMLib.cli import main

pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")

pytestmark = pytest.mark.usefixtures("copied_weights")


class Command:
    """`diffusam segment --images` in a process group of its own, as a shell starts it."""

    def __init__(self, package: Path, images: Path, out: Path, cache: Path, *, workers: int = 1) -> None:
        environment = {**os.environ, "PYTHONPATH": str(package), "DIFFUSAM_HOME": str(cache)}
        options = ["--device", "cpu", "--workers", str(workers), "--json-progress"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "DiffuSAMLib", "segment", "--images", images, "-o", out, *options],
            cwd=package,
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
def test_a_killed_worker_and_an_interrupt_lose_nothing(package_copy: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for number in range(6):
        write_case(tmp_path, f"case{number}", small_abdomen(3 + number % 2))
    add_bad_images(images)

    # Two workers, one of them killed in the middle of a case: it is held until the other has ended two more,
    # by when it surely has one.
    command = Command(package_copy, images, out, tmp_path / "cache", workers=2)
    command.wait_for_a_case()
    workers = command.workers()
    assert len(workers) == 2
    listening = [
        c.laddr.ip for p in (*workers, psutil.Process(command.process.pid)) for c in p.net_connections()
    ]
    assert set(listening) == {"127.0.0.1"}
    workers[0].suspend()
    while not all(command.wait_for_a_case(12.0) for _ in range(2)):
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
    command = Command(package_copy, images, out, tmp_path / "cache")
    for _ in range(3):
        command.wait_for_a_case()
    # They stand still while it is looked who they are: on a quick computer they would be ready.
    os.killpg(command.process.pid, signal.SIGSTOP)
    workers = command.workers()
    assert workers
    os.killpg(command.process.pid, signal.SIGINT)
    os.killpg(command.process.pid, signal.SIGCONT)
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


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_crash_of_the_whole_run_costs_only_the_cases_under_way(
    package_copy: Path, cluster_address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for number in range(4):
        write_case(tmp_path, f"case{number}", small_abdomen(3 + number % 2))
    command = Command(package_copy, images, out, tmp_path / "cache")
    command.wait_for_a_case()
    workers = command.workers()
    assert workers
    command.process.kill()
    command.process.wait(timeout=60)
    # Workers notice by themselves that nobody is left who wants their work.
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    before = files_in(out)
    finished = [name for name in before if name.endswith(".report.json") and not name.startswith(".")]
    assert finished

    # Another run, on workers of another kind, does the rest.
    folders = ["--images", str(images), "-o", str(out)]
    assert main(["segment", *folders, "--device", "cpu", "--dask", cluster_address]) == 0
    assert capsys.readouterr().err == ""
    assert statuses(out) == {f"case{number}": "done" for number in range(4)}
    after = files_in(out)
    assert not [name for name in after if name.startswith(".")]
    assert all(after[name] == before[name] for name in finished)
