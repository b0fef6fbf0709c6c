from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretraining_cases import PLAIN, SIDE, make_training, small_stack

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.labelled_stacks import LabelledStack


@pytest.fixture(scope="module")
def stack() -> LabelledStack:
    return small_stack()


def test_the_losses_fall(stack: LabelledStack, tmp_path: Path) -> None:
    training = make_training(stack, tmp_path / "b.training")
    for group in training.optimizer.param_groups:
        group["lr"] = 2e-3
    losses = [training._step(4, 32) for _ in range(24)]
    # Organs of few pixels, one of them without labels, have outlines whose Dice rises slowly.
    for name, part in {"self": 0.8, "neighbour": 0.8, "both": 0.8, "outlines": 0.95}.items():
        values = [step[name] for step in losses]
        # Steps differ much in how hard their few pairs are.
        assert np.mean(values[-8:]) < part * np.mean(values[:4]), name


def test_outlines_alone_are_learnt_from_too(stack: LabelledStack, tmp_path: Path) -> None:
    training = make_training(stack, tmp_path / "b.training")
    for group in training.optimizer.param_groups:
        group["lr"] = 2e-3
    losses = [training._outlines_step(8, 32) for _ in range(24)]
    assert all(step.keys() == {"outlines"} for step in losses)
    assert np.mean([step["outlines"] for step in losses[-8:]]) < 0.95 * losses[0]["outlines"]


def test_mere_shapes_teach_no_outlines(stack: LabelledStack, tmp_path: Path) -> None:
    training = make_training(stack, tmp_path / "b.training")
    features = training.backbone.encode_image(torch.rand(2, 3, SIDE, SIDE))
    labels, nothing = torch.ones(2, SIDE, SIDE, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.bool)
    loss = training._outline_loss(features, labels, nothing)
    assert loss == 0
    loss.backward()
    assert all(parameter.grad is None for parameter in training.outlines.parameters())


def test_a_step_also_runs_at_the_small_size(stack: LabelledStack, tmp_path: Path) -> None:
    training = make_training(stack, tmp_path / "b.training")
    assert all(np.isfinite(value) for value in training._step(2, 32).values())


def test_a_run_ends_in_time_and_resumes_from_its_checkpoint(stack: LabelledStack, tmp_path: Path) -> None:
    checkpoint = tmp_path / "new" / "b.training"
    first = make_training(stack, checkpoint, config=replace(PLAIN, minutes=0.002, small_part=1.0))
    averaged = first.run()
    assert first.steps >= 1
    assert 0.12 <= first.seconds < 30
    assert averaged.keys() == first.backbone.state_dict().keys()

    # More time, other weights at the start: what counts is the checkpoint.
    longer = replace(PLAIN, minutes=first.seconds / 60 + 0.002, small_part=1.0)
    second = make_training(stack, checkpoint, config=longer, seed=99)
    second._resume()
    for name, value in first.backbone.state_dict().items():
        assert torch.equal(second.backbone.state_dict()[name], value), name
    second.run()
    assert second.steps > first.steps
    assert second.seconds > first.seconds


def test_a_run_goes_on_with_the_settings_that_it_began_with(stack: LabelledStack, tmp_path: Path) -> None:
    checkpoint = tmp_path / "b.training"
    make_training(stack, checkpoint)._save()
    other = replace(PLAIN, minutes=2.0, pairs=3, spatial=replace(PLAIN.spatial, rotation=5))
    with pytest.raises(InputError, match=r"unfinished run with other settings: pairs, spatial\."):
        make_training(stack, checkpoint, config=other)._resume()
    make_training(stack, checkpoint, config=replace(PLAIN, minutes=2.0))._resume()


def test_a_checkpoint_of_another_run_is_refused(stack: LabelledStack, tmp_path: Path) -> None:
    checkpoint = tmp_path / "b.training"
    checkpoint.write_bytes(b"no run")
    with pytest.raises(InputError, match=r"no run that can be resumed\. Remove that file to begin anew\.$"):
        make_training(stack, checkpoint).run()
    torch.save({"backbone": {}}, checkpoint)
    with pytest.raises(InputError, match="another network"):
        make_training(stack, checkpoint).run()
