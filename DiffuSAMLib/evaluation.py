"""Segments labelled cases that no weight has seen, and scores them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .datasets import LabelledFiles
from .errors import InputError
from .files import atomic_path
from .json_values import to_json_value
from .labelmaps import check_same_grid, read_labelmap
from .metrics import OrganScore, score_case
from .progress import Progress, ProgressEvent
from .segmenter import Segmenter, SegmentOptions
from .splits import refuse_overlap
from .volumes import Volume, read_volume
from .weights import LoadedPrior

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseResult:
    """Scores of one case and the time it took in seconds."""

    name: str
    modality: str
    scores: dict[str, OrganScore]
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Scores of several cases."""

    cases: Sequence[CaseResult]

    def mean(self, figure: str = "dice", *, organ: str | None = None) -> float:
        """Mean of a figure of `OrganScore` over cases and organs, whole volumes; nan (organ nowhere) left out."""
        values = [
            getattr(score, figure)
            for case in self.cases
            for name, score in case.scores.items()
            if organ in (None, name) and not np.isnan(getattr(score, figure))
        ]
        return float(np.mean(values)) if values else float("nan")

    def deviation(self, figure: str = "dice", *, organ: str | None = None) -> float:
        """Standard deviation over cases of the case's mean."""
        means = [Evaluation([case]).mean(figure, organ=organ) for case in self.cases]
        known = [mean for mean in means if not np.isnan(mean)]
        return float(np.std(known)) if known else float("nan")

    @property
    def organs(self) -> list[str]:
        return list(dict.fromkeys(name for case in self.cases for name in case.scores))

    def to_json(self) -> dict[str, Any]:
        figures = ("dice", "dice_z_cropped", "hd95_mm", "surface_dice")
        summary = {
            organ or "mean": {figure: self.mean(figure, organ=organ) for figure in figures}
            for organ in (*self.organs, None)
        }
        content = {
            "schema_version": 1,
            "summary": summary,
            "dice_deviation": self.deviation(),
            "cases": [asdict(case) for case in self.cases],
        }
        return to_json_value(content)

    def write(self, path: Path) -> None:
        """Writes the scores as JSON, whole or not at all."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="ascii")

    def table(self) -> str:
        """A Markdown table, one case a row, and the means."""
        organs = self.organs
        rows = ["| case | " + " | ".join(organs) + " | mean |", "| --- |" + " --- |" * (len(organs) + 1)]
        for case in self.cases:
            cells = [f"{case.scores[organ].dice:.3f}" if organ in case.scores else "" for organ in organs]
            rows.append(f"| {case.name} | {' | '.join(cells)} | {Evaluation([case]).mean():.3f} |")
        means = " | ".join(f"{self.mean(organ=organ):.3f}" for organ in organs)
        rows.append(f"| **mean** | {means} | **{self.mean():.3f}** |")
        return "\n".join(rows)


def evaluate(
    loaded: LoadedPrior,
    cases: Sequence[LabelledFiles],
    *,
    options: SegmentOptions | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """Segments and scores cases; organs that the prior or the labels do not know are left out.

    Raises:
        InputError: A case was used to train the prior or its backbone, or shares no organ with the prior.
    """
    options = options or SegmentOptions()
    segmenter = Segmenter(loaded.backbone.backbone, loaded.prior, device=device)
    known = loaded.prior.config.organs
    organs = tuple(organ for organ in known if options.organs is None or organ in options.organs)
    return evaluate_by(
        lambda volume, _: segmenter.segment(volume, options).labels,
        cases,
        organs=organs or known,
        training_cases=loaded.training_cases,
        progress=progress,
    )


def evaluate_by(
    segment: Callable[[Volume, LabelledFiles], np.ndarray],
    cases: Sequence[LabelledFiles],
    *,
    organs: Sequence[str],
    training_cases: Sequence[str],
    progress: Progress | None = None,
) -> Evaluation:
    """Scores any way to segment; organs that the labels do not know are left out.

    Args:
        segment: Gives labels `(z, y, x)` of a volume, 1 for the first organ; only methods prompted with the truth may
            look at the case.
        cases: To segment and score.
        organs: Names of the labels.
        training_cases: Every case that any weights in use have seen.
        progress: Called at the start and after each case.

    Raises:
        InputError: A case is among the training cases, or its labels name none of the organs.
    """
    refuse_overlap(training_cases, [case.name for case in cases])
    results: list[CaseResult] = []
    report = progress or (lambda _: None)
    report(ProgressEvent("evaluate", 0, len(cases)))
    for case in cases:
        results.append(_evaluate_case(segment, case, organs))
        report(ProgressEvent("evaluate", len(results), len(cases)))
        logger.info("%s: Dice %.3f", case.name, Evaluation(results[-1:]).mean())
    return Evaluation(results)


def _evaluate_case(
    segment: Callable[[Volume, LabelledFiles], np.ndarray], case: LabelledFiles, organs: Sequence[str]
) -> CaseResult:
    volume = read_volume(case.image, modality=case.modality)
    truth = read_labelmap(case.labels, names=dict(case.label_names))
    check_same_grid(volume.geometry, truth.geometry)
    started = time.perf_counter()
    labels = segment(volume, case)
    seconds = time.perf_counter() - started
    values = {organ: value for value, organ in enumerate(organs, start=1)}
    reference = np.zeros_like(labels)
    shared = {}
    for value, organ in case.label_names.items():
        if organ in values:
            reference[truth.array == value] = values[organ]
            shared[organ] = values[organ]
    if not shared:
        raise InputError(
            f"The labels of {case.name} name none of the prior's organs: {', '.join(values)}.",
            hint="Check the label names.",
        )
    ordered = {organ: value for organ, value in values.items() if organ in shared}
    scores = score_case(labels, reference, ordered, volume.geometry.spacing[::-1])
    return CaseResult(case.name, volume.modality, scores, seconds)
