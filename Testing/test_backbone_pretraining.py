from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import ORGANS, small_abdomen
from torch import Tensor

from DiffuSAMLib.augmentation import IntensityAugmentation, SpatialAugmentation
from DiffuSAMLib.backbone_pretraining import (
    BackbonePretraining,
    DenseHead,
    PairSampler,
    PretrainingConfig,
    dense_loss,
)
from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.datasets import LabelledStack, to_stack
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.procedural import make_shapes
from DiffuSAMLib.stack_pool import StackPool

SIDE = 64
PLAIN = PretrainingConfig(
    minutes=1.0,
    small_size=32,
    pairs=2,
    objects=2,
    spatial=SpatialAugmentation(rotation=0, scale=0, shift=0, elastic=0),
    intensity=IntensityAugmentation(cross_modality=0, strength=0),
)


@pytest.fixture(scope="module")
def stack() -> LabelledStack:
    abdomen = small_abdomen()
    names = dict(enumerate(ORGANS, start=1))
    organs = (*ORGANS, "pancreas")
    return to_stack(abdomen.volume, abdomen.labels.array, names, name="a", organs=organs, size=SIDE)


def make_training(
    stack: LabelledStack, checkpoint: Path, *, config: PretrainingConfig = PLAIN, seed: int = 0
) -> BackbonePretraining:
    torch.manual_seed(seed)
    return BackbonePretraining(
        Backbone("compact", image_size=SIDE),
        PairSampler(StackPool([stack]), config),
        organs=5,
        config=config,
        checkpoint=checkpoint,
    )


def test_pairs_are_neighbours_of_one_scan(stack: LabelledStack) -> None:
    sampler = PairSampler(StackPool([stack]), replace(PLAIN, farthest=2))
    own = stack.images()
    for _ in range(5):
        images, labels, known, distance = sampler.draw(4, SIDE)
        assert images.shape == (8, 3, SIDE, SIDE)
        assert labels.shape == (8, SIDE, SIDE)
        assert known.tolist() == [[True, True, True, True, False]] * 8
        assert distance in (1, 2)
        numbers = [
            next(n for n in range(len(own)) if np.array_equal(stack.labels[n], label)) for label in labels
        ]
        for first, second in zip(numbers[:4], numbers[4:], strict=True):
            assert abs(first - second) == distance


def test_both_slices_of_a_pair_move_and_change_alike(stack: LabelledStack) -> None:
    """Of a stack whose slices are all the same, both slices of a pair stay the same but for noise."""
    same = replace(
        stack,
        slices=np.repeat(stack.slices[4:5], 5, axis=0),
        labels=np.repeat(stack.labels[4:5], 5, axis=0),
    )
    sampler = PairSampler(StackPool([same]), PretrainingConfig())
    images, labels, _, _ = sampler.draw(6, SIDE)
    assert torch.equal(labels[:6], labels[6:])
    difference = (images[:6] - images[6:]).abs().mean((1, 2, 3))
    assert (difference < 0.08).all()
    assert (images[0] - images[1]).abs().mean() > 0.02


def test_shapes_join_without_known_organs(stack: LabelledStack) -> None:
    sampler = PairSampler(StackPool([stack]), PLAIN, shapes=make_shapes)
    drawn = [sampler.draw(8, 32) for _ in range(8)]
    known = torch.cat([batch[2] for batch in drawn])
    shapes = ~known.any(1)
    assert 0.01 < shapes.float().mean() < 0.3
    assert all(batch[0].shape == (16, 3, 32, 32) for batch in drawn)
    assert all(0 <= batch[0].min() <= batch[0].max() <= 1 for batch in drawn)


def test_objects_are_mostly_some_that_the_pair_shows(stack: LabelledStack) -> None:
    sampler = PairSampler(StackPool([stack]), PLAIN)
    labels = torch.zeros(4, SIDE, SIDE, dtype=torch.int64)
    labels[0, :8] = 2
    labels[3, :8] = 4
    rows, values = sampler.objects(labels, organs=5, count=3)
    assert rows.tolist() == [0, 0, 0, 1, 1, 1]
    drawn = [sampler.objects(labels, organs=5, count=3)[1] for _ in range(40)]
    assert values.shape == (6,)
    first = torch.cat([d[:3] for d in drawn])
    second = torch.cat([d[3:] for d in drawn])
    assert (first == 2).float().mean() > 0.8
    assert (second == 4).float().mean() > 0.8
    assert set(torch.cat((first, second)).tolist()) <= {1, 2, 3, 4, 5}
    assert (first != 2).any()


def one_hot_logits(labels: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, classes).permute(0, 3, 1, 2).float() * 20


def test_the_dense_loss_wants_the_organ_of_every_pixel() -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[0, 8:24, 8:24] = 2
    coarse = labels[:, 4::8, 4::8]
    known = torch.ones(1, 3, dtype=torch.bool)
    assert dense_loss(one_hot_logits(coarse, 4), labels, known) < 1e-3
    assert dense_loss(one_hot_logits(torch.zeros_like(coarse), 4), labels, known) > 1


def test_an_organ_that_is_not_labelled_may_be_seen_in_the_background() -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    sees_third = one_hot_logits(torch.full((1, 4, 4), 3), 4)
    assert dense_loss(sees_third, labels, torch.tensor([[True, True, False]])) < 1e-3
    assert dense_loss(sees_third, labels, torch.tensor([[True, True, True]])) > 1


def test_mere_shapes_teach_no_organs() -> None:
    logits = torch.randn(2, 4, 4, 4, requires_grad=True)
    loss = dense_loss(logits, torch.ones(2, 32, 32, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_dense_head_names_pixels_at_stride_8() -> None:
    backbone = Backbone("compact", image_size=SIDE)
    features = backbone.encode_image(torch.rand(2, 3, SIDE, SIDE))
    assert DenseHead(backbone.feature_channels, 6)(features).shape == (2, 6, SIDE // 8, SIDE // 8)


def test_the_losses_fall(stack: LabelledStack, tmp_path: Path) -> None:
    training = make_training(stack, tmp_path / "b.training")
    for group in training.optimizer.param_groups:
        group["lr"] = 2e-3
    losses = [training._step(4, 32) for _ in range(24)]
    for name in ("self", "neighbour", "both", "dense"):
        values = [step[name] for step in losses]
        # Steps differ much in how hard their few pairs are.
        assert np.mean(values[-8:]) < 0.8 * np.mean(values[:4]), name


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


def test_a_checkpoint_of_another_run_is_refused(stack: LabelledStack, tmp_path: Path) -> None:
    checkpoint = tmp_path / "b.training"
    checkpoint.write_bytes(b"no run")
    with pytest.raises(InputError, match="no run that can be resumed"):
        make_training(stack, checkpoint).run()
    torch.save({"backbone": {}}, checkpoint)
    with pytest.raises(InputError, match="another network"):
        make_training(stack, checkpoint).run()
