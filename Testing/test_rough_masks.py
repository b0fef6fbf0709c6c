from __future__ import annotations

import torch
from torch import Tensor

from DiffuSAMLib.rough_masks import LEAST_DICE, rough_masks


def rough(masks: Tensor, seed: int = 0) -> Tensor:
    return rough_masks(masks, torch.Generator().manual_seed(seed))


def dice(one: Tensor, other: Tensor) -> Tensor:
    return 2 * (one * other).sum((1, 2, 3)) / (one.sum((1, 2, 3)) + other.sum((1, 2, 3)))


def squares(count: int, side: int, *, size: int = 128) -> Tensor:
    masks = torch.zeros(count, 1, size, size)
    masks[..., 40 : 40 + side, 40 : 40 + side] = 1
    return masks


def test_they_are_near_the_true_ones_but_differ() -> None:
    masks = squares(60, 50)
    overlap = dice(masks, found := rough(masks))
    assert found.shape == masks.shape
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert overlap.min() > 0.5
    assert 0.75 < overlap.mean() < 0.97


def test_some_are_larger_and_some_smaller() -> None:
    masks = squares(60, 50)
    areas = rough(masks).sum((1, 2, 3)) / masks[0].sum()
    assert areas.min() < 0.95
    assert areas.max() > 1.05


def test_some_lack_a_piece() -> None:
    masks = squares(60, 50)
    quarters = [rough(masks)[..., y : y + 25, x : x + 25].mean((1, 2, 3)) for y in (40, 65) for x in (40, 65)]
    least = torch.stack(quarters).amin(0)
    assert 0.1 < (least < 0.5).float().mean() < 0.5


def test_a_notch_is_lost_in_many() -> None:
    masks = squares(60, 40)
    masks[..., 56:60, 40:60] = 0
    filled = rough(masks)[..., 56:60, 48:56].mean((1, 2, 3))
    assert (filled > 0.9).float().mean() > 0.2


def test_one_that_would_not_be_known_again_stays_as_it_is() -> None:
    masks = squares(60, 2)
    overlap = dice(masks, rough(masks))
    assert overlap.min() >= LEAST_DICE
    assert (overlap == 1).any()


def test_nothing_stays_nothing() -> None:
    assert not rough(torch.zeros(3, 1, 64, 64)).any()


def test_the_seed_decides() -> None:
    masks = squares(8, 50)
    assert torch.equal(rough(masks, 1), rough(masks, 1))
    assert not torch.equal(rough(masks, 1), rough(masks, 2))
