"""A prior is trained by one run at a time; a second one is refused in a sentence and changes nothing."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import files_in
from module_host import Installed
from module_training import MINE, fill_in, priors_folder, wait_for_end
from training_runs import OPTIONS, RECIPE, folders

from DiffuSAMLib import finished_training
from DiffuSAMLib.cli import main
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.processes import Processes
from DiffuSAMLib.train import train_prior
from DiffuSAMLib.training_lock import training_lock
from DiffuSAMLib.training_paths import checkpoint_path, lock_path, run_folder

REPOSITORY = Path(__file__).resolve().parents[1]
HOLD = """
import pathlib, sys, time
from DiffuSAMLib.training_lock import training_lock
with training_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "p.safetensors"


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("option", ["", "--resume", "--restart", "--finish"])
def test_a_second_run_is_refused_and_changes_nothing(
    cases: list[LabelledFiles], output: Path, saved: bool, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with training_lock(output):
        run_folder(output).mkdir(parents=True)
        (run_folder(output) / "recipe.json").write_text("{}")
        if saved and option != "--resume":  # which reads the recipe that is in it
            checkpoint_path(output).write_text("the first run's")
        before = files_in(output.parent)
        command = ["train", *folders(cases), *OPTIONS, "-o", str(output), *option.split()]
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == (
            f"diffusam: Another run is training {output}: "
            "wait until it has ended, or give the prior another name."
        )
        assert files_in(output.parent) == before
    assert not lock_path(output).exists()


def test_a_killed_run_leaves_a_prior_that_can_be_trained(output: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(output)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="Another run"), training_lock(output):
            pass
        process.kill()
    assert lock_path(output).exists()
    with training_lock(output):
        assert lock_path(output).exists()
    assert not lock_path(output).exists()


def test_folders_that_were_made_for_nothing_go_again(tmp_path: Path) -> None:
    new, used = tmp_path / "a" / "b" / "p.safetensors", tmp_path / "c" / "d" / "p.safetensors"
    with training_lock(new), training_lock(used):
        used.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert files_in(tmp_path) == {str(used.relative_to(tmp_path)): b""}


def test_only_one_of_many_has_the_lock(output: Path) -> None:
    """Though each removes the file that others have opened already."""
    output.parent.mkdir()
    inside: list[int] = []
    seen: list[int] = []
    ends = time.monotonic() + 1

    def train(number: int) -> None:
        while time.monotonic() < ends:
            try:
                with training_lock(output):
                    inside.append(number)
                    time.sleep(0)
                    seen.append(len(inside))
                    inside.remove(number)
            except InputError:
                continue

    threads = [threading.Thread(target=train, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {1}
    assert files_in(output.parent) == {}


def test_a_file_system_without_locks_does_without(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with training_lock(output), training_lock(output):
        pass
    assert not output.parent.exists()


def test_the_other_processes_of_a_launched_group_do_not_take_it(
    cases: list[LabelledFiles], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "launched", lambda device: Processes(1, 3))
    # The main one has it; this one goes on, to what is wrong with the batch.
    with training_lock(output), pytest.raises(InputError, match="cannot be shared by 3"):
        train_prior(cases, output, recipe=RECIPE, device="cpu")


@pytest.mark.usefixtures("quick_trainings")
def test_a_checkpoint_that_has_gone_already_is_no_error(
    cases: list[LabelledFiles], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save: Callable[..., Any] = finished_training.save_prior

    def save_and_lose(*arguments: Any, **options: Any) -> Any:
        checkpoint_path(output).unlink(missing_ok=True)
        return save(*arguments, **options)

    monkeypatch.setattr(finished_training, "save_prior", save_and_lose)
    short = replace(RECIPE, training=replace(RECIPE.training, iterations=1))
    assert train_prior(cases[:1], output, recipe=short, device="cpu").training["iterations"] == 1
    assert {path.name for path in output.parent.iterdir()} == {"p.safetensors", "p.run"}


@pytest.mark.usefixtures("no_priors")
def test_the_panel_shows_the_sentence(installed: Installed, panel: Any) -> None:
    fill_in(panel)
    with training_lock(priors_folder() / f"{MINE}.safetensors"):
        panel.ui.trainButton.click()
        wait_for_end(installed, panel)
    text = panel.ui.trainStatusLabel.text
    assert text.startswith("Another run is training ")
    assert text.endswith("wait until it has ended, or give the prior another name.")
    assert panel.ui.trainButton.enabled
