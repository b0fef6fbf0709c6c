"""The worker's training job: the real child process, with the bundled backbone at 64 px."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import ORGANS, small_abdomen, write_case
from test_worker import Child
from training_runs import RECIPE

from DiffuSAMLib.held_out import ValidationConfig
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.prior_files import read_header
from DiffuSAMLib.train import train_prior

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    child = Child(REPOSITORY, tmp_path_factory.mktemp("home"))
    yield child
    child.end()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    cases = []
    for number in range(3):
        write_case(folder, f"case{number}", small_abdomen(3 + number))
        cases.append(
            {
                "name": f"case{number}",
                "image": str(folder / "images" / f"case{number}.nii.gz"),
                "labels": str(folder / "labels" / f"case{number}.nii.gz"),
                "label_names": {str(value): organ for value, organ in enumerate(ORGANS, 1)},
            }
        )
    config = folder / "recipe.json"
    replace(RECIPE, start=str(first_prior(folder))).write(config)
    return {"job": "train", "cases": cases, "config": str(config), "device": "cpu"}


def first_prior(folder: Path) -> Path:
    """To begin with: else each training would measure the latents anew, which takes longer than a few iterations."""
    write_case(folder / "first", "first", small_abdomen(6))
    image, labels = (folder / "first" / kind / "first.nii.gz" for kind in ("images", "labels"))
    case = LabelledFiles("first", image, labels, dict(enumerate(ORGANS, 1)))
    path = folder / "first.safetensors"
    recipe = replace(
        RECIPE,
        training=replace(RECIPE.training, iterations=1),
        validation=ValidationConfig(held_out="none"),
    )
    train_prior([case], path, recipe=recipe, device="cpu")
    return path


def run(child: Child, job: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    child.send({**job, **fields})
    return child.answer()


def priors(child: Child) -> Path:
    return child.temporary.parent / "priors"


def test_a_training_ends_in_the_catalogue(child: Child, job: dict[str, Any]) -> None:
    events = run(child, job, name="mine", title="My organs", licence="CC0", organs=["liver", "spleen"])
    kinds = {event["event"] for event in events}
    assert kinds == {"progress", "losses", "validation", "done"}
    stages = [event["stage"] for event in events if event["event"] == "progress"]
    assert list(dict.fromkeys(stages)) == ["load", "read", "train", "write"]
    look = next(event for event in events if event["event"] == "validation")
    assert Path(look["overlay"]).is_file()
    assert set(look["dice"]) == {"liver", "spleen"}
    done = events[-1]
    assert (done["name"], done["labels"], done["stopped"]) == ("mine", ["liver", "spleen"], False)
    header = read_header(priors(child) / "mine.safetensors")
    assert Path(done["path"]) == priors(child) / "mine.safetensors"
    assert (header.title, header.licence) == ("My organs", "CC0")
    assert run(child, job, name="mine")[-1]["code"] == "weights"
    again = run(child, job, name="mine", replace=True, iterations=1)[-1]
    assert (again["event"], again["iterations"]) == ("done", 1)


def test_stop_and_keep_installs_the_prior(child: Child, job: dict[str, Any]) -> None:
    child.send({**job, "name": "kept", "iterations": 100000})
    child.until(lambda event: event.get("stage") == "train" and event["done"] == 2)
    child.send({"job": "stop", "keep": True})
    done = child.answer()[-1]
    assert (done["event"], done["stopped"]) == ("done", True)
    assert done["iterations"] >= 2
    assert (priors(child) / "kept.safetensors").is_file()


def test_a_stopped_training_can_be_resumed(child: Child, job: dict[str, Any]) -> None:
    child.send({**job, "name": "later", "iterations": 100000})
    child.until(lambda event: event.get("stage") == "train" and event["done"] == 2)
    child.send({"job": "stop", "keep": False})
    *before, last = child.answer()
    assert last["code"] == "interrupted"
    reached = max([2, *(event["done"] for event in before if event.get("stage") == "train")])
    assert not (priors(child) / "later.safetensors").exists()
    assert (priors(child) / "later.training").exists()
    assert run(child, job, name="later")[-1]["code"] == "unfinished"
    events = run(child, job, name="later", unfinished="resume", iterations=reached + 3)
    assert min(event["done"] for event in events if event.get("stage") == "train") > 2
    assert events[-1]["event"] == "done"
    # A stop without a training is neither obeyed later nor answered.
    child.send({"job": "stop", "keep": False})
    assert run(child, job, name="next", iterations=1)[-1]["event"] == "done"


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"cases": []}, "input", "no cases"),
        ({"name": None}, "input", "names no prior"),
        ({"name": "a/b"}, "weights", "cannot be called"),
        ({"name": "abdomen"}, "weights", "another prior called abdomen"),
        ({"minutes": "5"}, "input", '"minutes"'),
        ({"colour": 1}, "input", '"colour"'),
        ({"unfinished": "drop"}, "input", "refuse, resume, restart"),
        ({"cases": [{"name": "a"}]}, "input", '"image"'),
        (
            {"cases": [{"name": "a", "image": "nowhere.nrrd", "labels": "x", "label_names": {}}]},
            "input",
            "table",
        ),
        (
            {"cases": [{"name": "a", "image": "x", "labels": "x", "label_names": {"1": "a"}, "modality": 5}]},
            "input",
            '"modality"',
        ),
        ({"organs": ["tail"]}, "input", "No case has labels for: tail"),
    ],
)
def test_a_wrong_job_is_one_error(
    child: Child, job: dict[str, Any], fields: dict[str, Any], code: str, says: str
) -> None:
    answer = run(child, job, **{"name": "wrong", **fields})[-1]
    assert (answer["event"], answer["code"]) == ("error", code), answer
    assert says in answer["message"]
    assert not (priors(child) / "wrong.safetensors").exists()


def test_what_the_check_finds_is_told(child: Child, job: dict[str, Any]) -> None:
    twice = [*job["cases"], {**job["cases"][0], "name": "again"}]
    events = run(child, job, name="checked", cases=twice, iterations=1)
    (check,) = [event for event in events if event["event"] == "check"]
    assert (check["level"], check["case"]) == ("warning", "again")
    swapped = {**job["cases"][0], "labels": job["cases"][0]["image"]}
    events = run(child, job, name="broken", cases=[swapped, job["cases"][1]])
    assert [event["level"] for event in events if event["event"] == "check"] == ["error"]
    assert events[-1]["code"] == "input"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_a_terminated_training_can_be_resumed(job: dict[str, Any], tmp_path: Path) -> None:
    child = Child(REPOSITORY, tmp_path / "home")
    child.send({**job, "name": "cut", "iterations": 100000})
    child.until(lambda event: event.get("stage") == "train" and event["done"] == 2)
    child.process.send_signal(signal.SIGTERM)
    assert child.process.wait(20) == 143
    child.end()
    assert {path.name for path in priors(child).iterdir()} == {"cut.training", "cut.run"}
