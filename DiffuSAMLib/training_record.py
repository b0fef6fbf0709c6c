"""What is to be known of a training besides its tensors."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from .checkpoints import other_run_error, read_checkpoint
from .errors import InputError
from .layout import Position
from .listing import is_there
from .organ_regions import OrganRegion, regions_from_json
from .planes import AXIAL, Plane
from .recipe import Recipe
from .training_paths import checkpoint_path

# What a run may go on with although it began with another value.
_CHANGEABLE = ("name", "validation")
_CHANGEABLE_TRAINING = ("iterations", "minutes", "checkpoint_seconds")

Ending = Literal["complete", "stopped", "no improvement"]
"""Why a run has ended."""


@dataclass(frozen=True)
class RunRecord:
    """What the prior's file will say of a run, kept in its checkpoint so that it can be finished from that alone.

    Attributes:
        organs: What it learns.
        cases: Every case that the weights have seen.
        modalities: Of the cases that it learns from.
        backbone_sha256: Of the frozen weights.
        recipe: As `Recipe.to_dict`.
        title, licence: For people.
        held_out: What it does not learn from; None is nothing.
        started_from: The prior that it began with; None is none.
        device: Where it runs.
        in_pieces: Organs that consist of several large pieces.
        solid: Organs without fat or gas in CT.
        soft: Organs without anything as bright as bone in CT.
        layout: Where organs lie to one another.
        regions: In which cells around them each lies.
        known: Modalities of all scans that the weights have seen.
        planes: In which the cases are cut into slices.
        mr_gamma: How dark it wants to see MR.
        appearance: How much it counts how bright organs are in a scan.
        image_digests: `image_digest` of every image that the weights have seen, as far as is known: names of files
            can be changed.
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
    in_pieces: list[str] = dataclasses.field(default_factory=list)
    solid: list[str] = dataclasses.field(default_factory=list)
    soft: list[str] = dataclasses.field(default_factory=list)
    layout: dict[str, Position] = dataclasses.field(default_factory=dict)
    regions: dict[str, OrganRegion] = dataclasses.field(default_factory=dict)
    known: list[str] = dataclasses.field(default_factory=lambda: ["CT", "MR"])
    planes: list[Plane] = dataclasses.field(default_factory=lambda: list(AXIAL))
    mr_gamma: float = 1.0
    appearance: float = 0.0
    image_digests: list[str] = dataclasses.field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of(cls, state: dict[str, Any], checkpoint: Path) -> RunRecord:
        """The record in a checkpoint that was read.

        Raises:
            InputError: It has none.
        """
        try:
            content = json.loads(state["record"])
            return cls(**{**content, "regions": regions_from_json(content.get("regions", {}))})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise other_run_error(checkpoint) from error

    def started_with(self, sha256: str, training: dict[str, Any]) -> RunRecord:
        """The record of a run that begins with the weights of an earlier prior; what that has seen counts as seen.

        Args:
            sha256: Of the earlier prior's file.
            training: From its header.
        """
        return dataclasses.replace(
            self,
            started_from={"sha256": sha256, "training": training},
            cases=sorted({*self.cases, *training.get("cases", ())}),
            image_digests=sorted({*self.image_digests, *training.get("image_digests", ())}),
        )

    def going_on_from(
        self, begun: RunRecord, checkpoint: Path, *, title: str | None, licence: str | None
    ) -> RunRecord:
        """The record of a run that is resumed: what is not said again is as it was.

        Args:
            begun: From its checkpoint.
            checkpoint: For messages.
            title: A new one; None keeps the old one.
            licence: Likewise.

        Raises:
            InputError: The organs, cases, settings, held-out slices or the prior to start from are others.
        """
        mine = self
        if begun.started_from is not None:
            mine = self.started_with(**begun.started_from)
        mine._require_same_run(begun, checkpoint)
        return dataclasses.replace(
            mine,
            title=title or begun.title,
            licence=licence or begun.licence,
            mr_gamma=begun.mr_gamma,
            appearance=begun.appearance,
            known=begun.known,
            # Images that were others before it was interrupted were seen too.
            image_digests=sorted({*mine.image_digests, *begun.image_digests}),
        )

    def _require_same_run(self, other: RunRecord, checkpoint: Path) -> None:
        different = [
            text
            for key, text in (
                ("organs", "organs"),
                ("cases", "cases"),
                ("backbone_sha256", "backbone weights"),
                ("held_out", "slices held out"),
            )
            if getattr(self, key) != getattr(other, key)
        ]
        mine, others = _fixed(self.recipe), _fixed(_present(other.recipe, checkpoint))
        different += [key for key in mine if mine[key] != others.get(key)]
        if different:
            raise InputError(
                f"{checkpoint} holds an unfinished run with other {', '.join(different)}.",
                hint="Resume with the options it was started with, or begin anew with --restart.",
            )


def resumed_recipe(output: Path) -> Recipe | None:
    """The recipe of a prior's unfinished run; None where there is no run.

    Raises:
        InputError: The run is damaged, or its folder is closed.
    """
    checkpoint = checkpoint_path(output)
    if not is_there(checkpoint):
        return None
    record = RunRecord.of(read_checkpoint(checkpoint, device=torch.device("cpu")), checkpoint)
    return Recipe.from_dict(record.recipe, source=str(checkpoint))


def _present(recipe: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """A recipe in the present schema."""
    return Recipe.from_dict(recipe, source=str(checkpoint)).to_dict()


def _fixed(recipe: dict[str, Any]) -> dict[str, Any]:
    training = {key: value for key, value in recipe["training"].items() if key not in _CHANGEABLE_TRAINING}
    return {**{key: value for key, value in recipe.items() if key not in _CHANGEABLE}, "training": training}
