from __future__ import annotations

import torch

from DiffuSAMLib.damaged_masks import damage_masks


def test_they_are_near_the_true_ones_but_differ() -> None:
    mask = torch.zeros(40, 1, 128, 128)
    mask[..., 40:90, 40:90] = 1
    damaged = damage_masks(mask, torch.Generator().manual_seed(0))
    assert set(damaged.unique().tolist()) == {0.0, 1.0}
    overlap = 2 * (mask * damaged).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) + damaged.sum((1, 2, 3)))
    assert overlap.min() > 0.75
    assert overlap.mean() < 0.98
    areas = damaged.sum((1, 2, 3)) / mask[0].sum()
    assert areas.min() < 0.97
    assert areas.max() > 1.03
    assert not damage_masks(torch.zeros(2, 1, 64, 64), torch.Generator().manual_seed(0)).any()
