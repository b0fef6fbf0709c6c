from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pretraining_cases import PLAIN, SIDE, small_stack

from DiffuSAMLib.labelled_stacks import LabelledStack
from DiffuSAMLib.pair_sampler import PairSampler
from DiffuSAMLib.pretraining_config import PretrainingConfig
from DiffuSAMLib.procedural_shapes import make_shapes
from DiffuSAMLib.stack_pool import StackPool


@pytest.fixture(scope="module")
def stack() -> LabelledStack:
    return small_stack()


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
