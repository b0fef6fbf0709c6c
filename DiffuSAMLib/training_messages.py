"""What a training tells the program that started it, as JSON events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .training_events import LossesEvent, ValidationEvent
from .training_paths import run_folder

if TYPE_CHECKING:
    from .preflight import Finding
    from .prior_files import PriorHeader
    from .progress import JsonProgress


def tell_finding(progress: JsonProgress, finding: Finding) -> None:
    """What the check of the cases found, as a JSON line: `check`."""
    progress.event("check", level=finding.level, case=finding.case, message=finding.message)


def tell_event(progress: JsonProgress, event: LossesEvent | ValidationEvent) -> None:
    """A training's event as a JSON line: `losses` or `validation`."""
    if isinstance(event, LossesEvent):
        progress.event(
            "losses",
            iteration=event.iteration,
            iterations=event.iterations,
            seconds=round(event.seconds, 1),
            seconds_left=round(event.seconds_left, 1),
            losses=event.losses,
            total=event.total,
        )
    else:
        progress.event(
            "validation",
            iteration=event.iteration,
            seconds=round(event.seconds, 1),
            dice=event.dice,
            mean_dice=event.mean_dice,
            best=event.best,
            overlay=event.overlay,
        )


def outcome(output: Path, header: PriorHeader) -> dict[str, Any]:
    """What the `done` event of a training says."""
    # A prior that was there before the training may lack what is told of one.
    training = header.training
    return {
        "name": header.name,
        "path": output,
        "labels": [label.name for label in header.labels],
        "stopped": training.get("ended") == "stopped",
        "iterations": training.get("iterations"),
        "minutes": training.get("minutes"),
        "mean_dice": header.metrics.get("held_out", {}).get("mean_dice"),
        "run_folder": run_folder(output),
    }
