"""A training from cases on disk to a prior file, with what it tells, writes and keeps; the bundled backbone at 64 px."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import ORGANS, small_abdomen, write_case
from PIL import Image
from safetensors.torch import load_file
from training_runs import OPTIONS, RECIPE, StopAfter, folders

from DiffuSAMLib.appearance import HIGHEST_WEIGHT
from DiffuSAMLib.cli import main
from DiffuSAMLib.content_hashes import sha256_of
from DiffuSAMLib.errors import InputError, OutputError, UnfinishedRunError, WeightsError
from DiffuSAMLib.finished_training import finish_training
from DiffuSAMLib.held_out import ValidationConfig
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.mr_gamma import PROCEDURAL_MR_GAMMA
from DiffuSAMLib.prior_files import read_header, read_prior
from DiffuSAMLib.recipe import load_recipe
from DiffuSAMLib.train import train_prior
from DiffuSAMLib.training_events import LossesEvent, ValidationEvent, progress_line
from DiffuSAMLib.weights import load_prior

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("quick_trainings")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_tells_writes_and_keeps_what_happens(
    cases: list[LabelledFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # measured and drawn as users' are
    output, events = tmp_path / "p.safetensors", []
    header = train_prior(cases, output, recipe=RECIPE, device="cpu", listener=events.append)
    folder = tmp_path / "p.run"
    assert {path.name for path in tmp_path.iterdir()} == {"p.safetensors", "p.run"}

    looks = [event for event in events if isinstance(event, ValidationEvent)]
    assert [look.iteration for look in looks] == [1, 2, 3, 4]
    assert all(set(look.dice) == set(ORGANS) for look in looks)
    assert all(look.overlay is not None and look.overlay.exists() for look in looks)
    # Every two seconds, and at the end.
    losses = [event for event in events if isinstance(event, LossesEvent)][-1]
    assert (losses.iteration, losses.iterations, losses.seconds_left) == (4, 4, 0)
    assert set(losses.losses) == {"prior", "segmentation", "outlines"}
    line = progress_line(losses, looks[-1])
    assert line.startswith("Iteration 4 of about 4: losses prior ")
    assert line.endswith(" 0 s left.")

    (row,) = rows(folder / "losses.csv")
    assert row["iteration"] == "4"
    assert float(row["total"]) == pytest.approx(sum(float(row[name]) for name in losses.losses), rel=1e-4)
    assert [look["iteration"] for look in rows(folder / "validation.csv")] == ["1", "2", "3", "4"]
    assert any("tfevents" in path.name for path in folder.iterdir())
    for name in ("overlay_000004.png", "denoising.png", "memories.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
            assert np.asarray(picture).std() > 10

    assert load_recipe(folder / "recipe.json") == load_recipe(output) == RECIPE
    last, best = read_header(folder / "last.safetensors"), read_header(folder / "best.safetensors")
    assert last.metrics["held_out"]["iteration"] == 4
    means = [look.mean_dice or 0 for look in looks]
    assert (best.metrics["held_out"]["mean_dice"] or 0) == max(means)
    assert header.training["ended"] == "complete"
    # The last of the cases is held out whole.
    assert header.training["held_out"]["case"] == "case3"
    assert header.training["held_out"]["whole_case"]


def test_a_prior_that_knows_mr_from_procedural_abdomens_alone_sees_it_darker(
    cases: list[LabelledFiles], tmp_path: Path
) -> None:
    training = replace(RECIPE.training, iterations=1)
    for procedural, gamma in ((0, 1.0), (1, PROCEDURAL_MR_GAMMA)):
        output = tmp_path / f"{procedural}.safetensors"
        recipe = replace(RECIPE, procedural=procedural, training=training)
        train_prior(cases[:2], output, recipe=recipe, device="cpu")
        assert load_prior(output).prior.config.mr_gamma == gamma
    # And so does one that begins with it.
    second = tmp_path / "second.safetensors"
    train_prior(cases[:1], second, recipe=replace(RECIPE, start=str(output), training=training), device="cpu")
    assert load_prior(second).prior.config.mr_gamma == PROCEDURAL_MR_GAMMA


def test_validating_changes_nothing_of_the_training(cases: list[LabelledFiles], tmp_path: Path) -> None:
    outputs = [tmp_path / "often.safetensors", tmp_path / "never.safetensors"]
    for output, every in zip(outputs, (0.0, 1e9), strict=True):
        validation = replace(RECIPE.validation, every_minutes=every)
        train_prior(cases, output, recipe=replace(RECIPE, validation=validation), device="cpu")
    digests = [read_header(path.with_suffix(".run") / "last.safetensors").tensors_sha256 for path in outputs]
    assert digests[0] == digests[1]


def test_stop_and_keep_gives_a_prior(cases: list[LabelledFiles], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    recipe = replace(RECIPE, training=replace(RECIPE.training, iterations=100))
    header = train_prior(cases[:2], output, recipe=recipe, device="cpu", stop=StopAfter(2))
    assert header.training["ended"] == "stopped"
    assert header.training["iterations"] == 2
    assert read_prior(output)[0].to_json() == header.to_json()
    assert not (tmp_path / "p.training").exists()


def test_a_stop_before_the_first_iteration_keeps_nothing(cases: list[LabelledFiles], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_prior(cases[:1], output, recipe=RECIPE, device="cpu", stop=StopAfter(0))
    assert not output.exists()
    with pytest.raises(InputError, match="has not begun"):
        finish_training(output)


def test_an_unfinished_run_is_refused_finished_or_dropped(cases: list[LabelledFiles], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    with pytest.raises(InputError, match="no unfinished run"):
        finish_training(output)
    with pytest.raises(KeyboardInterrupt):
        train_prior(cases[:2], output, recipe=RECIPE, device="cpu", stop=StopAfter(2, keep=False))
    assert not output.exists()
    with pytest.raises(UnfinishedRunError):
        train_prior(cases[:2], output, recipe=RECIPE, device="cpu")
    other = replace(RECIPE, training=replace(RECIPE.training, batch=3))
    with pytest.raises(InputError, match="unfinished run with other cases, training"):
        train_prior(cases[:1], output, recipe=other, device="cpu", resume=True)
    header = finish_training(output)
    assert header.training["iterations"] == 2
    assert header.training["cases"] == ["case0", "case1"]
    assert read_prior(output)[0].to_json() == header.to_json()
    again = train_prior(cases[:2], output, recipe=RECIPE, device="cpu", restart=True)
    assert again.training["iterations"] == 4


def test_a_run_of_another_network_is_not_finished(cases: list[LabelledFiles], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_prior(cases[:1], output, recipe=RECIPE, device="cpu", stop=StopAfter(1, keep=False))
    checkpoint = output.with_suffix(".training")
    state = torch.load(checkpoint, weights_only=True)
    state["averaged"].popitem()
    torch.save(state, checkpoint)
    with pytest.raises(InputError, match="another network"):
        finish_training(output)
    assert checkpoint.exists()
    assert not output.exists()


@pytest.mark.parametrize("options", [{"twins": 2}, {"start": "nowhere.safetensors"}])
def test_an_unfinished_run_is_dropped_for_no_run_that_cannot_be(
    cases: list[LabelledFiles], tmp_path: Path, options: dict[str, Any]
) -> None:
    checkpoint = tmp_path / "p.training"
    checkpoint.write_bytes(b"hours of work")
    others = [replace(case, modality="MR") for case in cases[:2]]
    with pytest.raises((InputError, WeightsError)):
        train_prior(
            others,
            tmp_path / "p.safetensors",
            recipe=replace(RECIPE, **options),
            device="cpu",
            restart=True,
        )
    assert checkpoint.read_bytes() == b"hours of work"


def test_what_is_held_out_whole_counts_for_no_modality(cases: list[LabelledFiles], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    mixed = [*cases[:3], replace(cases[3], modality="MR")]
    recipe = replace(RECIPE, procedural=1, training=replace(RECIPE.training, iterations=1))
    header = train_prior(mixed, output, recipe=recipe, device="cpu")
    assert header.training["held_out"]["case"] == "case3"
    assert header.modalities == ("CT",)
    assert (list(header.config["modalities"]), header.config["mr_gamma"]) == (["CT"], PROCEDURAL_MR_GAMMA)
    # Three are left.
    assert header.config["appearance"] == HIGHEST_WEIGHT


def test_patience_ends_a_run_that_gets_no_better(
    cases: list[LabelledFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.5, 0.3, 0.2, 0.9])
    monkeypatch.setattr("DiffuSAMLib.validation.Validation.dice", lambda *_: [next(scores)] * 4)
    output = tmp_path / "p.safetensors"
    recipe = replace(
        RECIPE,
        training=replace(RECIPE.training, iterations=10),
        validation=replace(RECIPE.validation, patience=2),
    )
    header = train_prior(cases, output, recipe=recipe, device="cpu")
    assert header.training["ended"] == "no improvement"
    assert header.training["iterations"] == 4
    # The best is more than the margin above the last, so it is what is written.
    assert header.metrics["held_out"]["iteration"] == 2
    assert header.tensors_sha256 == read_header(tmp_path / "p.run" / "best.safetensors").tensors_sha256


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_run_killed_twice_goes_on_as_if_nothing_had_happened(
    cases: list[LabelledFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is written after each iteration here; after two minutes at most as users run it."""
    monkeypatch.undo()  # a process of its own measures on all slices
    options = [*folders(cases), *OPTIONS, "--iterations", "14"]
    cut, whole = tmp_path / "cut.safetensors", tmp_path / "whole.safetensors"
    assert main(["train", *options, "-o", str(whole)]) == 0
    kill_training([*options, "-o", str(cut)], signal.SIGKILL, tmp_path)
    # The recipe is that of the run: its options need not be repeated.
    resumed = [*folders(cases), "-o", str(cut), "--resume"]
    kill_training(resumed, signal.SIGTERM, tmp_path)
    assert not cut.exists()
    assert main(["train", *resumed]) == 0
    # Not to the bit: the processes may share their work among threads in another way.
    torch.testing.assert_close(load_file(cut), load_file(whole), atol=2e-3, rtol=2e-3)
    assert rows(tmp_path / "cut.run" / "losses.csv")[-1]["iteration"] == "14"


