"""Passes on what happens in a training, not more often than anybody wants to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from .prior import Prior
from .progress import Progress, ProgressEvent
from .recipe import TrainingConfig
from .training_events import LossesEvent, TrainingListener, ValidationEvent
from .training_log import TrainingLog
from .validated import Validated

# How often losses are written (iterations, a mean each) and told (seconds).
LOG_EVERY = 10
TELL_SECONDS = 2.0


class ReportedTraining(Protocol):
    """What is asked of a run.

    Attributes:
        config: The recipe.
        iteration: How many are done.
        seconds: How long they took.
        losses: Of each iteration, by name.
        validated: What each validation found.
    """

    config: TrainingConfig
    iteration: int
    seconds: float
    losses: list[dict[str, float]]
    validated: list[Validated]

    def part(self) -> float:
        """How much of the run is done, 0 to 1."""
        ...

    def learning_rate(self) -> float:
        """At this point of the run."""
        ...


class TrainingReporter:
    """Tells a run's listeners.

    Args:
        training: The run.
        progress: Called after each iteration.
        listener: Told of losses and validations.
        log: Where they are written.
        on_validated: May make a picture of the held-out slices.
    """

    def __init__(
        self,
        training: ReportedTraining,
        progress: Progress | None,
        listener: TrainingListener | None,
        log: TrainingLog | None,
        on_validated: Callable[[Prior, np.ndarray, int], Path | None] | None,
    ) -> None:
        self.training, self.progress, self.listener, self.log = training, progress, listener, log
        self.on_validated = on_validated
        self._told, self._logged = training.iteration, training.iteration
        self._told_at = time.monotonic()

    def iteration(self) -> None:
        """After each."""
        training = self.training
        done = training.iteration
        if self.progress is not None:
            self.progress(ProgressEvent("train", done, self._iterations()))
        if self.log is not None and done - self._logged >= LOG_EVERY:
            self._write(self.log)
        if self.listener is not None and time.monotonic() - self._told_at >= TELL_SECONDS:
            self._report(self.listener)

    def rest(self) -> None:
        """At the end: what was not told yet."""
        if self.log is not None and self.training.iteration > self._logged:
            self._write(self.log)
        if self.listener is not None and self.training.iteration > self._told:
            self._report(self.listener)

    def validation(self, prior: Prior, labels: np.ndarray, *, best: bool) -> None:
        look = self.training.validated[-1]
        event = ValidationEvent(
            iteration=look.iteration,
            seconds=look.seconds,
            dice=dict(zip(prior.config.organs, look.dice, strict=True)),
            mean_dice=look.mean,
            best=best,
            overlay=None if self.on_validated is None else self.on_validated(prior, labels, look.iteration),
        )
        if self.log is not None:
            self.log.validation(event)
        if self.listener is not None:
            self.listener(event)

    def close(self) -> None:
        if self.log is not None:
            self.log.close()

    def _iterations(self) -> int:
        training = self.training
        if not training.config.minutes:
            return training.config.iterations
        return max(training.iteration, round(training.iteration / max(training.part(), 1e-9)))

    def _write(self, log: TrainingLog) -> None:
        training = self.training
        recent = training.losses[self._logged :]
        log.losses(training.iteration, training.seconds, training.learning_rate(), _means(recent))
        self._logged = training.iteration

    def _report(self, listener: TrainingListener) -> None:
        training = self.training
        part = min(1.0, training.part())
        listener(
            LossesEvent(
                iteration=training.iteration,
                iterations=self._iterations(),
                seconds=training.seconds,
                seconds_left=training.seconds * (1 - part) / part,
                losses=_means(training.losses[self._told :]),
            )
        )
        self._told, self._told_at = training.iteration, time.monotonic()


def _means(losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([each[name] for each in losses])) for name in losses[0]}
