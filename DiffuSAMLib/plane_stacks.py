"""Training slices of the other planes than the axial one."""

from __future__ import annotations

from collections.abc import Sequence

from .held_out import HeldOut
from .labelled_files import LabelledFiles
from .labelled_stacks import LabelledStack, to_stack
from .learnt_parts import part_to_learn
from .planes import Plane


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
        if held_out is not None and held_out.leaves_out(case.name):
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
