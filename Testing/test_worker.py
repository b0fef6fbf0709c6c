from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import files_in, install_random_weights, read_array, reordered, small_abdomen

from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.segmentation_files import write_scalar

LIBRARY = Path(__file__).resolve().parents[1] / "DiffuSAMLib"
RESOURCES = LIBRARY.parent / "Resources"
Event = dict[str, Any]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as it lies beside the module, with weights that find every organ."""
    root = tmp_path_factory.mktemp("with space and umlaut ä")
    shutil.copytree(LIBRARY, root / "DiffuSAMLib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Backbones", "Terminology"):
        shutil.copytree(RESOURCES / name, root / "Resources" / name)
    install_random_weights(root / "Resources")
    return root


class Child:
    """A worker process and the lines it says."""

    def __init__(self, root: Path, home: Path, *, as_module: bool = False, **variables: str) -> None:
        self.temporary = home / "tmp"
        self.temporary.mkdir(parents=True)
        program = ["-m", "DiffuSAMLib.worker"] if as_module else [str(root / "DiffuSAMLib" / "worker.py")]
        own = {"DIFFUSAM_HOME": str(home), "TMPDIR": str(self.temporary), **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-u", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root if as_module else home,
            env=os.environ | own,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        assert self.event() == {"event": "ready", "pid": self.process.pid}

    def send(self, job: Any) -> None:
        self.input.write((job if isinstance(job, str) else json.dumps(job)).encode() + b"\n")
        self.input.flush()

    def event(self) -> Event:
        line = self.output.readline()
        assert line.isascii()
        event: Event = json.loads(line)
        return event

    def until(self, wanted: Callable[[Event], bool]) -> list[Event]:
        events = [self.event()]
        while not wanted(events[-1]):
            events.append(self.event())
        return events

    def answer(self) -> list[Event]:
        return self.until(lambda event: event["event"] in ("done", "error"))

    def run(self, **job: Any) -> list[Event]:
        self.send({"job": "segment", "device": "cpu", **job})
        return self.answer()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.input.close()
        self.output.close()


@pytest.fixture(scope="module")
def child(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One for all jobs that it survives."""
    child = Child(installed, tmp_path_factory.mktemp("home"))
    yield child
    child.end()


@pytest.fixture
def mortal(installed: Path, tmp_path: Path) -> Iterator[Child]:
    child = Child(installed, tmp_path / "home")
    yield child
    child.end()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "abdomen.nrrd"
    write_scalar(path, small_abdomen().volume.array, small_abdomen().volume.geometry)
    return path


def test_a_job_is_answered_by_progress_and_one_done(child: Child, image: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels.nrrd"
    *before, done = child.run(image=str(image), output=str(output), report=str(tmp_path / "report.json"))
    assert {event["event"] for event in before} == {"progress"}
    stages = [event["stage"] for event in before]
    assert list(dict.fromkeys(stages)) == ["read", "load", "encode", "generate", "propagate", "write"]
    assert done["event"] == "done"
    assert done["output"] == str(output)
    assert done["report"] == json.loads((tmp_path / "report.json").read_text())
    labels = read_array(output)
    counts = [organ["voxels"] for organ in done["report"]["organs"]]
    assert counts == [int((labels == n).sum()) for n in range(1, 5)]
    assert any(counts)


def test_a_second_job_on_the_same_image_does_not_encode(child: Child, image: Path, tmp_path: Path) -> None:
    def run(path: Path, name: str, **job: Any) -> dict[str, Any]:
        report: dict[str, Any] = child.run(image=str(path), output=str(tmp_path / name), **job)[-1]["report"]
        return report

    run(image, "a.nrrd", modality="MR")
    assert run(image, "a.nrrd")["timings"]["encode"] > 0
    # The same content under another name, as the module writes it.
    again = tmp_path / "again.nrrd"
    shutil.copyfile(image, again)
    second = run(again, "b.nrrd", organs=["liver"])
    assert second["timings"]["encode"] == 0
    assert [organ["name"] for organ in second["organs"]] == ["liver"]
    assert run(again, "c.nrrd", modality="MR")["timings"]["encode"] > 0
    other = small_abdomen(4).volume
    write_scalar(again, other.array, other.geometry)
    assert run(again, "d.nrrd")["timings"]["encode"] > 0


def test_what_is_kept_gives_what_a_new_process_gives(
    child: Child, installed: Path, image: Path, tmp_path: Path
) -> None:
    child.run(image=str(image), output=str(tmp_path / "all.nrrd"))
    child.run(image=str(image), output=str(tmp_path / "warm.nrrd"), organs=["liver", "spleen"])
    cold = Child(installed, tmp_path / "second home", as_module=True)
    cold.run(image=str(image), output=str(tmp_path / "cold.nrrd"), organs=["liver", "spleen"])
    cold.end()
    np.testing.assert_array_equal(read_array(tmp_path / "warm.nrrd"), read_array(tmp_path / "cold.nrrd"))


def test_labels_appear_slice_by_slice_in_the_order_of_the_file(child: Child, tmp_path: Path) -> None:
    # Sagittal slices, two axes backwards.
    volume = reordered(small_abdomen().volume, (2, 0, 1), (True, False, True))
    image, live, output = tmp_path / "sagittal.nrrd", tmp_path / "labels.raw", tmp_path / "labels.nrrd"
    write_scalar(image, volume.array, volume.geometry)
    events = child.run(image=str(image), output=str(output), live=str(live))
    slices = [event for event in events if event["event"] == "slice"]
    assert {event["organ"] for event in slices} >= {"spleen", "liver"}
    assert {event["box"][1][1] - event["box"][1][0] for event in slices} == {1}
    assert {event["box"][1][0] for event in slices} == set(range(10))
    assert all(0 <= low < high for event in slices for low, high in event["box"])
    final = np.fromfile(live, np.uint8).reshape(volume.array.shape)
    np.testing.assert_array_equal(final, read_array(output))
    assert events[-1]["event"] == "done"


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ("not json", "not JSON"),
        ("[1]", "not a JSON object"),
        ({"job": "dance"}, '"dance"'),
        ({"job": "download"}, '"name"'),
        ({"job": "segment"}, "no image"),
        ({"job": "segment", "image": 3}, '"image"'),
        ({"job": "segment", "image": "x.nrrd", "steps": "2"}, '"steps"'),
        ({"job": "segment", "image": "x.nrrd", "organ": ["liver"]}, '"organ"'),
        ({"job": "segment", "image": "nowhere.nrrd"}, "nowhere.nrrd"),
    ],
)
def test_a_wrong_job_is_one_error_and_the_worker_goes_on(child: Child, job: Any, says: str) -> None:
    for _ in range(2):
        child.send(job)
        answer = child.answer()[-1]
        assert (answer["event"], answer["code"]) == ("error", "input")
        assert says in answer["message"]


