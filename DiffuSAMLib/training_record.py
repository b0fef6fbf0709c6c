"""What is to be known of a training besides its tensors."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoints import other_run_error
from .errors import InputError

# What a run may go on with although it began with another value.
_CHANGEABLE = ("name", "validation")
_CHANGEABLE_TRAINING = ("iterations", "minutes", "checkpoint_seconds")


@dataclass(frozen=True)
class RunRecord:
    """What the prior's file will say of a run, kept in its checkpoint so that it can be finished from that alone.

    Attributes:
        organs: What it learns.
        cases: Every case that the weights have seen.
        modalities: Of the cases.
        backbone_sha256: Of the frozen weights.
        recipe: As `Recipe.to_dict`.
        title, licence: For people.
        held_out: What it does not learn from; None is nothing.
        started_from: The prior that it began with; None is none.
        device: Where it runs.
    """

    organs: list[str]
    cases: list[str]
    modalities: list[str]
    backbone_sha256: str
    recipe: dict[str, Any]
    title: str
    licence: str
    held_out: dict[str, Any] | None
    started_from: dict[str, Any] | None
    device: str

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of(cls, state: dict[str, Any], checkpoint: Path) -> RunRecord:
        """The record in a checkpoint that was read.

        Raises:
            InputError: It has none.
        """
        try:
            return cls(**json.loads(state["record"]))
        except (KeyError, TypeError, ValueError) as error:
            raise other_run_error(checkpoint) from error

    def require_same_run(self, other: RunRecord, checkpoint: Path) -> None:
        """Refuses to resume a run with other organs, cases or settings.

        Raises:
            InputError: They differ.
        """
        different = [
            text
            for key, text in (
                ("organs", "organs"),
                ("cases", "cases"),
                ("backbone_sha256", "backbone weights"),
            )
            if getattr(self, key) != getattr(other, key)
        ]
        mine, others = _fixed(self.recipe), _fixed(other.recipe)
        different += [key for key in mine if mine[key] != others.get(key)]
        if different:
            raise InputError(
                f"{checkpoint} holds an unfinished run with other {', '.join(different)}.",
                hint="Resume with the options it was started with, or delete it to start again.",
            )


def _fixed(recipe: dict[str, Any]) -> dict[str, Any]:
    training = {key: value for key, value in recipe["training"].items() if key not in _CHANGEABLE_TRAINING}
    return {**{key: value for key, value in recipe.items() if key not in _CHANGEABLE}, "training": training}
