"""A look at labelled cases before a training: what would spoil it is found in seconds, not after an hour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .errors import DiffuSAMError, InputError
from .geometry import to_canonical
from .image_digest import image_digest
from .label_tables import contradiction
from .labelled_files import LabelledFiles, read_case
from .labelmaps import LabelMap, read_labelmap
from .volumes import Volume

# Voxel sizes that differ by more than this between cases are worth a word.
SPACING_RATIO = 2.0
# An organ on fewer slices of all cases can hardly be learnt.
FEW_SLICES = 5
FEW_VOXELS = 50
Level = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One sentence about a case, or about all of them where `case` is None; an error stops the training."""

    level: Level
    case: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.case}: {self.message}" if self.case else self.message


@dataclass(frozen=True)
class CaseFacts:
    """What matters of one case.

    Attributes:
        name: Of the case.
        modality: "CT" or "MR".
        spacing: Of the axial stack: in plane (x, y) and between slices, in mm.
        shape: Slices, rows and columns of the axial stack.
        voxels: Of each organ that the case names.
        slices: That show the organ.
        unnamed: Label values that have no name.
        overlap: Voxels that several of its segments share.
        digest: Of the image, see `image_digest`.
    """

    name: str
    modality: str
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    voxels: dict[str, int]
    slices: dict[str, int]
    unnamed: tuple[int, ...]
    overlap: int
    digest: str

    @classmethod
    def of(cls, case: LabelledFiles, volume: Volume, labels: LabelMap, organs: Sequence[str]) -> CaseFacts:
        order = to_canonical(volume.geometry)
        stack = order.apply(labels.array)
        counts = np.bincount(stack.reshape(-1), minlength=256)
        voxels, slices = {}, {}
        for organ in organs:
            values = [value for value, name in case.label_names.items() if name == organ]
            if values:
                voxels[organ] = int(counts[values].sum())
                slices[organ] = int(np.isin(stack, values).any((1, 2)).sum()) if voxels[organ] else 0
        unnamed = [n for n in range(1, 256) if counts[n] and not case.label_names.get(n, "").strip()]
        x, y, z = order.geometry.spacing
        return cls(
            name=case.name,
            modality=volume.modality,
            spacing=(float(x), float(y), float(z)),
            shape=order.geometry.shape,
            voxels=voxels,
            slices=slices,
            unnamed=tuple(unnamed),
            overlap=labels.overlap,
            digest=image_digest(volume),
        )


@dataclass(frozen=True)
class Preflight:
    """The outcome of the check.

    Attributes:
        facts: Of the cases that could be read.
        findings: Sentences, errors first.
    """

    facts: tuple[CaseFacts, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "error"]

    def require_good(self) -> None:
        """Stops where there is an error.

        Raises:
            InputError: The first of them.
        """
        if self.errors:
            more = len(self.errors) - 1
            rest = (
                f" There {'is 1 more error' if more == 1 else f'are {more} more errors'} of this check."
                if more
                else ""
            )
            raise InputError(
                f"{self.errors[0]}{rest}", hint="Run with --check-only to see all that was found."
            )


def check_cases(
    cases: Sequence[LabelledFiles],
    organs: Sequence[str],
    *,
    on_read: Callable[[LabelledFiles, Volume, LabelMap], None] | None = None,
    on_checked: Callable[[int], None] | None = None,
) -> Preflight:
    """Reads every case once and says what is wrong or odd.

    Args:
        cases: With one spelling for each organ.
        organs: What is to be learnt.
        on_read: Given every case that can be used, so that it need not be read again.
        on_checked: Told how many cases were read.
    """
    findings: list[Finding] = []
    facts = []
    for number, case in enumerate(cases, start=1):
        own = _own_findings(case, organs)
        findings += own
        if not own:
            try:
                volume, labels = read_case(case)
            except DiffuSAMError as error:
                findings.append(Finding("error", case.name, str(error)))
            else:
                facts.append(CaseFacts.of(case, volume, labels, organs))
                findings += _case_findings(case, facts[-1], organs)
                if on_read is not None and any(facts[-1].voxels.values()):
                    on_read(case, volume, labels)
        if on_checked is not None:
            on_checked(number)
    findings += _common_findings(facts, organs, complete=len(facts) == len(cases))
    order: dict[str, int] = {"error": 0, "warning": 1, "info": 2}
    return Preflight(tuple(facts), tuple(sorted(findings, key=lambda f: order[f.level])))


