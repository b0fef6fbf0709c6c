"""Labelled volumes as stacks of square training slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from .errors import InputError
from .labelled_files import LabelledFiles, read_case
from .organ_names import organ_key
from .planes import Plane, to_plane
from .slices import SliceGrid, as_channels
from .volumes import Volume, normalise

Origin = Literal["scan", "twin", "procedural"]


@dataclass(frozen=True)
class LabelledStack:
    """One case as slices for training.

    Attributes:
        name: The case.
        modality: "CT" or "MR".
        slices: uint8 `(n, s, s)`, normalised intensities times 255.
        labels: uint8 `(n, s, s)`, index into the organs of the training plus 1, 0 elsewhere.
        known: For every organ of the training whether this case has labels for it: bool `(organs,)`.
        spacing: Distance of voxels `(z, y, x)` in mm.
        origin: What made the images: a scanner, or this program, of a scan ("twin") or of nothing.
    """

    name: str
    modality: str
    slices: np.ndarray
    labels: np.ndarray
    known: np.ndarray
    spacing: tuple[float, float, float]
    origin: Origin = "scan"

    def images(self) -> torch.Tensor:
        """float32 `(n, s, s)` in `[0, 1]`."""
        return torch.from_numpy(self.slices).float() / 255

    def channels(self, numbers: torch.Tensor, *, context: int) -> torch.Tensor:
        """Slices of these numbers `(b,)` as `slices.as_channels` makes them: float32 `(b, 3, s, s)` in `[0, 1]`."""
        return as_channels(torch.from_numpy(self.slices), numbers, context=context).float() / 255


def to_stack(
    volume: Volume,
    labels: np.ndarray,
    label_names: Mapping[int, str],
    *,
    name: str,
    organs: Sequence[str],
    size: int,
    plane: Plane = "axial",
) -> LabelledStack:
    """A volume `(z, y, x)` and its labels on the same grid as training slices of `size` pixels."""
    order = to_plane(volume.geometry, plane)
    grid = SliceGrid.fit(order.geometry, size)
    stack = torch.from_numpy(np.ascontiguousarray(order.apply(normalise(volume))))
    table = np.zeros(256, np.uint8)
    numbers = {organ_key(organ): number for number, organ in enumerate(organs, 1)}
    named = {value: organ_key(organ) for value, organ in label_names.items()}
    for value, key in named.items():
        table[value] = numbers.get(key, 0)
    rows, columns = grid.pixel_share
    squares = (grid.to_slices(stack) * 255).round().clamp(0, 255).byte().numpy()
    return LabelledStack(
        name=name,
        modality=volume.modality,
        slices=squares,
        labels=grid.labels_to_slices(table[order.apply(labels)]),
        known=np.isin(np.array(list(numbers)), list(named.values())),
        spacing=(
            order.geometry.spacing[2],
            order.geometry.spacing[1] / rows,
            order.geometry.spacing[0] / columns,
        ),
    )


def load_stack(case: LabelledFiles, *, organs: Sequence[str], size: int) -> LabelledStack:
    """Reads one case from disk.

    Raises:
        InputError: A file cannot be read, the grids differ, or none of the organs is labelled.
    """
    volume, labels = read_case(case)
    stack = to_stack(volume, labels.array, case.label_names, name=case.name, organs=organs, size=size)
    if not stack.labels.any():
        raise InputError(f"{case.labels} holds none of: {', '.join(organs)}.", hint="Check the label names.")
    return stack