def kill_training(options: list[str], sent: signal.Signals, folder: Path) -> None:
    """Sends a signal after the second iteration of a process of its own, or a later one."""
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "DiffuSAMLib" / "train_prior.py"), *options, "--json-progress"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"train", "done": ' in line and '"done": 1,' not in line:
            break
    process.send_signal(sent)
    _, error = process.communicate()
    codes = {signal.SIGKILL: -9, signal.SIGTERM: 143}
    assert process.returncode == codes[sent], error
    assert error == ("" if sent == signal.SIGKILL else "diffusam: interrupted.\n")


def test_options_come_before_the_recipe_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert main(["train", "--config", "paper", "--batch", "6", "--write-config", str(first)]) == 0
    assert load_recipe(first).training.batch == 6
    command = ["train", "--config", str(first), "--seed", "5", "--set", "training.average=0.9"]
    assert main([*command, "--write-config", str(second)]) == 0
    recipe = load_recipe(second)
    assert (recipe.training.batch, recipe.training.seed, recipe.training.average) == (6, 5, 0.9)
    assert recipe.backbone == "sam2.1_tiny"
    capsys.readouterr()
    for options, says in (
        (["--set", "training.bach=3"], 'no setting "training.bach"'),
        (["--set", "training"], "sets nothing"),
        (["--set", "training.batch=many"], '"training.batch" must be a whole number'),
        (["--config", str(tmp_path / "nowhere.json")], "cannot be read"),
        ([], "where to write the prior"),
    ):
        assert main(["train", *options]) == 2
        assert says in capsys.readouterr().err


