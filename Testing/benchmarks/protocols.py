"""The protocols: who learns from which cases, is scored on which, and on what backbone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clean_weights import CLEAN_BACKBONE, CLEAN_PRIOR, taken_from_history
from common import ORGANS, SPLITS, labelled_cases

from DiffuSAMLib.catalogue import locate
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.splits import Split, load_split, refuse_overlap
from DiffuSAMLib.weights import LoadedBackbone, load_backbone

Part = Literal["development", "test"]


@dataclass(frozen=True)
class Protocol:
    """One way of asking how good a method is.

    Attributes:
        name: Short name, also of the folder of its results.
        title: For people.
        split: Name of the split files, with the draw's number to be filled in.
        draws: Numbers of the draws.
        target: First word of the names of the cases to be scored.
        backbone: "clean" has seen neither BTCV nor CHAOS, "bundled" is the one that DiffuSAM Segment brings.
        organs: What to segment.
        procedural: Procedural abdomens that DiffuSAM's trainings have besides the cases; they show the organs of
            the abdomen alone.
        twins: MR-like twins of the CT cases, likewise.
        recipe: Name of the recipe of DiffuSAM's trainings.
        strange: Whether the cases to be scored are of another modality than the training cases.
        measure: The figure of the targets, on development cases: least mean Dice.
    """

    name: str
    title: str
    split: str
    draws: tuple[int, ...]
    target: str
    backbone: Literal["clean", "bundled"]
    organs: tuple[str, ...] = ORGANS
    procedural: int = 0
    twins: int = 0
    recipe: str = "compact"
    strange: bool = False
    measure: float = 0.0


FIVE = (1, 2, 3, 4, 5)
# As many as the bundled prior was trained with.
ABDOMENS = 48
# Ten of each of three cases.
TWINS = 30
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "A",
            "few-shot CT",
            "fewshot_ct_draw{}",
            FIVE,
            "btcv",
            "clean",
            procedural=ABDOMENS,
            twins=TWINS,
            measure=0.80,
        ),
        Protocol(
            "B",
            "CT to MR",
            "ct_to_mr_draw{}",
            FIVE,
            "chaos",
            "clean",
            procedural=ABDOMENS,
            twins=TWINS,
            strange=True,
            measure=0.75,
        ),
        Protocol(
            "B-reverse",
            "MR to CT",
            "mr_to_ct_draw{}",
            FIVE,
            "btcv",
            "clean",
            procedural=ABDOMENS,
            strange=True,
        ),
        Protocol("C-CT", "all data, CT", "bundled", (1,), "btcv", "bundled", measure=0.92),
        Protocol("C-MR", "all data, MR", "bundled", (1,), "chaos", "bundled", measure=0.88),
        Protocol(
            "D",
            "few-shot hippocampus",
            "hippocampus_draw{}",
            (1, 2, 3),
            "hippocampus",
            "bundled",
            organs=("anterior hippocampus", "posterior hippocampus"),
            # It is asked for nothing but MR.
            recipe="one-modality",
            measure=0.85,
        ),
    )
}


@dataclass(frozen=True)
class Job:
    """One draw of a protocol.

    Attributes:
        protocol: See there.
        draw: Number of the draw; also the seed of trainings.
        part: Which cases are scored.
        minutes: Budget of each training.
        limit: Score only the first so many cases; None scores all.
        split_name: Another split than the protocol's, with the draw's number to be filled in.
        backbone_path: Other weights than the protocol's; its training cases are checked all the same.
    """

    protocol: Protocol
    draw: int
    part: Part = "development"
    minutes: float = 20.0
    limit: int | None = None
    split_name: str | None = None
    backbone_path: Path | None = None

    @property
    def split(self) -> Split:
        return load_split(SPLITS / f"{(self.split_name or self.protocol.split).format(self.draw)}.json")

    @property
    def evaluated_names(self) -> tuple[str, ...]:
        names = [name for name in getattr(self.split, self.part) if name.startswith(self.protocol.target)]
        if not names:
            raise InputError(f"The split {self.split.name} has no {self.part} cases.")
        return tuple(names[: self.limit])

    @property
    def unlabelled_names(self) -> tuple[str, ...]:
        """Target cases whose images, not labels, a method may adapt to: those that are not scored."""
        split, scored = self.split, self.evaluated_names
        others = (*split.development, *split.test)
        return tuple(name for name in others if name.startswith(self.protocol.target) and name not in scored)

    def training_cases(self) -> list[LabelledFiles]:
        refuse_overlap(self.split.train, self.evaluated_names)
        return labelled_cases(self.split.train)

    def evaluated_cases(self) -> list[LabelledFiles]:
        return labelled_cases(self.evaluated_names)

    @property
    def backbone_file(self) -> Path:
        if self.backbone_path is not None:
            return self.backbone_path
        if self.protocol.backbone == "clean":
            return taken_from_history(CLEAN_BACKBONE)
        return locate("compact")

    @property
    def start(self) -> str:
        """The prior that trainings begin with: made for the protocol's backbone, from nothing it may not have seen."""
        return str(taken_from_history(CLEAN_PRIOR)) if self.protocol.backbone == "clean" else "abdomen"

    def backbone(self) -> LoadedBackbone:
        """The frozen backbone.

        Raises:
            InputError: It has not been made yet, or has seen a case that is to be scored.
        """
        if not self.backbone_file.exists():
            raise InputError(
                f"There is no {self.backbone_file}.",
                hint="Clone the repository with its history, or make one with Testing/benchmarks/clean_backbone.py.",
            )
        loaded = load_backbone("compact", path=self.backbone_file)
        refuse_overlap(loaded.training_cases, self.evaluated_names)
        return loaded


def add_job_options(parser: argparse.ArgumentParser, *, minutes: float = 20.0) -> None:
    parser.add_argument(
        "protocols", nargs="+", choices=PROTOCOLS, metavar="PROTOCOL", help=", ".join(PROTOCOLS)
    )
    parser.add_argument("--draws", type=int, nargs="+", help="default: all of the protocol")
    parser.add_argument("--part", choices=("development", "test"), default="development")
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="of each training (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, help="score only the first so many cases")
    parser.add_argument("--backbone", type=Path, help="weights file instead of the protocol's backbone")


def jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """The draws that the options ask for, all protocols of one draw before the next draw."""
    chosen = [PROTOCOLS[name] for name in arguments.protocols]
    for draw in sorted({draw for protocol in chosen for draw in protocol.draws}):
        for protocol in chosen:
            if draw in protocol.draws and (arguments.draws is None or draw in arguments.draws):
                yield Job(
                    protocol,
                    draw,
                    arguments.part,
                    minutes=arguments.minutes,
                    limit=arguments.limit,
                    backbone_path=arguments.backbone,
                )
