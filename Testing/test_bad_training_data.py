"""Labelled cases, settings and unfinished runs that cannot be learnt from are refused in one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from cases import (
    LABEL_NAMES,
)
from refusals import Refusal, Trap, training_on, truncated, with_nan, write_image

from DiffuSAMLib.cli import main

pytestmark = pytest.mark.usefixtures("random_weights")


def copied(data: Path, target: Path) -> Path:
    shutil.copytree(data, target)
    return target


def on_another_grid(folder: Path) -> None:
    """Labels of the right shape, a slice further up."""
    path = folder / "labels" / "abdomen.nii.gz"
    labels = sitk.ReadImage(str(path))
    labels.SetOrigin([a + b for a, b in zip(labels.GetOrigin(), (0, 0, 20), strict=True)])
    sitk.WriteImage(labels, str(path))


def of_another_shape(folder: Path) -> None:
    path = folder / "labels" / "abdomen.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path))[:, :, :-1], str(path))


def without_labels(folder: Path) -> None:
    write_image(folder / "labels" / "abdomen.nii.gz", np.zeros((10, 96, 96), np.uint8))


def with_the_image_as_labels(folder: Path) -> None:
    shutil.copyfile(folder / "images" / "abdomen.nii.gz", folder / "labels" / "abdomen.nii.gz")


def with_other_names(folder: Path) -> None:
    (folder / "labels" / "abdomen.nii.gz").rename(folder / "labels" / "somebody_else.nii.gz")


BAD_CASES: list[tuple[Callable[[Path], object], str]] = [
    (on_another_grid, "another grid than the image"),
    (of_another_shape, "another grid than the image"),
    (without_labels, "holds no label"),
    (with_the_image_as_labels, "not whole numbers|labels from 0 to 255"),
    (lambda folder: shutil.rmtree(folder / "labels"), "There is no folder"),
    (lambda folder: with_nan(folder / "images" / "abdomen.nii.gz"), "not finite"),
    (lambda folder: truncated(folder / "labels" / "abdomen.nii.gz"), "cannot be unpacked"),
]


@pytest.mark.parametrize("command", ["evaluate", "train"])
@pytest.mark.parametrize(("spoil", "says"), BAD_CASES)
def test_a_bad_labelled_case_is_refused(
    data: Path, tmp_path: Path, refuse: Refusal, command: str, spoil: Callable[[Path], object], says: str
) -> None:
    folder = copied(data, tmp_path / "data")
    spoil(folder)
    options = ["--images", folder / "images", "--labels", folder / "labels", "--label-names", LABEL_NAMES]
    if command == "train":
        options += ["-o", refuse.out / "p.safetensors", "--image-size", 128]
    else:
        options += ["--report", refuse.out / "scores.json"]
    refuse(command, *options, "--device", "cpu", says=says)


def test_no_labels_for_any_image_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = copied(data, tmp_path / "data")
    with_other_names(folder)
    options = ["--images", str(folder / "images"), "--labels", str(folder / "labels")]
    assert main(["evaluate", *options, "--label-names", LABEL_NAMES]) == 2
    assert "has a label map of the same name" in capsys.readouterr().err
    assert "abdomen.nii.gz has no label map" in caplog.text


BAD_TRAININGS: list[tuple[list[str], str]] = [
    (["--label-names", "spleen=1"], "is not a label name"),
    (["--label-names", "7=tail"], "holds none of: tail"),
    (["--organs", "pancreas"], "No case has labels for: pancreas"),
    (["--iterations", "0"], "at least one iteration"),
    (["--minutes", "0"], "more than 0 minutes"),
    (["--seed", "-1"], "seed must be 0"),
    (["--image-size", "100"], "multiple of 32"),
    (["--backbone", "resnet"], "no weights called resnet"),
    (["--backbone", "abdomen"], "abdomen"),
    (["--device", "cuda:99"], "no device cuda:99"),
    (["--kind", "magic"], "invalid choice"),
    (["--batch", "0"], "batch must be 1"),
    (["--learning-rate", "0"], "learning rate must be more than 0"),
    (["--set", "training.nothing=1"], 'no setting "training.nothing"'),
    (["--set", "training.batch"], "sets nothing"),
    (["--config", "nowhere.json"], "nowhere.json cannot be read"),
    (["--validation", "nobody"], "no case nobody to hold out"),
    (["--label-names", "nowhere.json"], "nowhere.json cannot be read as JSON"),
    (["--finish"], "no unfinished run"),
]


@pytest.mark.parametrize(("options", "says"), BAD_TRAININGS, ids=[" ".join(o) for o, _ in BAD_TRAININGS])
def test_a_training_that_cannot_be_is_refused(
    data: Path, refuse: Refusal, options: list[str], says: str
) -> None:
    command = [*training_on(data, refuse.out), "--label-names", LABEL_NAMES, "--image-size", 128]
    refuse(*command, *options, says=says)


def test_a_training_without_data_or_with_a_wrong_ending_is_refused(data: Path, refuse: Refusal) -> None:
    refuse("train", "-o", refuse.out / "p.safetensors", says="There are no labelled cases")
    some = ["--images", data / "images", "--labels", data / "labels"]
    refuse("train", *some[:2], "-o", refuse.out / "p.safetensors", says="belong together")
    refuse("train", *some, "-o", refuse.out / "p.safetensors", says="does not say what its labels are")
    refuse("train", *some, "--label-names", LABEL_NAMES, says="where to write the prior")
    names = ["--label-names", LABEL_NAMES]
    refuse("train", *some, *names, "-o", refuse.out / "p.pt", says="ends in .safetensors")
    refuse(
        "train", "--data", refuse.out, "-o", refuse.out / "p.safetensors", says="There is no .*dataset.json"
    )


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"labels": {}}', '{"labels": {"spleen": "1"}}', '{"labels": {"spleen": 300}}'],
)
def test_a_bad_label_table_is_refused(data: Path, tmp_path: Path, refuse: Refusal, content: str) -> None:
    folder = copied(data, tmp_path / "data")
    (folder / "dataset.json").write_text(content)
    refuse("evaluate", "--data", folder, says="dataset.json")


def test_a_bad_split_is_refused(data: Path, tmp_path: Path, refuse: Refusal) -> None:
    split = tmp_path / "split.json"
    for content in ("", "{}", '{"train": 3}'):
        split.write_text(content)
        refuse("evaluate", "--data", data, "--split", split, says="split file")
        weights = refuse.out / "backbone.safetensors"
        refuse("pretrain-backbone", "--split", split, "-o", weights, says="split file")


def test_a_pretraining_that_cannot_be_is_refused(tmp_path: Path, refuse: Refusal) -> None:
    split = tmp_path / "split.json"
    split.write_text('{"name": "n", "note": "", "train": [], "development": [], "test": []}')
    command = ["pretrain-backbone", "--split", split]
    weights = refuse.out / "w.safetensors"
    refuse(*command, "-o", weights, "--procedural", "0", says="nothing to train on")
    refuse(*command, "-o", weights, "--data", tmp_path / "nowhere", says="There is no .*dataset.json")
    refuse(*command, "-o", weights, "--minutes", "0", says="more than 0 minutes")
    refuse(*command, "-o", refuse.out / "w.pt", says="ends in .safetensors")


@pytest.mark.parametrize("kind", ["garbage", "pickled", "other"])
def test_a_checkpoint_that_does_not_fit_is_refused_and_kept(
    data: Path, tmp_path: Path, refuse: Refusal, kind: str
) -> None:
    checkpoint, trap = refuse.out / "p.training", tmp_path / "sprung"
    if kind == "garbage":
        checkpoint.write_bytes(b"half a run")
    else:
        torch.save({"prior": Trap(trap)} if kind == "pickled" else {"prior": {}}, checkpoint)
    command = training_on(data, refuse.out)
    command += ["--label-names", LABEL_NAMES, "--image-size", 128, "--device", "cpu"]
    refuse(*command, says="Go on with --resume")
    says = "other organs or another network" if kind == "other" else "no run that can be resumed"
    refuse(*command, "--resume", says=says)
    assert not trap.exists()
