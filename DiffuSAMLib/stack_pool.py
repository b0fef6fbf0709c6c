"""Labelled stacks to draw training slices from: kinds of data evenly, organs evenly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .labelled_stacks import LabelledStack

# Weights, not frequencies: of the kinds that are there, each is drawn by its share of their sum.
SHARES = {"CT": 0.6, "MR": 0.3, "twin": 0.25, "procedural": 0.15}


def kind_of(stack: LabelledStack) -> str:
    """Which of the kinds of data a stack is."""
    return stack.modality if stack.origin == "scan" else stack.origin


class StackPool:
    """Stacks, and which of their slices show what.

    Args:
        stacks: Of real cases, their twins and procedural abdomens.
        blocked: Slices never to draw, by the name of their case; a stack of nothing else is left out.
        shares: How often each kind of data is drawn, in any unit.
    """

    def __init__(
        self,
        stacks: Sequence[LabelledStack],
        *,
        blocked: Mapping[str, range] | None = None,
        shares: Mapping[str, float] = SHARES,
    ) -> None:
        kinds: dict[str, list[LabelledStack]] = {}
        self._showing: dict[int, list[np.ndarray]] = {}
        self._free: dict[int, np.ndarray] = {}
        for stack in stacks:
            free = np.ones(len(stack.slices), bool)
            free[list((blocked or {}).get(stack.name, ()))] = False
            if not free.any():
                continue
            kinds.setdefault(kind_of(stack), []).append(stack)
            self._free[id(stack)] = np.flatnonzero(free)
            organs = [value for value in np.unique(stack.labels) if value]
            showing = [np.flatnonzero((stack.labels == value).any((1, 2)) & free) for value in organs]
            self._showing[id(stack)] = [numbers for numbers in showing if numbers.size]
        self._groups = list(kinds.values())
        weights = np.array([shares[kind] for kind in kinds])
        self._shares = weights / weights.sum()
        self.organs = len(stacks[0].known)
        self.size: int = stacks[0].slices.shape[-1]

    def draw(self, rng: np.random.Generator, *, organ_share: float) -> tuple[LabelledStack, int]:
        """A stack and the number of one of its slices.

        Args:
            rng: Decides.
            organ_share: How often the slice is drawn from those that show some organ, drawn first.
        """
        group = self._groups[rng.choice(len(self._groups), p=self._shares)]
        stack = group[rng.integers(len(group))]
        showing = self._showing[id(stack)]
        if rng.random() < organ_share and showing:
            return stack, int(rng.choice(showing[rng.integers(len(showing))]))
        return stack, int(rng.choice(self._free[id(stack)]))
