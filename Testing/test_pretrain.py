"""Pretraining the compact backbone from data sets on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cases import small_abdomen, write_case
from pretraining_cases import make_training, small_stack
from safetensors import safe_open

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.labelled_files import LabelledFiles, read_dataset
from DiffuSAMLib.labelled_stacks import LabelledStack
from DiffuSAMLib.pretrain import ORGANS, pretrain_backbone, pretrained_organs, shares_of
from DiffuSAMLib.pretraining_config import PretrainingConfig
from DiffuSAMLib.splits import Split, save_split
from DiffuSAMLib.stack_pool import SHARES
from DiffuSAMLib.weights import BACKBONE_KEY, load_backbone, load_prior


@pytest.fixture(scope="module")
def stack() -> LabelledStack:
    return small_stack()


@pytest.fixture
def brain(tmp_path: Path) -> Path:
    """A data set whose labels are none of the abdomen's organs, and its split."""
    for name in ("one", "two"):
        write_case(tmp_path / "brain", name, small_abdomen())
    table = {"anterior_hippocampus": 1, "posterior_hippocampus": 2}
    (tmp_path / "brain" / "dataset.json").write_text(json.dumps({"labels": table}))
    for name in ("one", "two"):
        save_split(Split(name, (name,), (), (), "for the tests"), tmp_path / f"{name}.json")
    return tmp_path


def test_other_organs_follow_those_of_the_abdomen(brain: Path) -> None:
    organs = pretrained_organs(read_dataset(brain / "brain"))
    assert organs == (*ORGANS, "anterior hippocampus", "posterior hippocampus")
    assert pretrained_organs([LabelledFiles("a", brain, brain, {1: "liver", 2: "spleen"})]) == ORGANS


def test_a_handful_of_cases_is_not_most_of_what_is_seen(stack: LabelledStack) -> None:
    assert shares_of([stack] * 10)["CT"] == SHARES["CT"]
    assert shares_of([stack] * 2)["CT"] == pytest.approx(SHARES["CT"] / 5)
    assert shares_of([stack])["procedural"] == SHARES["procedural"]


def test_a_backbone_continues_from_another_and_remembers_its_cases(brain: Path) -> None:
    first, second = brain / "first.safetensors", brain / "second.safetensors"
    options = {"procedural": 0, "settings": {"minutes": 0.0001}}
    pretrain_backbone([brain / "brain"], brain / "one.json", first, **options)  # type: ignore[arg-type]
    pretrain_backbone([brain / "brain"], brain / "two.json", second, start=first, **options)  # type: ignore[arg-type]
    begun, ended = (load_backbone("compact", path=path) for path in (first, second))
    assert begun.training_cases == ("one",)
    assert ended.training_cases == ("one", "two")
    with safe_open(first, "pt") as file:
        recipe = json.loads(file.metadata()[BACKBONE_KEY])["recipe"]
    assert recipe == PretrainingConfig(minutes=0.0001).to_dict()
    assert next(iter(recipe)) == "schema_version"
    # One step with a small learning rate: near where it began, but not there.
    pairs = list(zip(begun.backbone.parameters(), ended.backbone.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert max(float((a - b).abs().max()) for a, b in pairs) < 0.05


def test_a_case_of_the_split_that_no_folder_has_is_told(brain: Path) -> None:
    split, output = brain / "split.json", brain / "backbone.safetensors"
    save_split(Split("split", ("one", "three"), (), (), "for the tests"), split)
    with pytest.raises(InputError, match=r"in no --data folder: three\."):
        pretrain_backbone([brain / "brain"], split, output, procedural=1, settings={"minutes": 0.0001})
    assert not output.exists()


def test_what_the_prior_of_the_outlines_has_seen_counts_as_seen(brain: Path) -> None:
    output = brain / "backbone.safetensors"
    pretrain_backbone(
        [brain / "brain"],
        brain / "one.json",
        output,
        procedural=0,
        settings={"minutes": 0.0001},
        start="compact",
        outlines="abdomen",
    )
    before = load_prior("abdomen")
    after = load_prior(brain / "backbone-start.safetensors", backbone_path=output)
    for seen in (after.backbone.training_cases, after.header.training["cases"]):
        assert set(seen) == {"one", *before.training_cases}
    # One step with a small learning rate; organs that the earlier prior knows keep their weights by name.
    organ = after.prior.config.organs.index("liver")
    heads = after.prior.outline_decoder.head.weight[organ], before.prior.outline_decoder.head.weight[3]
    torch.testing.assert_close(*heads, atol=5e-3, rtol=0)


def test_an_interrupted_pretraining_is_saved(
    stack: LabelledStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = tmp_path / "b.training"
    training = make_training(stack, checkpoint)
    step = training._step

    def one_step(pairs: int, size: int) -> dict[str, float]:
        if training.steps:
            raise KeyboardInterrupt
        return step(pairs, size)

    monkeypatch.setattr(training, "_step", one_step)
    with pytest.raises(KeyboardInterrupt):
        training.run()
    other = make_training(stack, checkpoint, seed=5)
    other._resume()
    assert other.steps == 1
    for name, value in training.backbone.state_dict().items():
        assert torch.equal(other.backbone.state_dict()[name], value), name
    different = make_training(stack, checkpoint)
    different.record = "of other cases"
    with pytest.raises(InputError, match="another network"):
        different._resume()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minuts": 3}, 'no setting "minuts"'),
        ({"intensity.power": 3}, 'no setting "intensity.power"'),
        ({"pairs": "many"}, "whole number"),
        ({"pairs": 0}, "pairs must be 1 or more"),
        ({"minutes": 0}, "more than 0 minutes"),
        ({"small_part": 1.5}, "small_part must be 0 to 1"),
        ({"small_size": 100}, "multiple of 32"),
        ({"intensity.strength": 9}, "strength"),
    ],
)
def test_settings_that_cannot_be_are_refused_first(
    brain: Path, settings: dict[str, object], message: str
) -> None:
    output = brain / "backbone.safetensors"
    with pytest.raises(InputError, match=message):
        pretrain_backbone([brain / "brain"], brain / "one.json", output, procedural=0, settings=settings)
    assert not output.exists()