def test_finish_writes_the_prior_of_an_interrupted_run(
    cases: list[LabelledFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "p.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_prior(cases[:2], output, recipe=RECIPE, device="cpu", stop=StopAfter(1, keep=False))
    assert main(["train", "--finish", "-o", str(output), "--title", "Mine"]) == 0
    assert capsys.readouterr().out.startswith(f"{output}: spleen, right kidney, left kidney, liver")
    header = read_header(output)
    assert header.training["ended"] == "stopped"
    assert (header.title, header.licence) == ("Mine", "As the training data")
    assert main(["train", "--finish", "-o", str(output)]) == 2
    assert "no unfinished run" in capsys.readouterr().err


def test_tables_drop_what_a_crash_lost(cases: list[LabelledFiles], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_prior(cases, output, recipe=RECIPE, device="cpu", stop=StopAfter(2, keep=False))
    table = tmp_path / "p.run" / "validation.csv"
    with table.open("a") as file:
        file.write("3,0.1,0.5,0.5,0.5,0.5,0.5\n4,0.")
    train_prior(cases, output, recipe=RECIPE, device="cpu", resume=True)
    assert [row["iteration"] for row in rows(table)] == ["1", "2", "3", "4"]


def test_what_is_not_said_again_at_resuming_stays_as_it_was(
    cases: list[LabelledFiles], tmp_path: Path
) -> None:
    first, output = tmp_path / "first.safetensors", tmp_path / "p.safetensors"
    begun = train_prior(cases[:2], first, recipe=RECIPE, device="cpu")
    assert list(begun.config["modalities"]) == ["CT"]
    others = [replace(case, modality="MR") for case in cases[2:]]
    started, said = replace(RECIPE, start=str(first)), {"title": "Mine", "licence": "CC0-1.0"}
    with pytest.raises(KeyboardInterrupt):
        train_prior(others, output, recipe=started, device="cpu", stop=StopAfter(1, keep=False), **said)
    header = train_prior(others, output, recipe=started, device="cpu", resume=True)
    # What the weights began with had seen CT.
    assert (list(header.modalities), list(header.config["modalities"])) == (["MR"], ["CT", "MR"])
    assert (header.title, header.licence) == ("Mine", "CC0-1.0")
    assert header.training["cases"] == ["case0", "case1", "case2", "case3"]
    assert header.training["started_from"]["sha256"] == sha256_of(first)


def test_other_slices_may_not_be_held_out_at_resuming(cases: list[LabelledFiles], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_prior(cases, output, recipe=RECIPE, device="cpu", stop=StopAfter(1, keep=False))
    other = RECIPE.with_settings({"validation.held_out": "case0"})
    with pytest.raises(InputError, match="other slices held out"):
        train_prior(cases, output, recipe=other, device="cpu", resume=True)


def test_labels_too_small_for_the_slices_are_told(tmp_path: Path) -> None:
    abdomen = small_abdomen()
    labels = np.zeros_like(abdomen.labels.array)
    labels[5, 49, 49] = 1  # between the slices' pixels
    tiny = replace(abdomen, labels=replace(abdomen.labels, array=labels, names={1: "adrenal gland"}))
    write_case(tmp_path, "tiny", tiny)
    case = LabelledFiles(
        "tiny", tmp_path / "images" / "tiny.nii.gz", tmp_path / "labels" / "tiny.nii.gz", {1: "adrenal gland"}
    )
    with pytest.raises(InputError, match="64 pixels are too coarse for adrenal gland"):
        train_prior([case], tmp_path / "p.safetensors", recipe=RECIPE, device="cpu")


def test_a_folder_in_the_way_of_the_prior_is_found_first(cases: list[LabelledFiles], tmp_path: Path) -> None:
    (tmp_path / "p.safetensors").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        train_prior(cases, tmp_path / "p.safetensors", recipe=RECIPE, device="cpu")


def test_organs_in_pieces_and_solid_ones_are_found_out(cases: list[LabelledFiles], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    both = [replace(case, label_names={2: "kidneys", 3: "kidneys", 4: "liver"}) for case in cases[:2]]
    train_prior(both, output, recipe=RECIPE, device="cpu")
    loaded = load_prior(output)
    assert loaded.prior.config.in_pieces == ("kidneys",)
    assert loaded.prior.config.solid == loaded.prior.config.soft == ("kidneys", "liver")
    kidneys, liver = (np.array(loaded.prior.config.layout[name]) for name in ("kidneys", "liver"))
    # The liver is on the right and in front, and columns go to the left, rows to the back.
    assert (liver[1:] < kidneys[1:] - 10).all()


def test_only_ct_tells_which_organs_are_solid(tmp_path: Path) -> None:
    write_case(tmp_path, "m", small_abdomen(3, "MR"))
    case = LabelledFiles(
        "m",
        tmp_path / "images" / "m.nii.gz",
        tmp_path / "labels" / "m.nii.gz",
        dict(enumerate(ORGANS, 1)),
        modality="MR",
    )
    output = tmp_path / "p.safetensors"
    no_validation = ValidationConfig(held_out="none")
    train_prior([case], output, recipe=replace(RECIPE, validation=no_validation), device="cpu")
    config = load_prior(output).prior.config
    assert config.solid == config.soft == ()
