"""Labelled cases to be learnt from: reading them, and finding what a recipe cannot make of them before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import InputError
from .geometry import Geometry
from .held_out import HeldOut, choose_held_out
from .labelled_files import LabelledFiles
from .labelled_stacks import LabelledStack, to_stack
from .labelmaps import LabelMap
from .organ_names import organ_key
from .out_of_memory import telling_memory
from .planes import Plane, planes_to_learn
from .preflight import Finding, check_cases
from .procedural import ORGAN_NAMES
from .progress import Progress, ProgressEvent
from .recipe import Recipe
from .training_material import modalities_of, stacks_to_learn
from .volumes import Volume


@dataclass(frozen=True)
class LearntCases:
    """Labelled cases that a recipe can be trained on.

    Attributes:
        stacks: Axial, in the order of the cases.
        planes: In which the cases are cut into slices.
        held_out: What of them is not learnt from.
        modalities: Of those that are learnt from.
        digests: What `image_digest` gives for their images, sorted.
    """

    stacks: list[LabelledStack]
    planes: tuple[Plane, ...]
    held_out: HeldOut | None
    modalities: list[str]
    digests: list[str]


def read_learnt_cases(
    cases: Sequence[LabelledFiles],
    organs: tuple[str, ...],
    recipe: Recipe,
    *,
    progress: Progress | None = None,
    on_finding: Callable[[Finding], None] | None = None,
) -> LearntCases:
    """Reads and checks cases.

    Args:
        cases: With one spelling for each organ.
        organs: What is to be learnt.
        recipe: How.
        progress: Called as cases are read.
        on_finding: Told what the check of the cases finds.

    Raises:
        InputError: A case cannot be used, or the recipe asks for what cannot be made of these.
        OutOfMemoryError: There is too little memory for all cases at once.
    """
    if recipe.procedural and not {organ_key(organ) for organ in organs} & set(ORGAN_NAMES.values()):
        raise InputError(
            f"Procedural abdomens show only: {', '.join(ORGAN_NAMES.values())}.",
            hint="Leave out --procedural.",
        )
    with telling_memory("these cases"):
        stacks, geometries, digests = _read(cases, organs, recipe.image_size, progress, on_finding)
    planes = planes_to_learn(recipe.planes, geometries)
    held_out = choose_held_out(stacks, recipe.validation, organs=organs)
    modalities = modalities_of(stacks_to_learn(stacks, held_out))
    if recipe.twins and "CT" not in modalities:
        raise InputError(
            "MR-like twins are made from CT, and none of the cases to learn from is CT.",
            hint="Leave out --twins.",
        )
    return LearntCases(stacks, planes, held_out, modalities, digests)


def _read(
    cases: Sequence[LabelledFiles],
    organs: tuple[str, ...],
    size: int,
    progress: Progress | None,
    on_finding: Callable[[Finding], None] | None,
) -> tuple[list[LabelledStack], list[Geometry], list[str]]:
    """The cases as axial stacks, their grids, and the digests of their images, after the pre-flight check."""
    stacks: list[LabelledStack] = []
    geometries: list[Geometry] = []

    def keep(case: LabelledFiles, volume: Volume, labels: LabelMap) -> None:
        stacks.append(
            to_stack(volume, labels.array, case.label_names, name=case.name, organs=organs, size=size)
        )
        geometries.append(volume.geometry)

    def tell(done: int) -> None:
        if progress is not None:
            progress(ProgressEvent("read", done, len(cases)))

    check = check_cases(cases, organs, on_read=keep, on_checked=tell)
    if on_finding is not None:
        for finding in check.findings:
            on_finding(finding)
    check.require_good()
    shown = set().union(*(np.unique(stack.labels).tolist() for stack in stacks))
    if lost := [organ for value, organ in enumerate(organs, start=1) if value not in shown]:
        raise InputError(
            f"Slices of {size} pixels are too coarse for {', '.join(lost)}: no pixel of it is left.",
            hint="Crop the images around it, or choose a larger --image-size.",
        )
    return stacks, geometries, sorted({facts.digest for facts in check.facts})
