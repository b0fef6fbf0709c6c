"""What validations of a training found, and which weights they speak for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Validated:
    """One look at the held-out slices: when, and the Dice of each organ."""

    iteration: int
    seconds: float
    dice: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        known = [value for value in self.dice if value is not None]
        return sum(known) / len(known) if known else None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Validated:
        return cls(values["iteration"], values["seconds"], tuple(values["dice"]))


def best_of(validated: Sequence[Validated]) -> Validated:
    """The best of one or more validations, the latest of equals."""
    return max(validated, key=lambda look: (look.mean or 0, look.iteration))


def choose_weights(
    averaged: dict[str, Tensor], best: dict[str, Tensor] | None, validated: Sequence[Validated], margin: float
) -> tuple[dict[str, Tensor], Validated | None]:
    """The last weights, or those of the best validation where that was better by more than `margin`."""
    if best is None or not validated:
        return averaged, None
    top, last = best_of(validated), validated[-1]
    if (top.mean or 0) > (last.mean or 0) + margin:
        return best, top
    return averaged, last
