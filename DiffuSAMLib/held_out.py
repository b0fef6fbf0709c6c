"""What a training does not learn from, to be checked on meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .composed_names import composed
from .errors import InputError
from .labelled_stacks import LabelledStack

# From this many cases on, one is held out whole.
ENOUGH_CASES = 4
# With fewer: the share of a case's labelled slices that is held out, and the fewest labelled slices worth it.
BLOCK_SHARE = 0.15
FEWEST_SLICES = 24
# On so many slices an organ that is held out must be left to learn from.
FEWEST_LEFT = 2


@dataclass(frozen=True)
class ValidationConfig:
    """What is held out, and how often it is looked at.

    Attributes:
        held_out: "auto" holds out one case of four or more, a block of slices of fewer or where each of them is
            needed to learn an organ, and nothing of tiny sets; "slices" a block in any case; "none" nothing; else
            the name of the case to hold out.
        slices: Most slices to look at.
        every_minutes: How often; less often where it would take more than a thirtieth of the time. 0 is after
            each iteration, whatever it takes.
        patience: Ends the training after so many validations without a better one; None never.
        margin: The best weights are taken rather than the last ones where their mean Dice is better by this.
    """

    held_out: str = "auto"
    slices: int = 12
    every_minutes: float = 2.0
    patience: int | None = None
    margin: float = 0.01

    def check(self) -> None:
        """Refuses what cannot be done.

        Raises:
            InputError: A value is out of range.
        """
        if self.slices < 1 or self.every_minutes < 0 or (self.patience is not None and self.patience < 1):
            raise InputError(
                "Validation needs at least 1 slice, 0 or more minutes, and a patience of 1 or more."
            )


@dataclass(frozen=True)
class HeldOut:
    """What a training does not learn from.

    Attributes:
        stack: Where it lies.
        numbers: Slices to look at.
        blocked: Slices not to learn from; None is the whole case.
    """

    stack: LabelledStack
    numbers: tuple[int, ...]
    blocked: range | None

    @property
    def is_whole_case(self) -> bool:
        """Whether all slices of the case are kept out of the training, not a part of them."""
        return self.blocked is None

    def leaves_out(self, case: str) -> bool:
        """Whether nothing at all is learnt from the case of this name."""
        return self.is_whole_case and case == self.stack.name


def choose_held_out(
    stacks: Sequence[LabelledStack], config: ValidationConfig, *, organs: Sequence[str]
) -> HeldOut | None:
    """What to hold out of real cases.

    Args:
        stacks: The cases.
        config: Says what.
        organs: Names of their labels.

    Raises:
        InputError: There is no case of the name asked for, or an organ could not be learnt without it.
    """
    if config.held_out == "none" or not stacks:
        return None
    if config.held_out not in ("auto", "slices"):
        return _named(stacks, config, organs)
    if config.held_out == "auto" and len(stacks) >= ENOUGH_CASES:
        counts = _slices_showing(stacks)
        shown = (counts > 0).sum(1)
        spare = [n for n, lost in enumerate(_lost_without(counts)) if shown[n] and not lost.any()]
        if spare:
            # The last of those that show most organs.
            stack = stacks[max(spare, key=lambda n: (shown[n], n))]
            return HeldOut(stack, _spread(stack, config.slices), None)
    return _block(stacks, config)


def _named(stacks: Sequence[LabelledStack], config: ValidationConfig, organs: Sequence[str]) -> HeldOut:
    names = [composed(stack.name) for stack in stacks]
    if composed(config.held_out) not in names:
        raise InputError(
            f"There is no case {config.held_out} to hold out.",
            hint="Give the name of a case, auto, slices or none.",
        )
    if len(stacks) == 1:
        raise InputError("The only case cannot be held out.", hint="Hold out slices or none.")
    number = names.index(composed(config.held_out))
    lost = _lost_without(_slices_showing(stacks))[number]
    if lost.any():
        raise InputError(
            f"The case {config.held_out} cannot be held out: fewer than {FEWEST_LEFT} slices of the others show "
            f"{', '.join(organs[organ] for organ in np.flatnonzero(lost).tolist())}.",
            hint="Hold out another case, or leave the choice to auto.",
        )
    return HeldOut(stacks[number], _spread(stacks[number], config.slices), None)


def _slices_showing(stacks: Sequence[LabelledStack]) -> np.ndarray:
    """On how many slices of each stack each organ is: `(stacks, organs)`."""
    return np.array(
        [
            [(stack.labels == organ).any((1, 2)).sum() for organ in range(1, len(stack.known) + 1)]
            for stack in stacks
        ]
    )


def _lost_without(counts: np.ndarray) -> np.ndarray:
    """Which organs of each stack are on too few slices of the others to be learnt without it.

    Args:
        counts: See `_slices_showing`.

    Returns:
        bool `(stacks, organs)`.
    """
    return (counts > 0) & (counts.sum(0) - counts < FEWEST_LEFT)


def _block(stacks: Sequence[LabelledStack], config: ValidationConfig) -> HeldOut | None:
    """Neighbouring slices of the case with most labels; every organ in them is to be learnt elsewhere too."""
    counts = [int(stack.labels.any((1, 2)).sum()) for stack in stacks]
    if sum(counts) < FEWEST_SLICES:
        return None
    stack = stacks[int(np.argmax(counts))]
    length = min(config.slices, max(2, round(BLOCK_SHARE * max(counts))))
    organs = range(1, len(stack.known) + 1)
    shows = np.array([[(labels == organ).any() for organ in organs] for labels in stack.labels])
    everywhere = _slices_showing(stacks).sum(0)
    best, most = None, 0
    for begin in range(len(shows) - length + 1):
        inside = shows[begin : begin + length].sum(0)
        left = everywhere - inside
        score = int((inside > 0).sum()) * 1000 + int(inside.sum())
        if (left[inside > 0] >= FEWEST_LEFT).all() and score > most:
            best, most = range(begin, begin + length), score
    return None if best is None else HeldOut(stack, tuple(best), best)


def _organs(labels: np.ndarray) -> set[int]:
    return {int(value) for value in np.unique(labels) if value}


def _spread(stack: LabelledStack, count: int) -> tuple[int, ...]:
    """Slices evenly over those with labels and their surroundings, where organs are to be found absent.

    Where these miss an organ, the nearest of them make way for slices that show it.

    Raises:
        InputError: No slice shows an organ.
    """
    filled = np.flatnonzero(stack.labels.any((1, 2)))
    if not filled.size:
        raise InputError(
            f"The case {stack.name} cannot be held out: none of its slices shows an organ.",
            hint="Hold out another case, or leave the choice to auto.",
        )
    last = len(stack.labels) - 1
    margin = max(1, (filled[-1] - filled[0] + 1) // 6)
    first, last = max(0, int(filled[0]) - margin), min(last, int(filled[-1]) + margin)
    spread = np.linspace(first, last, min(count, last - first + 1)).round().astype(int)
    numbers = {int(number) for number in np.unique(spread)}
    if _organs(stack.labels[sorted(numbers)]) == _organs(stack.labels):
        return tuple(sorted(numbers))
    needed = _showing_all(stack, numbers, count)
    for number in sorted(needed - numbers):
        numbers.remove(min(numbers - needed, key=lambda other: (abs(other - number), other)))
        numbers.add(number)
    return tuple(sorted(numbers))


def _showing_all(stack: LabelledStack, preferred: set[int], count: int) -> set[int]:
    """At most `count` slices that together show every organ, if so few can; the preferred ones where they do."""
    organs = sorted(_organs(stack.labels))
    pixels = np.stack([(stack.labels == organ).sum((1, 2)) for organ in organs], axis=1)
    missing, needed = np.ones(len(organs), bool), set[int]()

    def worth(number: int) -> tuple[int, bool, int]:
        shown = pixels[number][missing]
        return int((shown > 0).sum()), number in preferred, int(shown.sum())

    while missing.any() and len(needed) < count:
        number = max(range(len(pixels)), key=worth)
        needed.add(number)
        missing &= pixels[number] == 0
    return needed
