"""The table of a cohort: one row per case, as CSV for people and as JSON for programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from . import __version__
from .files import atomic_path
from .json_values import to_json_value
from .printable_text import printable

SCHEMA_VERSION = 1
TABLE_CSV = "cohort.csv"
TABLE_JSON = "cohort.json"

Status = Literal["done", "failed", "pending"]


@dataclass(frozen=True)
class CaseRow:
    """How a case ended.

    Attributes:
        name: The case.
        image: Its image.
        status: "done" when its files are complete, "failed", or "pending" when it was not come to.
        reused: Whether an earlier run has finished it.
        attempts: How often it was tried in this run.
        seconds: Wall time of the attempt that ended it; None where none did.
        modality: "CT" or "MR", as it was segmented; empty unless done.
        volumes_ml: Volume of each organ in ml; empty unless done.
        warnings: What was odd about the image, as sentences.
        error: The sentence that says why it failed; else empty.
    """

    name: str
    image: Path
    status: Status = "pending"
    reused: bool = False
    attempts: int = 0
    seconds: float | None = None
    modality: str = ""
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    error: str = ""


def write_table(
    folder: Path, rows: Sequence[CaseRow], organs: Sequence[str], record: Mapping[str, Any]
) -> None:
    """Write `cohort.csv` and `cohort.json`.

    Args:
        folder: That of the results.
        rows: The cases.
        organs: Names of the organs, a column each.
        record: What else the JSON file says: prior, labels, settings.

    Raises:
        OutputError: A file cannot be written.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "program_version": __version__,
        **to_json_value(record),
        "cases": to_json_value(rows),
    }
    # First, for by this one the next run knows the folder as its own, should this one be killed between the two.
    with atomic_path(folder / TABLE_JSON) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="ascii")
    with (
        atomic_path(folder / TABLE_CSV) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        table = csv.writer(stream)
        table.writerow(
            [
                *("case", "status", "modality", "seconds"),
                *(f"{organ} (ml)" for organ in organs),
                *("warnings", "error", "image"),
            ]
        )
        for row in rows:
            seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
            volumes = [f"{row.volumes_ml[organ]:.3f}" if organ in row.volumes_ml else "" for organ in organs]
            texts = map(printable, (" ".join(row.warnings), row.error, str(row.image)))
            table.writerow([row.name, row.status, row.modality, seconds, *volumes, *texts])