def _own_findings(case: LabelledFiles, organs: Sequence[str]) -> list[Finding]:
    """Where an organ to be learnt has a blank name, or a segmentation's own names contradict the table given."""
    blank = [value for value, name in case.label_names.items() if not name.strip() and name in organs]
    if blank:
        one = len(blank) == 1
        which = f"label {blank[0]} has" if one else f"labels {', '.join(map(str, blank))} have"
        text = f"in {case.labels.name} the {'segment' if one else 'segments'} with {which} no name."
        todo = f"Name {'it' if one else 'them'} in 3D Slicer and save the file again, or say which organs to learn."
        return [Finding("error", case.name, f"{text} {todo}")]
    if not case.labels.name.lower().endswith(".seg.nrrd"):
        return []
    try:
        wrong = contradiction(case.labels, case.label_names, read_labelmap(case.labels).names)
    except InputError:
        return []  # said where the case is read
    return [Finding("error", case.name, str(wrong))] if wrong is not None else []


def _case_findings(case: LabelledFiles, facts: CaseFacts, organs: Sequence[str]) -> list[Finding]:
    def warn(message: str) -> Finding:
        return Finding("warning", case.name, message)

    if not any(facts.voxels.values()):
        text = f"{case.labels.name} holds none of: {', '.join(organs)}."
        return [Finding("error", case.name, f"{text} Check the label names.")]
    found = []
    for organ, voxels in facts.voxels.items():
        if not voxels:
            found.append(
                warn(
                    f"{organ} has no voxel here, so this case teaches that it is absent; "
                    "leave the case out if it was only not labelled."
                )
            )
        elif voxels < FEW_VOXELS:
            found.append(warn(f"{organ} has only {voxels} voxels here; check its label."))
    if facts.overlap:
        found.append(
            warn(
                f"its segments overlap in {facts.overlap} voxels; each of these counts for the last of its segments."
            )
        )
    if facts.unnamed:
        values = ", ".join(map(str, facts.unnamed[:8])) + (", ..." if len(facts.unnamed) > 8 else "")
        one = len(facts.unnamed) == 1
        text = f"label {values} has no name and counts" if one else f"labels {values} have no name and count"
        found.append(warn(f"{text} as background."))
    if facts.shape[0] == 1:
        found.append(warn("it is a single slice."))
    if min(facts.shape[1:]) < 16:
        found.append(warn(f"its axial slices have only {facts.shape[2]} x {facts.shape[1]} pixels."))
    return found


def _common_findings(facts: Sequence[CaseFacts], organs: Sequence[str], *, complete: bool) -> list[Finding]:
    found = []
    for name in sorted({f.name for f in facts if sum(g.name == f.name for g in facts) > 1}):
        found.append(Finding("error", None, f"Two cases are called {name}. Give each another name."))
    for organ in organs:
        slices = sum(each.slices.get(organ, 0) for each in facts)
        if complete and facts and not slices:
            found.append(Finding("error", None, f"No case shows {organ}. Check its labels, or leave it out."))
        elif 0 < slices < FEW_SLICES:
            count = "1 slice" if slices == 1 else f"{slices} slices"
            text = f"{organ} is on {count} of all cases, which is little to learn from."
            found.append(Finding("warning", None, text))
    modalities = {kind: [f.name for f in facts if f.modality == kind] for kind in ("CT", "MR")}
    if all(modalities.values()):
        text = "; ".join(f"{kind}: {_listed(names)}" for kind, names in modalities.items())
        found.append(
            Finding(
                "warning",
                None,
                f"The cases are of both modalities ({text}). "
                "If that is not so, state the modality, for example --modality MR.",
            )
        )
    for text, spacing in (
        ("distance between slices", [f.spacing[2] for f in facts]),
        ("pixel size in the axial plane", [max(f.spacing[:2]) for f in facts]),
        ("width of the axial plane", [f.spacing[0] * f.shape[2] for f in facts]),
    ):
        if spacing and max(spacing) > SPACING_RATIO * min(spacing):
            low, high = facts[int(np.argmin(spacing))], facts[int(np.argmax(spacing))]
            found.append(
                Finding(
                    "warning",
                    None,
                    f"The {text} disagrees: {min(spacing):.3g} mm in {low.name}, {max(spacing):.3g} mm in {high.name}.",
                )
            )
    seen: dict[str, str] = {}
    for each in facts:
        if each.digest in seen:
            found.append(
                Finding("warning", each.name, f"its image is the same as that of {seen[each.digest]}.")
            )
        seen.setdefault(each.digest, each.name)
    return found


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
