"""Units of measurement: one method on one draw of one protocol is one JSON file, made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, provenance
from protocols import Job

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.evaluation import Evaluation
from DiffuSAMLib.files import atomic_path
from DiffuSAMLib.json_values import to_json_value
from DiffuSAMLib.recipe import Recipe

SCHEMA_VERSION = 1
# Raised when the way of scoring changes: units of an earlier ruler are measured again.
RULER = 1
# Of each figure of a case; the history keeps every file that ever was.
DIGITS = 6


def fingerprint(content: Mapping[str, Any]) -> str:
    """The same for equal settings, whatever the order of their keys."""
    text = json.dumps(to_json_value(content), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def unit_text(content: Mapping[str, Any]) -> str:
    """A result as strict JSON with a line for each of its `cases`, which come last."""
    value = to_json_value(content)
    cases = ",\n".join(f"  {json.dumps(_rounded(case), allow_nan=False)}" for case in value.pop("cases"))
    begin = json.dumps(value, indent=1, allow_nan=False).removesuffix("\n}")
    return f'{begin},\n "cases": [\n{cases}\n ]\n}}\n'


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def in_present_schema(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with their recipe and options, if they have them, as today's program writes them.

    Raises:
        InputError: Today's program cannot read it.
    """
    present = dict(settings)
    if "recipe" in settings:
        present["recipe"] = Recipe.from_dict(settings["recipe"]).to_dict()
    if "options" in settings:
        # Of options that came later.
        present["options"] = {"appearance": False, "poses": False, **settings["options"]}
    return present


@dataclass(frozen=True)
class Unit:
    """One method on one draw.

    Attributes:
        job: The draw.
        method: Short name of the method.
        settings: Everything that decides the figures: training, weights' hashes, options. No paths.
    """

    job: Job
    method: str
    settings: Mapping[str, Any]

    @property
    def path(self) -> Path:
        name = f"{self.method}_draw{self.job.draw}_{self.job.part}.json"
        return RESULTS / "units" / self.job.protocol.name / name

    @property
    def key(self) -> str:
        return self._key_of(self.settings)

    def _key_of(self, settings: Mapping[str, Any]) -> str:
        split = self.job.split
        return fingerprint(
            {
                "ruler": RULER,
                "settings": settings,
                "organs": self.job.protocol.organs,
                "train": split.train,
                "evaluated": self.job.evaluated_names,
            }
        )

    @property
    def is_measured(self) -> bool:
        """Whether there is a result of the same settings, cases and weights.

        A recipe of an older schema counts as what it says in the present one.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            key, settings = content["key"], content["settings"]
            present = fingerprint(in_present_schema(settings))
        except (OSError, ValueError, LookupError, TypeError, InputError):
            return False
        # With the settings as they were written, the key tells whether all the rest is the same.
        return key == self._key_of(settings) and present == fingerprint(in_present_schema(self.settings))

    def measure(self, work: Callable[[], tuple[Evaluation, Mapping[str, Any]]]) -> bool:
        """Does the work and writes the result, unless it is there.

        Args:
            work: Gives the scores and the record of trainings and weights.

        Returns:
            Whether the work was done now.
        """
        label = f"{self.job.protocol.name} {self.method} draw {self.job.draw} {self.job.part}"
        if self.is_measured:
            print(f"{label}: measured before", flush=True)
            return False
        print(f"{label}: ...", flush=True)
        evaluation, record = work()
        content = {
            "schema_version": SCHEMA_VERSION,
            "key": self.key,
            **provenance(),
            "protocol": self.job.protocol.name,
            "method": self.method,
            "draw": self.job.draw,
            "part": self.job.part,
            "train": self.job.split.train,
            "settings": self.settings,
            "record": record,
            **{name: value for name, value in evaluation.to_json().items() if name != "schema_version"},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as temporary:
            temporary.write_text(unit_text(content), encoding="ascii")
        print(f"{label}: {evaluation.mean():.3f}\n{evaluation.table()}", flush=True)
        return True
