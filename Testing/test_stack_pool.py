from __future__ import annotations

import numpy as np
import pytest

from DiffuSAMLib.labelled_stacks import LabelledStack, Origin
from DiffuSAMLib.stack_pool import SHARES, StackPool, kind_of


def a_stack(name: str, modality: str, *, origin: Origin = "scan") -> LabelledStack:
    labels = np.zeros((10, 8, 8), np.uint8)
    labels[3:5, 2:4, 2:4] = 1
    labels[7, 5:7, 5:7] = 2
    slices = np.full((10, 8, 8), 128, np.uint8)
    return LabelledStack(name, modality, slices, labels, np.array([True, True]), (1.0, 1.0, 1.0), origin)


def test_kinds_of_data_are_drawn_by_their_shares_whatever_their_numbers() -> None:
    stacks = [a_stack(f"ct{n}", "CT") for n in range(6)]
    stacks += [a_stack("mr", "MR"), a_stack("made", "CT", origin="procedural")]
    stacks += [a_stack("ct0, twin 0", "MR", origin="twin")]
    pool, rng = StackPool(stacks), np.random.default_rng(0)
    drawn = [pool.draw(rng, organ_share=0.5)[0] for _ in range(4000)]
    kinds = [kind_of(stack) for stack in drawn]
    for kind, share in SHARES.items():
        assert kinds.count(kind) / len(kinds) == pytest.approx(share / sum(SHARES.values()), abs=0.03)


def test_an_organ_share_of_one_draws_only_slices_that_show_an_organ_and_organs_evenly() -> None:
    pool, rng = StackPool([a_stack("ct", "CT")]), np.random.default_rng(0)
    numbers = np.array([pool.draw(rng, organ_share=1.0)[1] for _ in range(1000)])
    assert set(numbers) == {3, 4, 7}
    assert (numbers == 7).mean() == pytest.approx(0.5, abs=0.06)


def test_an_organ_share_of_zero_draws_all_slices() -> None:
    pool, rng = StackPool([a_stack("ct", "CT")]), np.random.default_rng(0)
    assert {pool.draw(rng, organ_share=0.0)[1] for _ in range(500)} == set(range(10))


def test_a_stack_whose_slices_are_all_held_out_is_never_drawn() -> None:
    stacks = [a_stack(name, "CT") for name in "ab"]
    pool, rng = StackPool(stacks, blocked={"a": range(10)}), np.random.default_rng(0)
    assert {pool.draw(rng, organ_share=0.5)[0].name for _ in range(100)} == {"b"}
    # Nor is its kind.
    pool = StackPool([a_stack("a", "MR"), stacks[1]], blocked={"a": range(10)})
    assert {pool.draw(rng, organ_share=0.5)[0].name for _ in range(100)} == {"b"}


def test_a_pool_knows_the_size_and_the_organs() -> None:
    pool = StackPool([a_stack("ct", "CT")])
    assert pool.size == 8
    assert pool.organs == 2
