"""What a training leaves, and that what was reached is neither lost nor overwritten."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import files_in, json_events
from training_runs import OPTIONS, RECIPE, StopAfter, folders

from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.cli import main
from DiffuSAMLib.content_hashes import sha256_of
from DiffuSAMLib.errors import InputError, UnfinishedRunError
from DiffuSAMLib.finished_training import finish_training
from DiffuSAMLib.held_out import HeldOut
from DiffuSAMLib.image_digest import image_digest
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.labelled_stacks import LabelledStack
from DiffuSAMLib.prior import Prior
from DiffuSAMLib.prior_files import read_header
from DiffuSAMLib.recipe import load_recipe
from DiffuSAMLib.train import train_prior
from DiffuSAMLib.training_pictures import TrainingPictures
from DiffuSAMLib.validation import Validation
from DiffuSAMLib.volumes import read_volume

pytestmark = pytest.mark.usefixtures("quick_trainings")


def test_a_finished_run_that_is_resumed_stays_as_it_is(
    cases: list[LabelledFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, note = tmp_path / "p.safetensors", tmp_path / "p.run" / "note.txt"
    short = replace(RECIPE, training=replace(RECIPE.training, iterations=1))
    header = train_prior(cases[:1], output, recipe=short, device="cpu", resume=True)
    note.write_text("mine")
    digest = sha256_of(output)
    assert train_prior(cases, output, recipe=RECIPE, device="cpu", resume=True).to_json() == header.to_json()
    command = ["train", *folders(cases), *OPTIONS, "-o", str(output), "--resume"]
    capsys.readouterr()
    assert main(command) == 0
    assert f"{output} is finished: nothing was left to resume" in capsys.readouterr().out
    assert main([*command, "--json-progress"]) == 0
    (done,) = json_events(capsys.readouterr().out)
    assert (done["event"], done["iterations"]) == ("done", 1)
    assert (sha256_of(output), note.read_text()) == (digest, "mine")
    train_prior(cases[:1], output, recipe=RECIPE, device="cpu", restart=True)
    assert read_header(output).training["iterations"] == 4
    output.write_bytes(b"no prior")
    assert main(command) == 2
    assert output.read_bytes() == b"no prior"


def test_a_finished_prior_is_replaced_only_if_that_is_said(
    cases: list[LabelledFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "p.safetensors"
    short = replace(RECIPE, training=replace(RECIPE.training, iterations=1))
    train_prior(cases[:1], output, recipe=short, device="cpu")
    before = files_in(tmp_path)
    says = "p.safetensors is a finished prior. Give another name with -o, or --restart to replace it."
    with pytest.raises(InputError, match=re.escape(says)):
        train_prior(cases[:1], output, recipe=RECIPE, device="cpu")
    command = ["train", *folders(cases), *OPTIONS, "-o", str(output)]
    capsys.readouterr()
    assert main(command) == 2
    assert capsys.readouterr().err == f"diffusam: {tmp_path / says}\n"
    assert files_in(tmp_path) == before
    # It stays until the new one is complete.
    with pytest.raises(KeyboardInterrupt):
        train_prior(
            cases[:1], output, recipe=RECIPE, device="cpu", restart=True, stop=StopAfter(1, keep=False)
        )
    assert output.read_bytes() == before["p.safetensors"]
    # Whoever may replace it has not said what is to become of the unfinished run.
    with pytest.raises(UnfinishedRunError, match="or begin anew with --restart"):
        train_prior(cases[:1], output, recipe=RECIPE, device="cpu", replace=True)
    train_prior(cases[:1], output, recipe=RECIPE, device="cpu", resume=True)
    assert read_header(output).training["iterations"] == 4
    train_prior(cases[:1], output, recipe=short, device="cpu", replace=True)
    assert read_header(output).training["iterations"] == 1


def test_a_file_that_is_no_prior_is_not_overwritten(cases: list[LabelledFiles], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    output.write_bytes(b"no prior")
    with pytest.raises(InputError, match="is no prior that can be read, and would be overwritten"):
        train_prior(cases[:1], output, recipe=RECIPE, device="cpu")
    assert files_in(tmp_path) == {"p.safetensors": b"no prior"}


def test_organs_have_the_order_of_their_values_and_a_run_keeps_the_one_it_began_with(
    cases: list[LabelledFiles], tmp_path: Path
) -> None:
    output = tmp_path / "p.safetensors"
    case = replace(cases[0], label_names={4: "liver", 1: "spleen"})
    with pytest.raises(KeyboardInterrupt):
        # As runs were begun that numbered organs as they were named.
        train_prior(
            [case],
            output,
            organs=["liver", "spleen"],
            recipe=RECIPE,
            device="cpu",
            stop=StopAfter(1, keep=False),
        )
    header = train_prior([case], output, recipe=RECIPE, device="cpu", resume=True)
    assert [label.name for label in header.labels] == ["liver", "spleen"]
    short = replace(RECIPE, training=replace(RECIPE.training, iterations=1))
    header = train_prior([case], output, recipe=short, device="cpu", restart=True)
    assert [label.name for label in header.labels] == ["spleen", "liver"]


def test_no_picture_can_end_a_training(
    cases: list[LabelledFiles],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    output, there = tmp_path / "p.safetensors", []

    def fail(*_: object) -> None:
        there.append(output.exists())
        raise IndexError("tensors used as indices")

    for picture in ("_compared", "_denoising", "_memories"):
        monkeypatch.setattr(TrainingPictures, picture, fail)
    header = train_prior(cases, output, recipe=RECIPE, device="cpu")
    assert read_header(output).to_json() == header.to_json()
    # Those of the end come after the prior.
    assert there[-3:] == [False, True, True]
    assert (
        "denoising.png was left out: it cannot be drawn (IndexError: tensors used as indices)" in caplog.text
    )
    assert not list((tmp_path / "p.run").glob("*.png"))


def test_a_slice_without_organs_has_no_picture_of_denoising(
    a_compact_backbone: Backbone, a_small_prior: Prior, tmp_path: Path
) -> None:
    labels = np.zeros((20, 64, 64), np.uint8)
    labels[3, 20:40, 20:40] = 1
    stack = LabelledStack("a", "CT", labels, labels, np.ones(2, bool), (1.0, 1.0, 1.0))
    validation = Validation(HeldOut(stack, (7, 8), None), a_compact_backbone)
    TrainingPictures(tmp_path, a_compact_backbone, [stack], validation).explain(a_small_prior)
    assert not (tmp_path / "denoising.png").exists()


def test_the_images_that_a_prior_has_seen_are_told_by_their_content(
    cases: list[LabelledFiles], tmp_path: Path
) -> None:
    digests = [image_digest(read_volume(case.image)) for case in cases]
    first, output = tmp_path / "first.safetensors", tmp_path / "p.safetensors"
    short = replace(RECIPE, training=replace(RECIPE.training, iterations=2))
    header = train_prior(cases[:2], first, recipe=short, device="cpu")
    assert header.training["image_digests"] == sorted(digests[:2])
    started = replace(short, start=str(first))
    with pytest.raises(KeyboardInterrupt):
        train_prior(cases[1:3], output, recipe=started, device="cpu", stop=StopAfter(1, keep=False))
    assert finish_training(output).training["image_digests"] == sorted(digests[:3])
    with pytest.raises(KeyboardInterrupt):
        train_prior(
            cases[1:3], output, recipe=started, device="cpu", restart=True, stop=StopAfter(1, keep=False)
        )
    header = train_prior(cases[1:3], output, recipe=started, device="cpu", resume=True)
    assert header.training["image_digests"] == sorted(digests[:3])


def test_the_recipe_of_a_prior_that_began_with_a_file_can_be_taken(
    cases: list[LabelledFiles],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, output = tmp_path / "elsewhere" / "first.safetensors", tmp_path / "p.safetensors"
    short = replace(RECIPE, training=replace(RECIPE.training, iterations=1))
    train_prior(cases[:1], first, recipe=short, device="cpu")
    train_prior(cases[:1], output, recipe=replace(short, start=str(first)), device="cpu")
    assert load_recipe(output) == short
    assert "p.safetensors began with first.safetensors, which is not here" in caplog.text
    again = tmp_path / "again.safetensors"
    assert main(["train", *folders(cases), "--config", str(output), "-o", str(again)]) == 0
    # Where the file is there, the training begins with it.
    monkeypatch.chdir(first.parent)
    assert load_recipe(output).start == "first.safetensors"
