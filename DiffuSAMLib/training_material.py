"""All that a training learns from: the cases in their planes, twins of them, and procedural abdomens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .held_out import HeldOut
from .labelled_files import LabelledFiles
from .labelled_stacks import LabelledStack
from .mr_twins import mr_twins
from .plane_stacks import plane_stacks
from .planes import Plane
from .procedural_stacks import procedural_stacks
from .recipe import Recipe


def training_material(
    cases: Sequence[LabelledFiles],
    stacks: Sequence[LabelledStack],
    planes: Sequence[Plane],
    recipe: Recipe,
    *,
    organs: Sequence[str],
    size: int,
    held_out: HeldOut | None = None,
) -> list[LabelledStack]:
    """The stacks to draw slices from; of one that is held out in part, these slices are in it still.

    Args:
        cases: Labelled cases.
        stacks: Their axial stacks, in the same order.
        planes: Of the training.
        recipe: Says how many twins and procedural abdomens there are.
        organs: Organ names, in the order of the label numbers.
        size: Side of the slices in pixels.
        held_out: What not to learn from.

    Raises:
        InputError: A file cannot be read, or the grids differ.
    """
    learnt = stacks_to_learn(stacks, held_out)
    modalities = modalities_of(learnt)
    of_ct = [case for case, stack in zip(cases, stacks, strict=True) if stack.modality == "CT"]
    return [
        *learnt,
        *plane_stacks(cases, planes, organs=organs, size=size, held_out=held_out),
        *mr_twins(
            of_ct, recipe.twins, organs=organs, size=size, beside_mr="MR" in modalities, held_out=held_out
        ),
        *procedural_stacks(recipe.procedural, organs=organs, size=size, real=modalities),
    ]


def stacks_to_learn(stacks: Sequence[LabelledStack], held_out: HeldOut | None) -> list[LabelledStack]:
    """Those that are not held out whole."""
    return [stack for stack in stacks if held_out is None or not held_out.leaves_out(stack.name)]


def modalities_of(stacks: Iterable[LabelledStack]) -> list[str]:
    """Each once, sorted."""
    return sorted({stack.modality for stack in stacks})
