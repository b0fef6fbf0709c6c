from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from DiffuSAMLib.backbones import Backbone, mask_to_logits
from DiffuSAMLib.encoded_slices import EncodedBatch, EncodedSlices
from DiffuSAMLib.labelled_stacks import LabelledStack
from DiffuSAMLib.recipe import TrainingConfig
from DiffuSAMLib.slice_sampler import SliceSampler
from DiffuSAMLib.stack_pool import StackPool

SIDE = 64
CONFIG = TrainingConfig(batch=4, slice_uses=3)


def a_stack(slices: int = 6, *, known: tuple[bool, bool] = (True, True)) -> LabelledStack:
    """Label 1 on every slice, label 2 on every other one, the last slice empty."""
    labels = np.zeros((slices, SIDE, SIDE), np.uint8)
    labels[:, 20:40, 10:25] = 1
    labels[::2, 20:40, 35:50] = 2
    labels[-1] = 0
    noise = np.random.default_rng(0).integers(0, 60, labels.shape).astype(np.uint8)
    return LabelledStack("discs", "CT", noise + 70 * labels, labels, np.array(known), (1.0, 1.0, 1.0))


def encoded_slices(
    backbone: Backbone,
    config: TrainingConfig = CONFIG,
    stack: LabelledStack | None = None,
    *,
    reach_mm: float = 0.0,
) -> EncodedSlices:
    pool = StackPool([stack or a_stack()])
    sampler = SliceSampler(pool, config, context=backbone.slice_context, reach_mm=reach_mm)
    return EncodedSlices(sampler, backbone, training_steps=1000)


def numbers_of(slices: EncodedSlices, iteration: int) -> list[int]:
    """Which slices the batch of an iteration has."""
    batch = slices.batch(iteration)
    return [next(number for number, each in slices._kept.items() if each is choice.slice) for choice in batch]


def test_every_slice_is_used_as_often_as_asked(a_compact_backbone: Backbone) -> None:
    slices = encoded_slices(a_compact_backbone)
    used = Counter(number for iteration in range(60) for number in numbers_of(slices, iteration))
    settled = [used[number] for number in range(20, 70)]
    assert np.mean(settled) == pytest.approx(CONFIG.slice_uses, rel=0.1)


def test_with_one_use_every_slice_is_new(a_compact_backbone: Backbone) -> None:
    slices = encoded_slices(a_compact_backbone, replace(CONFIG, slice_uses=1))
    used = [number for iteration in range(5) for number in numbers_of(slices, iteration)]
    assert sorted(used) == list(range(20))


def test_a_slice_is_encoded_once(a_compact_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = encoded_slices(a_compact_backbone)
    counted = 0
    encode = a_compact_backbone.encode_image

    def counting(images: torch.Tensor) -> object:
        nonlocal counted
        counted += len(images)
        return encode(images)

    monkeypatch.setattr(a_compact_backbone, "encode_image", counting)
    used: set[int] = set()
    for iteration in range(20):
        slices.batch(iteration)
        used |= set(slices._kept)
    assert counted == len(used)
    assert len(slices._kept) <= len(slices.window(19)) + 1


def test_a_run_that_begins_later_meets_the_same_batch(a_compact_backbone: Backbone) -> None:
    first, later = (encoded_slices(a_compact_backbone) for _ in range(2))
    for iteration in range(8):
        expected = EncodedBatch.of(first.batch(iteration))
    found = EncodedBatch.of(later.batch(7))
    # A slice is not always encoded beside the same others.
    for name in ("memories", "timesteps", "noise", "organs", "masks"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), atol=1e-4, rtol=1e-4, msg=name
        )


def test_shares_make_up_the_whole_batch(a_compact_backbone: Backbone) -> None:
    slices = encoded_slices(a_compact_backbone)
    whole = EncodedBatch.of(slices.batch(3))
    parts = [EncodedBatch.of(slices.batch(3, share)) for share in (slice(0, 1), slice(1, 4))]
    for name in ("noise", "timesteps", "masks", "memories", "organs"):
        together = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(together, getattr(whole, name), msg=name)


def test_memories_are_those_of_the_true_masks(a_compact_backbone: Backbone) -> None:
    batch = EncodedBatch.of(encoded_slices(a_compact_backbone).batch(0))
    masks = batch.masks[torch.arange(len(batch.organs)), batch.organs][:, None]
    expected = a_compact_backbone.encode_memory(batch.features, mask_to_logits(masks))
    torch.testing.assert_close(batch.memories, expected, atol=1e-4, rtol=1e-4)


def test_slices_beside_come_with_the_slices_of_a_batch(a_compact_backbone: Backbone) -> None:
    slices = encoded_slices(a_compact_backbone, reach_mm=2.0)
    features = EncodedBatch.of(slices.batch(0)).features
    assert features.beside is not None
    for own, beside in zip(features.levels(), features.beside.levels(), strict=True):
        assert beside.shape == (own.shape[0], 2 * own.shape[1], *own.shape[2:])
    number = numbers_of(slices, 0)[0]
    slices.sampler.seek(number)
    drawn = slices.sampler.draw(1)
    assert drawn.below is not None
    assert drawn.above is not None
    with torch.no_grad():
        below, above = (a_compact_backbone.encode_image(each) for each in (drawn.below, drawn.above))
    expected = torch.cat((below.middle, above.middle), dim=1)
    torch.testing.assert_close(features.beside.middle[:1], expected, atol=1e-4, rtol=1e-4)


def test_of_a_slice_without_organs_their_absence_is_learnt(a_compact_backbone: Backbone) -> None:
    empty = a_stack()
    empty.labels[:] = 0
    slices = encoded_slices(a_compact_backbone, replace(CONFIG, absent_share=0.0), empty)
    choices = [choice for iteration in range(4) for choice in slices.batch(iteration)]
    assert {choice.organ for choice in choices} == {0, 1}
    for choice in choices:
        assert torch.equal(choice.slice.memory(choice.organ), choice.slice.absent)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_organs_that_are_not_there_are_learnt_as_often_as_asked(
    a_compact_backbone: Backbone, share: float
) -> None:
    stack = a_stack(7)
    stack.labels[stack.labels == 2] = 0
    stack.labels[-1] = 1
    slices = encoded_slices(a_compact_backbone, replace(CONFIG, absent_share=share), stack)
    organs = [choice.organ for iteration in range(8) for choice in slices.batch(iteration)]
    # With a share of 1, any of both organs.
    assert np.mean(organs) == pytest.approx(share / 2, abs=0.2)


def test_what_is_not_labelled_is_not_learnt(a_compact_backbone: Backbone) -> None:
    slices = encoded_slices(
        a_compact_backbone, replace(CONFIG, absent_share=1.0), a_stack(known=(True, False))
    )
    assert all(choice.organ == 0 for iteration in range(4) for choice in slices.batch(iteration))