def test_weights_that_break_between_two_jobs_are_noticed(
    child: Child, installed: Path, image: Path, tmp_path: Path
) -> None:
    prior = tmp_path / "own.safetensors"
    shutil.copyfile(installed / "Resources" / "Weights" / "abdomen-prior.safetensors", prior)
    job = {"image": str(image), "prior": str(prior), "output": str(tmp_path / "a.nrrd")}
    assert child.run(**job)[-1]["event"] == "done"
    good = prior.read_bytes()
    prior.write_bytes(good[:-100] + bytes(100))
    broken = child.run(**job)[-1]
    assert (broken["event"], broken["code"]) == ("error", "weights")
    assert broken["hint"]
    prior.unlink()
    assert child.run(**job)[-1]["code"] == "weights"
    prior.write_bytes(good)
    assert child.run(**job)[-1]["event"] == "done"


def test_weights_are_imported_from_a_file(child: Child, installed: Path, tmp_path: Path) -> None:
    prior = tmp_path / "own.safetensors"
    shutil.copyfile(installed / "Resources" / "Weights" / "abdomen-prior.safetensors", prior)
    child.send({"job": "import", "file": str(prior)})
    # It is the bundled one under another name.
    assert child.answer()[-1] == {"event": "done", "name": "abdomen"}
    prior.write_bytes(b"no weights")
    child.send({"job": "import", "file": str(prior)})
    assert child.answer()[-1]["code"] == "weights"


def test_unknown_weights_are_not_downloaded(child: Child) -> None:
    child.send({"job": "download", "name": "nothing"})
    answer = child.answer()[-1]
    assert (answer["event"], answer["code"]) == ("error", "weights")


def test_a_missing_package_is_named(installed: Path, image: Path, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    child = Child(installed, tmp_path / "home", PYTHONPATH=str(packages))
    answer = child.run(image=str(image))[-1]
    child.end()
    assert (answer["event"], answer["code"]) == ("error", "packages")
    assert "torch" in answer["message"]


@pytest.mark.parametrize("ending", ["quit", "input closed"])
def test_an_idle_worker_ends_in_peace(mortal: Child, ending: str) -> None:
    if ending == "quit":
        mortal.send({"job": "quit"})
    else:
        mortal.input.close()
    assert mortal.process.wait(60) == 0


def test_a_job_whose_sender_has_gone_is_not_begun(mortal: Child, image: Path, tmp_path: Path) -> None:
    job = {"job": "segment", "image": str(image), "output": str(tmp_path / "labels.nrrd"), "device": "cpu"}
    mortal.send(job)
    mortal.input.close()
    assert mortal.process.wait(60) in (0, 143)
    assert not (tmp_path / "labels.nrrd").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize("stage", ["read", "encode", "propagate", "write"])
def test_a_busy_worker_ends_at_once_and_leaves_no_file(mortal: Child, tmp_path: Path, stage: str) -> None:
    volume = small_abdomen().volume
    image = tmp_path / "long.nrrd"
    write_scalar(image, np.tile(volume.array, (6, 1, 1)), Geometry((60, 96, 96), volume.geometry.matrix))
    started = _end_in(mortal, image, tmp_path, stage, lambda: mortal.process.send_signal(signal.SIGTERM))
    # The last stage may be over before the signal arrives; then it ends an idle worker.
    assert mortal.process.wait(60) == 143
    assert time.monotonic() - started < 10
    assert set(files_in(tmp_path / "out")) <= ({"labels.seg.nrrd"} if stage == "write" else set())
    assert not files_in(mortal.temporary)


def test_a_busy_worker_whose_parent_has_gone_ends_too(mortal: Child, image: Path, tmp_path: Path) -> None:
    started = _end_in(mortal, image, tmp_path, "generate", mortal.input.close)
    assert mortal.process.wait(60) == 143
    assert time.monotonic() - started < 10
    assert not files_in(tmp_path / "out")
    assert not files_in(mortal.temporary)


def _end_in(child: Child, image: Path, tmp_path: Path, stage: str, end: Callable[[], None]) -> float:
    """Ends the child as soon as it reports a stage; returns when."""
    (tmp_path / "out").mkdir()
    output = str(tmp_path / "out" / "labels.seg.nrrd")
    child.send({"job": "segment", "image": str(image), "output": output, "device": "cpu"})
    child.until(lambda event: event.get("stage") == stage)
    started = time.monotonic()
    end()
    return started
