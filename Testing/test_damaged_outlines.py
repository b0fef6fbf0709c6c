from __future__ import annotations

import torch
from torch import Tensor

from DiffuSAMLib.damaged_outlines import damage_outlines, random_field


def two_organs() -> Tensor:
    parts = torch.zeros(2, 16, 32, 32)
    parts[0, 4:9, 8:20, 4:14] = 1
    parts[1, 6:12, 8:20, 18:28] = 1
    return parts


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_they_are_probabilities_of_one_organ_or_the_other() -> None:
    for seed in range(20):
        damaged = damage_outlines(two_organs(), torch.rand(16, 32, 32), generator(seed))
        assert damaged.shape == (2, 16, 32, 32)
        assert damaged.min() >= 0
        assert damaged.sum(0).max() <= 1 + 1e-5


def test_some_are_hardly_damaged_and_some_badly() -> None:
    parts = two_organs()
    wrong = [
        float(
            ((damage_outlines(parts, torch.rand(16, 32, 32), generator(seed)) > 0.5) != (parts > 0.5)).sum()
        )
        / float(parts.sum())
        for seed in range(40)
    ]
    assert min(wrong) < 0.3
    assert max(wrong) > 1


def test_organs_are_drawn_where_they_have_ended_and_missed_where_they_are() -> None:
    parts = two_organs()
    outlines = torch.stack(
        [damage_outlines(parts, torch.rand(16, 32, 32), generator(seed)) > 0.5 for seed in range(40)]
    )
    beyond, inside = outlines[:, 0, 9:12, 10:18, 6:12], outlines[:, 0, 5:8, 10:18, 6:12]
    assert beyond.flatten(1).float().mean(1).max() > 0.5
    assert inside.flatten(1).float().mean(1).min() < 0.5


def test_an_organ_that_is_not_there_may_stay_away() -> None:
    damaged = damage_outlines(torch.zeros(1, 12, 32, 32), torch.zeros(12, 32, 32), generator())
    assert torch.isfinite(damaged).all()


def test_the_same_seed_damages_alike() -> None:
    image = torch.rand(16, 32, 32, generator=generator())
    first, second = (damage_outlines(two_organs(), image, generator(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_field_is_smooth_and_of_deviation_1() -> None:
    field = random_field((12, 32, 32), (4, 8, 8), generator())
    assert field.shape == (12, 32, 32)
    torch.testing.assert_close(field.std(), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert (field[:, 1:] - field[:, :-1]).abs().mean() < 0.4
