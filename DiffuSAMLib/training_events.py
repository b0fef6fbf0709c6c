"""What a training tells while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LossesEvent:
    """Losses, every few seconds.

    Attributes:
        iteration: The last one done.
        iterations: How many there will be; an estimate where the time is limited.
        seconds: Time trained so far.
        seconds_left: Estimated.
        losses: Mean of each loss since the last event.
    """

    iteration: int
    iterations: int
    seconds: float
    seconds_left: float
    losses: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.losses.values())


@dataclass(frozen=True)
class ValidationEvent:
    """How well the averaged weights do on the held-out slices.

    Attributes:
        iteration: After which.
        seconds: Time trained so far.
        dice: Of each organ; None where the held-out slices do not show it.
        mean_dice: Over the organs that have one.
        best: Whether it is the best so far.
        overlay: Picture (PNG) of a held-out slice: truth and result.
    """

    iteration: int
    seconds: float
    dice: Mapping[str, float | None]
    mean_dice: float | None
    best: bool
    overlay: Path | None = None


TrainingListener = Callable[[LossesEvent | ValidationEvent], None]


def progress_line(event: LossesEvent, validation: ValidationEvent | None) -> str:
    """The state of a training as one plain sentence or two."""
    losses = ", ".join(f"{name} {value:.3f}" for name, value in event.losses.items())
    text = f"Iteration {event.iteration:,} of about {event.iterations:,}: losses {losses}; "
    if validation is not None and validation.mean_dice is not None:
        dice = ", ".join(
            f"{organ} {value:.2f}" for organ, value in validation.dice.items() if value is not None
        )
        text += f"held-out Dice {dice} (mean {validation.mean_dice:.2f}); "
    return text + f"{duration(event.seconds_left)} left."


def duration(seconds: float) -> str:
    """A time for people, to two figures or so."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"
