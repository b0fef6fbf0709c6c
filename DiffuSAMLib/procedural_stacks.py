"""Procedural abdomens as training slices."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from .labelled_stacks import LabelledStack, to_stack
from .procedural import make_abdomen
from .procedural_mr import MRSequence

# Those for training start here; the demo and the tests use smaller seeds.
FIRST_SEED = 1000
MODALITIES = ("CT", "MR")
# Of the even seeds that are no multiples of 3.
_SEQUENCES: dict[int, MRSequence] = {2: "T1", 10: "T1", 20: "T2"}


def procedural_stacks(
    count: int, *, organs: Sequence[str], size: int, real: Collection[str] = ()
) -> list[LabelledStack]:
    """The first `count` abdomens for training, every third with tissues of random brightness.

    They show what real cases do not: MR beside real CT, CT beside real MR, both in turn beside both or neither. Most MR
    are T2-weighted with suppressed fat; three in eight show it bright.

    Args:
        count: How many.
        organs: Organ names, in the order of the label numbers.
        size: Side of the slices in pixels.
        real: Modalities of the real cases.
    """
    missing = [modality for modality in MODALITIES if modality not in real] or MODALITIES
    seeds = itertools.count(FIRST_SEED)
    chosen = itertools.islice((seed for seed in seeds if _modality(seed) in missing), count)
    return [_stack(seed, organs, size) for seed in chosen]


def _modality(seed: int) -> Literal["CT", "MR"]:
    return "CT" if seed % 2 else "MR"


def _stack(seed: int, organs: Sequence[str], size: int) -> LabelledStack:
    modality = _modality(seed)
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
    return replace(stack, origin="procedural")
