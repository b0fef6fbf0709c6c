"""Segments labelled cases that no weight has seen, and scores them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import OutOfMemoryError
from .files import atomic_path
from .geometry import to_canonical
from .json_values import to_json_value
from .labelled_files import LabelledFiles
from .labelmaps import LabelMap
from .metrics import OrganScore, score_case
from .organ_names import chosen_organs, organ_key
from .out_of_memory import telling_memory
from .progress import Progress, ProgressEvent
from .scored_cases import check_scored_cases, naming_case, organs_by_label, read_scored_case
from .segmenter import Segmenter, SegmentOptions
from .volumes import Volume
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

    def deviation(self) -> float:
        """Standard deviation over two or more cases of the case's mean Dice, as of a sample."""
        means = [Evaluation([case]).mean() for case in self.cases]
        known = [mean for mean in means if not np.isnan(mean)]
        return float(np.std(known, ddof=1)) if len(known) > 1 else float("nan")

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
        """Writes the scores as JSON, whole or not at all.

        Raises:
            OutputError: The file cannot be written.
        """
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
    """Segments and scores cases; organs that the prior or the labels do not know are left out, with a warning.

    Raises:
        InputError: A case was used to train the prior or its backbone, shares no organ with the prior, or cannot be
            scored; or the prior does not know an organ of the options.
        OutOfMemoryError: The device has too little memory for the networks or for a case.
    """
    options = options or SegmentOptions()
    segmenter = Segmenter(loaded.backbone.backbone, loaded.prior, device=device)
    known = loaded.prior.config.organs
    # The segmenter would refuse an unknown name too, but only when all cases are read.
    organs = tuple(chosen_organs(known, options.organs))
    _warn_of_unscored(cases, organs, known)
    return evaluate_by(
        lambda volume, _: segmenter.segment(volume, options).labels,
        cases,
        organs=organs,
        training_cases=loaded.training_cases,
        training_images=loaded.header.training.get("image_digests", ()),
        progress=progress,
    )


def _warn_of_unscored(cases: Sequence[LabelledFiles], organs: Sequence[str], known: Sequence[str]) -> None:
    """Says which organs no label names, and which labels are no organs of the prior."""
    labels = {organ_key(name): name for case in cases for name in case.label_names.values()}
    unlabelled = [organ for organ in organs if organ_key(organ) not in labels]
    if unlabelled:
        logger.warning("Not scored, for no label has the name: %s.", ", ".join(unlabelled))
    keys = {organ_key(organ) for organ in known}
    unknown = [name.strip() or "(a label without a name)" for key, name in labels.items() if key not in keys]
    if unknown:
        logger.warning("Not scored, for the prior does not know them: %s.", ", ".join(unknown))


def evaluate_by(
    segment: Callable[[Volume, LabelledFiles], np.ndarray],
    cases: Sequence[LabelledFiles],
    *,
    organs: Sequence[str],
    training_cases: Sequence[str],
    training_images: Collection[str] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Scores any way to segment; organs that the labels do not know are left out.

    Args:
        segment: Gives labels `(z, y, x)` of a volume, 1 for the first organ; only methods prompted with the truth may
            look at the case.
        cases: To segment and score.
        organs: Names of the labels.
        training_cases: Every case that any weights in use have seen.
        training_images: What `image_digest` gives for the images that they have seen, where that is known.
        progress: Called at the start and after each case, first of the reading ("read"), then of the scoring.

    Raises:
        InputError: A case is among the training cases or has one of their images, its labels name none of the
            organs, or it cannot be read; all are looked at before the first is segmented.
        OutOfMemoryError: There is too little memory for a case or its scores.
    """
    report = progress or (lambda _: None)
    check_scored_cases(
        cases,
        organs,
        training_cases=training_cases,
        training_images=training_images,
        on_checked=lambda done: report(ProgressEvent("read", done, len(cases))),
    )
    results: list[CaseResult] = []
    report(ProgressEvent("evaluate", 0, len(cases)))
    for case in cases:
        results.append(_evaluate_case(segment, case, organs))
        report(ProgressEvent("evaluate", len(results), len(cases)))
        logger.info("%s: Dice %.3f", case.name, Evaluation(results[-1:]).mean())
    return Evaluation(results)


def _evaluate_case(
    segment: Callable[[Volume, LabelledFiles], np.ndarray], case: LabelledFiles, organs: Sequence[str]
) -> CaseResult:
    volume, truth = read_scored_case(case)
    started = time.perf_counter()
    # A large case may need more memory than the others; other errors are not a matter of the case.
    with naming_case(case, OutOfMemoryError):
        labels = segment(volume, case)
        seconds = time.perf_counter() - started
        with telling_memory("its scores"):
            scores = _scores(labels, truth, organs_by_label(case, organs), organs)
    return CaseResult(case.name, volume.modality, scores, seconds)


def _scores(
    labels: np.ndarray, truth: LabelMap, named: Mapping[int, str], organs: Sequence[str]
) -> dict[str, OrganScore]:
    """The scores of labels, 1 for the first of `organs`, on the grid of a truth whose labels are `named`."""
    values = {organ: value for value, organ in enumerate(organs, start=1) if organ in named.values()}
    reference = np.zeros_like(labels)
    for value, organ in named.items():
        reference[truth.array == value] = values[organ]
    # In axial slices, however the file stores them: one of the figures counts by slices.
    order = to_canonical(truth.geometry)
    return score_case(order.view(labels), order.view(reference), values, order.geometry.spacing[::-1])
