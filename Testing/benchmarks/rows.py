"""Every row that the tables have, and what was measured of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS
from protocols import PROTOCOLS

FEW_SHOT = ("A", "B", "B-reverse")
STRANGE = tuple(name for name, protocol in PROTOCOLS.items() if protocol.strange)
# Slices of three planes are not chained, so that D without 3D would be the same.
CHAINED = tuple(name for name in PROTOCOLS if name != "D")
# The methods of the main table and the protocols in which each makes sense; the rest is in the ablations.
METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    "diffusam": ("**DiffuSAM**", tuple(PROTOCOLS)),
    "diffusam_adapted": ("DiffuSAM, backbone adapted to the three volumes", FEW_SHOT),
    "more_10": ("DiffuSAM, 10 minutes more", FEW_SHOT),
    "unlabelled": (
        "DiffuSAM, 10 minutes more, with what it found in the target cases that are not scored",
        FEW_SHOT,
    ),
    "no_3d": ("DiffuSAM, no 3D", CHAINED),
    "slices_alone_smooth": (
        "DiffuSAM, every slice alone: no neighbours in the channels, no 3D, no clean-up",
        FEW_SHOT,
    ),
    "no_poses": ("DiffuSAM, slices of a strange modality seen in one pose", STRANGE),
    "no_appearance": ("that, brightness not asked for", FEW_SHOT),
    "slices_alone_no_appearance": (
        "brightness not asked for, every slice alone",
        FEW_SHOT,
    ),
    "no_reach_smooth": (
        "brightness not asked for, slices 9 mm away not seen by the decoder of outlines",
        FEW_SHOT,
    ),
    "outlines_smooth": (
        "brightness not asked for, outlines as masks: no memories, no SAM2",
        tuple(PROTOCOLS),
    ),
    "no_regions": ("brightness not asked for, organs not kept to regions", STRANGE),
    "no_smooth": (
        "brightness not asked for, organs not kept to regions, masks not smoothed",
        tuple(PROTOCOLS),
    ),
    "no_smooth_no_3d": ("that and no 3D", CHAINED),
    "no_reach": ("that, slices 9 mm away not seen", (*FEW_SHOT, "D")),
    "axial_only": ("DiffuSAM, axial slices alone", ("D",)),
    "one_modality": ("DiffuSAM for one modality: mild augmentation, the three cases alone", ("A",)),
    "anew": ("DiffuSAM, prior begun with random weights, real cases alone", FEW_SHOT),
    "regression": ("regression instead of diffusion", (*FEW_SHOT, "D")),
    "frozen_decoder": ("decoder on frozen features", (*FEW_SHOT, "D")),
    "frozen_decoder_smooth": (
        "decoder on frozen features, masks smoothed",
        FEW_SHOT,
    ),
    "unet_plain": ("2D UNet, no cross-modality augmentation", ("A", "B", "B-reverse", "C-CT", "C-MR", "D")),
    "unet_plain_smooth": ("2D UNet, no cross-modality augmentation, masks smoothed", FEW_SHOT),
    "unet_slaug": ("2D UNet, SLAug-style augmentation", FEW_SHOT),
    "unet_slaug_smooth": ("2D UNet, SLAug-style augmentation, masks smoothed", FEW_SHOT),
    "unetr": ("2D UNETR", (*FEW_SHOT, "D")),
    "fate_sam": ("support memories (FATE-SAM style)", (*FEW_SHOT, "D")),
    "sam2_points": ("SAM2, points from the truth", (*FEW_SHOT, "D")),
    "sam2_points_3d": ("SAM2, points from the truth and neighbour's memory", (*FEW_SHOT, "D")),
    "dpl": ("denoised pseudo-labels (DPL style)", STRANGE),
    "dfg": ("feature guidance (DFG style)", STRANGE),
}


@dataclass(frozen=True)
class Summary:
    """One method on one protocol and part, over its draws.

    Attributes:
        units: The results, one a draw.
        draws: How many draws the protocol has.
    """

    units: tuple[Mapping[str, Any], ...]
    draws: int

    def only(self, drawn: Collection[int]) -> Summary:
        """The same with these draws alone."""
        return Summary(tuple(unit for unit in self.units if unit["draw"] in drawn), self.draws)

    def of_draws(self, figure: str, organ: str | None = None) -> list[float]:
        """The mean over cases and organs of a figure, for each draw."""
        means = (_mean(_values([unit], figure, organ)) for unit in self.units)
        return [mean for mean in means if mean is not None]

    def mean(self, figure: str = "dice", organ: str | None = None) -> float | None:
        """The mean over draws; None where nothing was measured."""
        return _mean(self.of_draws(figure, organ))

    def deviation(self, figure: str = "dice", organ: str | None = None) -> float | None:
        """The standard deviation over draws, or over cases where there is one draw only."""
        values = self.of_draws(figure, organ)
        if self.draws == 1:
            values = [v for values in self.of_cases(figure, organ).values() for v in values]
        return statistics.stdev(values) if len(values) > 1 else None

    def of_cases(self, figure: str = "dice", organ: str | None = None) -> dict[str, list[float]]:
        """For each case the mean over organs of a figure, one value a draw."""
        found: dict[str, list[float]] = {}
        for unit in self.units:
            for case in unit["cases"]:
                mean = _mean(_values([{"cases": [case]}], figure, organ))
                if mean is not None:
                    found.setdefault(case["name"], []).append(mean)
        return dict(sorted(found.items()))

    def hd95(self, organ: str | None = None) -> tuple[float | None, int]:
        """Mean of HD95 in mm where there is one, and how often there is none: organs missed or made up."""
        scores = list(_scores(self.units, organ))
        finite = [score["hd95_mm"] for score in scores if score["hd95_mm"] is not None]
        missed = sum(score["hd95_mm"] is None and score["dice"] is not None for score in scores)
        return _mean(finite), missed

    @property
    def organs(self) -> list[str]:
        return list(dict.fromkeys(o for unit in self.units for case in unit["cases"] for o in case["scores"]))

    @property
    def minutes(self) -> set[float]:
        """Training times that were asked for."""
        found = set()
        for unit in self.units:
            settings = unit["settings"]
            recipe = settings.get("recipe", {}).get("training", {})
            minutes = settings.get("minutes", recipe.get("minutes"))
            if minutes is not None:
                found.add(minutes)
        return found

    @property
    def reach_mm(self) -> float:
        """How far away the slices are that the decoder of outlines saw, too, as the recipe says; 0 without a recipe."""
        return self.units[0]["settings"].get("recipe", {}).get("reach_mm", 0.0)

    @property
    def steps(self) -> list[int]:
        """Steps that the trainings made, of each draw; none of a draw whose method is not trained."""
        return [steps for unit in self.units if (steps := _steps(unit["record"])) is not None]


def summaries(part: str, folder: Path | None = None) -> dict[tuple[str, str], Summary]:
    """What was measured, by protocol and method.

    Args:
        part: "development" or "test".
        folder: With the results; None takes the benchmarks' own.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for path in sorted(((folder or RESULTS) / "units").glob(f"*/*_{part}.json")):
        unit = json.loads(path.read_text(encoding="utf-8"))
        if unit["protocol"] in PROTOCOLS:
            found.setdefault((unit["protocol"], unit["method"]), []).append(unit)
    return {
        (protocol, method): Summary(
            tuple(sorted(units, key=lambda unit: unit["draw"])), len(PROTOCOLS[protocol].draws)
        )
        for (protocol, method), units in found.items()
    }


def _steps(record: Mapping[str, Any]) -> int | None:
    """Of a training, or of all parts of one that was made in parts: each part has a record of its own."""
    parts = [record, *(value for value in record.values() if isinstance(value, Mapping))]
    made = [part["iterations"] for part in parts if part.get("iterations") is not None]
    return sum(made) if made else None


def _scores(units: Iterable[Mapping[str, Any]], organ: str | None) -> Iterator[Mapping[str, Any]]:
    for unit in units:
        for case in unit["cases"]:
            for name, score in case["scores"].items():
                if organ in (None, name):
                    yield score


def _values(units: Iterable[Mapping[str, Any]], figure: str, organ: str | None) -> list[float]:
    return [score[figure] for score in _scores(units, organ) if score[figure] is not None]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
