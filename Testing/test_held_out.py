from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from cases import a_stack

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.held_out import HeldOut, ValidationConfig, choose_held_out
from DiffuSAMLib.labelled_stacks import LabelledStack
from DiffuSAMLib.stack_pool import StackPool

CONFIG = ValidationConfig()
ORGANS = ("spleen", "liver", "tumour")


def chosen(stacks: Sequence[LabelledStack], config: ValidationConfig = CONFIG) -> HeldOut | None:
    return choose_held_out(stacks, config, organs=ORGANS)


def test_of_four_cases_the_last_that_shows_all_organs_is_held_out() -> None:
    stacks = [a_stack("a"), a_stack("b"), a_stack("c"), a_stack("d", organs=1)]
    held_out = chosen(stacks)
    assert held_out is not None
    assert (held_out.stack.name, held_out.blocked) == ("c", None)
    assert len(held_out.numbers) == 12
    assert (held_out.numbers[0], held_out.numbers[-1]) == (2, 17)


def showing(*organs: set[int]) -> list[LabelledStack]:
    """Cases a, b, ... that show these organs on some slices each."""
    every = {1: (20, 21, 60), 2: (22, 23, 70), 3: (24, 25, 26)}
    tables = [{organ: every[organ] if organ in shown else () for organ in every} for shown in organs]
    return [sparse_stack(name, table) for name, table in zip("abcd", tables, strict=True)]


def test_the_only_case_that_shows_an_organ_is_learnt_from() -> None:
    stacks = showing({1, 2}, {1, 2, 3}, {1, 2}, {1})
    held_out = chosen(stacks)
    assert held_out is not None
    assert (held_out.stack.name, held_out.blocked) == ("c", None)
    with pytest.raises(InputError, match=r"case b cannot be held out: fewer than 2 slices .* show tumour"):
        chosen(stacks, ValidationConfig(held_out="b"))


def test_where_every_case_is_needed_a_block_is_held_out() -> None:
    most = replace(a_stack("most", slices=40, first=2, last=38, organs=1), known=np.ones(3, bool))
    held_out = chosen([most, *showing({2}, {3}, set(), set())])
    assert held_out is not None
    assert held_out.stack is most
    assert held_out.blocked is not None


def test_a_case_is_found_however_its_accents_are_stored() -> None:
    name = unicodedata.normalize("NFC", "fälle1")
    stacks = [replace(a_stack("a"), name=name), a_stack("b")]
    held_out = chosen(stacks, ValidationConfig(held_out=unicodedata.normalize("NFD", name)))
    assert held_out is not None
    assert held_out.stack is stacks[0]


def sparse_stack(name: str, organs: dict[int, tuple[int, ...]], *, slices: int = 120) -> LabelledStack:
    """Each organ on the slices given alone."""
    labels = np.zeros((slices, 64, 64), np.uint8)
    for organ, numbers in organs.items():
        labels[list(numbers), 20:40, 10 * organ : 10 * organ + 8] = organ
    return LabelledStack(name, "CT", labels, labels, np.ones(len(organs), bool), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("organs", "slices", "showing"),
    [
        ({1: (20, 21, 60, 61)}, 12, 1),
        ({1: (20, 21, 60, 61)}, 1, 1),
        ({1: tuple(range(10, 110)), 2: (33,), 3: (77, 78)}, 12, 3),
        ({1: (20,), 2: (50,), 3: (50, 90)}, 2, 3),
        ({1: (20,), 2: (50,), 3: (90,)}, 2, 2),
    ],
)
def test_slices_of_a_held_out_case_show_every_organ_that_so_many_can(
    organs: dict[int, tuple[int, ...]], slices: int, showing: int
) -> None:
    stacks = [sparse_stack(name, organs) for name in "abcd"]
    held_out = chosen(stacks, ValidationConfig(slices=slices))
    assert held_out is not None
    assert len(held_out.numbers) == len(set(held_out.numbers)) == slices
    assert list(held_out.numbers) == sorted(held_out.numbers)
    shown = {organ for organ, numbers in organs.items() if set(numbers) & set(held_out.numbers)}
    assert len(shown) >= showing
    if showing == len(organs) and slices == 12:
        # The others stay where they were: over the labels and a sixth of their length around them.
        filled = sorted({number for numbers in organs.values() for number in numbers})
        around = (filled[-1] - filled[0] + 1) // 6
        assert held_out.numbers[0] == max(0, filled[0] - around)
        assert held_out.numbers[-1] == min(119, filled[-1] + around)


def test_a_named_case_that_shows_nothing_cannot_be_held_out() -> None:
    stacks = [a_stack("a"), sparse_stack("b", {1: (), 2: ()})]
    with pytest.raises(InputError, match=r"case b cannot be held out: none of its slices"):
        chosen(stacks, ValidationConfig(held_out="b"))


def test_of_fewer_cases_a_block_of_slices_is_held_out_and_never_drawn() -> None:
    stacks = [a_stack("a"), a_stack("b", first=2, last=18)]
    held_out = chosen(stacks)
    assert held_out is not None
    assert held_out.stack.name == "b"
    assert held_out.blocked == range(held_out.numbers[0], held_out.numbers[-1] + 1)
    assert len(held_out.numbers) == 2
    pool, rng = StackPool(stacks, blocked={"b": held_out.blocked}), np.random.default_rng(0)
    draws = [pool.draw(rng, organ_share=0.6) for _ in range(500)]
    assert not {number for stack, number in draws if stack.name == "b"} & set(held_out.numbers)


def test_of_tiny_sets_nothing_is_held_out() -> None:
    assert chosen([a_stack("a", slices=6, first=1, last=5)], CONFIG) is None
    assert chosen([], CONFIG) is None
    assert chosen([a_stack(name) for name in "abcd"], ValidationConfig(held_out="none")) is None


def test_a_block_leaves_enough_of_every_organ_to_learn() -> None:
    stack = a_stack("a", slices=40, first=2, last=38)
    rare = stack.labels.copy()
    rare[rare == 2] = 0
    rare[18:20, 20:40, 30:38] = 2
    held_out = chosen([LabelledStack("a", "CT", stack.slices, rare, stack.known, (1.0, 1.0, 1.0))], CONFIG)
    assert held_out is not None
    assert not {18, 19} & set(held_out.numbers)


def test_a_case_can_be_named() -> None:
    stacks = [a_stack("a"), a_stack("b")]
    held_out = chosen(stacks, ValidationConfig(held_out="a"))
    assert held_out is not None
    assert (held_out.stack.name, held_out.blocked) == ("a", None)
    with pytest.raises(InputError, match="no case c to hold out"):
        chosen(stacks, ValidationConfig(held_out="c"))
    with pytest.raises(InputError, match="only case"):
        chosen(stacks[:1], ValidationConfig(held_out="a"))
