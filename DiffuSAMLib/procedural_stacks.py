"""Procedural abdomens as training slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from .datasets import LabelledStack, to_stack
from .procedural import make_abdomen
from .procedural_mr import MRSequence

# Those for training start here; the demo and the tests use smaller seeds.
FIRST_SEED = 1000
# Of the even seeds that are no multiples of 3.
_SEQUENCES: dict[int, MRSequence] = {2: "T1", 10: "T1", 20: "T2"}


def procedural_stacks(count: int, *, organs: Sequence[str], size: int) -> list[LabelledStack]:
    """The first `count` abdomens for training: CT and MR in turn, every third with tissues of random brightness.

    Most of the other MR are T2-weighted with suppressed fat; three in eight show it bright.

    Args:
        count: How many.
        organs: Organ names, in the order of the label numbers.
        size: Side of the slices in pixels.
    """
    return [_stack(FIRST_SEED + number, organs, size) for number in range(count)]


def _stack(seed: int, organs: Sequence[str], size: int) -> LabelledStack:
    modality: Literal["CT", "MR"] = "CT" if seed % 2 else "MR"
    pixel = float(np.random.default_rng(seed).uniform(1.5, 2.05))
    abdomen = make_abdomen(
        seed,
        modality=modality,
        shape=(48, 192, 192),
        spacing=(pixel, pixel, 5.0),
        appearance="random" if seed % 3 == 0 else "natural",
        sequence=_SEQUENCES.get(seed % 24, "T2 fat-suppressed"),
    )
    labels = abdomen.labels
    stack = to_stack(
        abdomen.volume, labels.array, labels.names, name=f"procedural_{seed}", organs=organs, size=size
    )
    return replace(stack, procedural=True)
