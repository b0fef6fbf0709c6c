"""What the training cases tell about each label, for the clean-up of what a prior finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .hounsfield import is_soft, is_solid
from .labelled_stacks import LabelledStack
from .layout import Position, centre_of, layout_of
from .organ_names import organ_key
from .organ_regions import regions_of
from .postprocessing import has_several_pieces
from .procedural import ORGAN_NAMES
from .volumes import CT_WINDOW_HU


def label_traits(
    stacks: Sequence[LabelledStack], organs: tuple[str, ...], *, procedural: int = 0
) -> dict[str, Any]:
    """The fields `in_pieces`, `solid`, `soft`, `layout` and `regions` of a prior's configuration.

    Args:
        stacks: The training cases, with labels 1 for the first of `organs`.
        organs: Names of the labels.
        procedural: How many procedural abdomens are learnt from besides: what CT shows of the organs that they have is
            known without a case.
    """
    layout = _layout(stacks, organs)
    solid, soft = _tissues(stacks, organs)
    if procedural and not any(stack.modality == "CT" for stack in stacks):
        solid = soft = tuple(organ for organ in organs if organ_key(organ) in ORGAN_NAMES.values())
    return {
        "in_pieces": _in_pieces(stacks, organs),
        "solid": solid,
        "soft": soft,
        "layout": layout,
        "regions": regions_of(_positions(stacks, organs), layout),
    }


def _in_pieces(stacks: Sequence[LabelledStack], organs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        organ
        for value, organ in enumerate(organs, start=1)
        if any(has_several_pieces(stack.labels == value) for stack in stacks)
    )


def _tissues(
    stacks: Sequence[LabelledStack], organs: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Organs without fat or gas in at least half of the CT cases that show them; without anything bright in all."""
    seen: dict[str, list[tuple[bool, bool]]] = {organ: [] for organ in organs}
    low, high = CT_WINDOW_HU
    for stack in (stack for stack in stacks if stack.modality == "CT"):
        hu = stack.images().numpy() * (high - low) + low
        for value, organ in enumerate(organs, start=1):
            if (mask := stack.labels == value).any():
                seen[organ].append((is_solid(hu[mask]), is_soft(hu[mask])))
    shown = {organ: cases for organ, cases in seen.items() if cases}
    solid = (organ for organ, cases in shown.items() if 2 * sum(one for one, _ in cases) >= len(cases))
    return tuple(solid), tuple(organ for organ, cases in shown.items() if all(one for _, one in cases))


def _layout(stacks: Sequence[LabelledStack], organs: tuple[str, ...]) -> dict[str, Position]:
    centres: list[dict[str, Position]] = []
    for stack in stacks:
        # One mask at a time: of a hundred organs, all of them take gigabytes.
        masks = ((organ, stack.labels == value) for value, organ in enumerate(organs, start=1))
        centres.append({organ: centre_of(mask, stack.spacing) for organ, mask in masks if mask.any()})
    return layout_of(centres)


def _positions(
    stacks: Sequence[LabelledStack], organs: tuple[str, ...]
) -> Iterator[Mapping[str, np.ndarray]]:
    """Of one case after another the positions `(n, 3)` of its organs' voxels in mm."""
    for stack in stacks:
        voxels = {organ: np.argwhere(stack.labels == value) for value, organ in enumerate(organs, start=1)}
        yield {organ: found * stack.spacing for organ, found in voxels.items() if len(found)}
