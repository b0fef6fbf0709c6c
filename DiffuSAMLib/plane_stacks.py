"""Training slices of the other planes than the axial one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .datasets import LabelledFiles, LabelledStack, read_case, to_stack
from .geometry import to_canonical
from .held_out import HeldOut
from .labelmaps import LabelMap
from .planes import Plane
from .volumes import Volume


def plane_stacks(
    cases: Sequence[LabelledFiles],
    planes: Sequence[Plane],
    *,
    organs: Sequence[str],
    size: int,
    held_out: HeldOut | None = None,
) -> list[LabelledStack]:
    """The cases as stacks of those of the planes that are not axial.

    Args:
        cases: Labelled cases.
        planes: Of the training.
        organs: Organ names, in the order of the label numbers.
        size: Side of the slices in pixels.
        held_out: Axial slices not to learn from: they are black in the other planes; a whole case is left out.

    Raises:
        InputError: A file cannot be read, or the grids differ.
    """
    stacks: list[LabelledStack] = []
    others = [plane for plane in planes if plane != "axial"]
    for case in cases if others else ():
        if held_out is not None and held_out.blocked is None and held_out.stack.name == case.name:
            continue
        volume, labels = part_to_learn(case, held_out)
        for plane in others:
            stacks.append(
                to_stack(
                    volume,
                    labels.array,
                    case.label_names,
                    name=f"{case.name}, {plane}",
                    organs=organs,
                    size=size,
                    plane=plane,
                )
            )
    return stacks


def part_to_learn(case: LabelledFiles, held_out: HeldOut | None) -> tuple[Volume, LabelMap]:
    """A case from disk; slices of it that are held out are black and without labels.

    Raises:
        InputError: A file cannot be read, or the grids differ.
    """
    volume, labels = read_case(case)
    if held_out is None or held_out.blocked is None or held_out.stack.name != case.name:
        return volume, labels
    return _without(volume, labels, held_out.blocked)


def _without(volume: Volume, labels: LabelMap, blocked: range) -> tuple[Volume, LabelMap]:
    """Copies without the axial slices of these numbers in the canonical stack."""
    order = to_canonical(volume.geometry)
    array, values = volume.array.copy(), labels.array.copy()
    numbers = np.array(blocked)
    order.view(array)[numbers] = volume.array.min()
    order.view(values)[numbers] = 0
    return replace(volume, array=array), replace(labels, array=values)
