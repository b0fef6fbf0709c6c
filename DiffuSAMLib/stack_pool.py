"""Labelled stacks to draw training slices from: kinds of data evenly, organs evenly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from .datasets import LabelledStack

# How often each kind of data is drawn, where all are there.
SHARES = {"CT": 0.4, "MR": 0.25, "procedural": 0.35}


class StackPool:
    """Stacks with their images in memory.

    Args:
        stacks: Of real cases and procedural abdomens.
    """

    def __init__(self, stacks: Sequence[LabelledStack]) -> None:
        kinds: dict[str, list[LabelledStack]] = {}
        for stack in stacks:
            kinds.setdefault("procedural" if stack.procedural else stack.modality, []).append(stack)
        self._groups = list(kinds.values())
        shares = np.array([SHARES[kind] for kind in kinds])
        self._shares = shares / shares.sum()
        self._images = {id(stack): stack.images() for stack in stacks}
        self._showing = {
            id(stack): [
                np.flatnonzero((stack.labels == value).any((1, 2)))
                for value in np.unique(stack.labels)
                if value
            ]
            for stack in stacks
        }
        self.organs = len(stacks[0].known)
        self.size: int = stacks[0].slices.shape[-1]

    def images(self, stack: LabelledStack) -> Tensor:
        """float32 `(n, s, s)` in `[0, 1]`."""
        return self._images[id(stack)]

    def draw(self, rng: np.random.Generator, *, organ_share: float) -> tuple[LabelledStack, int]:
        """A stack and the number of one of its slices.

        Args:
            rng: Decides.
            organ_share: How often the slice is drawn from those that show some organ, drawn first.
        """
        group = self._groups[rng.choice(len(self._groups), p=self._shares)]
        stack = group[rng.integers(len(group))]
        if rng.random() < organ_share:
            showing = self._showing[id(stack)]
            return stack, int(rng.choice(showing[rng.integers(len(showing))]))
        return stack, int(rng.integers(len(stack.slices)))
