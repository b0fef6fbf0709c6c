"""Cases without the slices that a training holds out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .geometry import to_canonical
from .held_out import HeldOut
from .labelled_files import LabelledFiles, read_case
from .labelmaps import LabelMap
from .volumes import Volume


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
