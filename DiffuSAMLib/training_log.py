"""The record of a training on disk: CSV tables for people, event files for TensorBoard."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .training_events import ValidationEvent

if TYPE_CHECKING:
    from .event_file import EventFile

log = logging.getLogger(__name__)


class TrainingLog:
    """Writes `losses.csv`, `validation.csv` and, where tensorboardX is installed, TensorBoard's events.

    A log that cannot be written is given up with a warning: the training matters more.

    Args:
        folder: The run's; made with the first row.
        resumed_at: Iteration that the run goes on from; later rows, of what was lost, are dropped.
    """

    def __init__(self, folder: Path, *, resumed_at: int) -> None:
        self.folder, self.resumed_at = folder, resumed_at
        self._begun: set[str] = set()
        self._events: EventFile | None = None
        self._with_events = True
        self._broken = False

    def losses(self, iteration: int, seconds: float, rate: float, losses: Mapping[str, float]) -> None:
        """A row of mean losses."""
        row = {"iteration": iteration, "minutes": round(seconds / 60, 3), "learning_rate": f"{rate:.3g}"}
        values = {**losses, "total": sum(losses.values())}
        self._row("losses.csv", row | {name: f"{value:.6g}" for name, value in values.items()})
        self._scalars({f"loss/{name}": value for name, value in values.items()}, iteration)
        self._scalars({"learning_rate": rate}, iteration)

    def validation(self, event: ValidationEvent) -> None:
        """A row of held-out Dice."""
        values = {**event.dice, "mean": event.mean_dice}
        row: dict[str, Any] = {"iteration": event.iteration, "minutes": round(event.seconds / 60, 3)}
        cells = {name: "" if value is None else f"{value:.4f}" for name, value in values.items()}
        self._row("validation.csv", row | cells)
        known = {f"dice/{name}": value for name, value in values.items() if value is not None}
        self._scalars(known, event.iteration)

    def close(self) -> None:
        if self._events is not None:
            try:
                self._events.close()
            except OSError as error:
                self._give_up(self.folder, error)

    def _row(self, name: str, row: Mapping[str, Any]) -> None:
        if self._broken:
            return
        path = self.folder / name
        try:
            if name not in self._begun:
                self.folder.mkdir(parents=True, exist_ok=True)
                _keep_rows(path, list(row), up_to=self.resumed_at)
                self._begun.add(name)
            with path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, list(row)).writerow(row)
        except OSError as error:
            self._give_up(path, error)

    def _scalars(self, values: Mapping[str, float], iteration: int) -> None:
        if self._broken or not self._with_events:
            return
        try:
            if self._events is None:
                from .event_file import EventFile

                self._events = EventFile(self.folder, resumed_at=self.resumed_at)
            self._events.scalars(values, iteration)
        except OSError as error:
            self._give_up(self.folder, error)
        except ImportError:
            # The tables say the same.
            self._with_events = False
        except Exception as error:  # of many classes, where tensorboardX does not fit the protobuf beside it
            self._with_events = False
            log.warning("TensorBoard's events are left out (%s: %s).", type(error).__name__, error)

    def _give_up(self, path: Path, error: OSError) -> None:
        if not self._broken:
            log.warning("The training's log %s cannot be written (%s).", path, error.strerror)
        self._broken = True


def _keep_rows(path: Path, fields: list[str], *, up_to: int) -> None:
    """Begins a table, or takes up an earlier one of the same columns as far as the run got."""
    kept: list[dict[str, str]] = []
    if up_to and path.exists():
        kept = _rows_of(path, fields)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(row for row in kept if int(row["iteration"]) <= up_to)


def _rows_of(path: Path, fields: list[str]) -> list[dict[str, str]]:
    """The whole rows of a table with these columns; a crash may have cut one short, or spoilt the file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader) if reader.fieldnames == fields else []
    except (csv.Error, ValueError):
        return []
    return [
        row for row in rows if None not in row and None not in row.values() and row["iteration"].isdecimal()
    ]
