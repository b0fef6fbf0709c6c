"""Between a canonical axial stack and the square slices that SAM2 sees, and the slices seen beside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import Geometry


@dataclass(frozen=True)
class SliceGrid:
    """How a stack's slices lie in squares of `size` pixels: isotropic in plane, centred, padded.

    Attributes:
        rows, columns: In-plane shape of the stack.
        size: Side of the square in pixels.
        height, width: The part of the square that the slice fills, in pixels.
    """

    rows: int
    columns: int
    size: int
    height: int
    width: int

    @classmethod
    def fit(cls, geometry: Geometry, size: int) -> SliceGrid:
        """The grid for a canonical geometry: its longer side (in mm) fills the square."""
        _, rows, columns = geometry.shape
        extent_x, extent_y = columns * geometry.spacing[0], rows * geometry.spacing[1]
        pixel = max(extent_x, extent_y) / size
        height = min(size, max(1, round(extent_y / pixel)))
        width = min(size, max(1, round(extent_x / pixel)))
        return cls(rows=rows, columns=columns, size=size, height=height, width=width)

    @property
    def pixel_share(self) -> tuple[float, float]:
        """Pixels of the square for each row and for each column of the stack."""
        return self.height / self.rows, self.width / self.columns

    @property
    def _offsets(self) -> tuple[int, int]:
        return (self.size - self.height) // 2, (self.size - self.width) // 2

    def to_slices(self, stack: Tensor) -> Tensor:
        """`(n, rows, columns)` to `(n, s, s)`, padded with 0."""
        top, left = self._offsets
        resized = F.interpolate(
            stack[:, None],
            size=(self.height, self.width),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        padding = (left, self.size - self.width - left, top, self.size - self.height - top)
        return F.pad(resized, padding)[:, 0]

    def labels_to_slices(self, labels: np.ndarray) -> np.ndarray:
        """Label map `(n, rows, columns)` to `(n, s, s)`, nearest neighbour, padded with 0."""
        top, left = self._offsets
        picked_rows = ((np.arange(self.height) + 0.5) * self.rows / self.height).astype(int)
        picked_columns = ((np.arange(self.width) + 0.5) * self.columns / self.width).astype(int)
        square = np.zeros((len(labels), self.size, self.size), labels.dtype)
        square[:, top : top + self.height, left : left + self.width] = labels[:, picked_rows][
            :, :, picked_columns
        ]
        return square

    def spacing(self, geometry: Geometry, side: int) -> tuple[float, float, float]:
        """Distance `(z, y, x)` in mm of the positions of maps over the whole square, `side` of them in a row."""
        across = self.size / side
        down, right = self.pixel_share
        x, y, z = geometry.spacing
        return z, y / down * across, x / right * across

    def from_slices(self, maps: Tensor) -> Tensor:
        """Maps over the whole square, at any resolution, back to the stack's pixels.

        Args:
            maps: `(n, c, k, k)`, for example mask logits at `k = s / 4`.

        Returns:
            `(n, c, rows, columns)`, linear interpolation.
        """
        top, left = self._offsets
        y = _square_coordinates(self.rows, self.height, top, self.size)
        x = _square_coordinates(self.columns, self.width, left, self.size)
        grid = torch.stack(
            (x.to(maps).expand(self.rows, -1), y.to(maps)[:, None].expand(-1, self.columns)), dim=-1
        )
        grid = grid.expand(len(maps), -1, -1, -1)
        return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _square_coordinates(count: int, filled: int, offset: int, size: int) -> Tensor:
    """Where the centres of `count` stack pixels lie in the square, in grid_sample's -1 to 1."""
    pixels = (torch.arange(count, dtype=torch.float64) + 0.5) * filled / count + offset
    return (pixels / size * 2 - 1).float()


def as_channels(slices: Tensor, indices: Tensor, *, context: int) -> Tensor:
    """Slices `indices` as three-channel images.

    Args:
        slices: `(n, s, s)`.
        indices: `(b,)`.
        context: 0 repeats the slice three times, as Meta's checkpoints want it; 1 puts the neighbours below
            and above into the first and last channel (2.5D), the end slices being their own neighbours.

    Returns:
        `(b, 3, s, s)`.
    """
    offsets = torch.tensor([-context, 0, context])
    neighbours = (indices[:, None] + offsets).clamp(0, len(slices) - 1)
    return slices[neighbours]


def numbers_beside(
    numbers: Sequence[int], *, count: int, spacing: float, reach_mm: float
) -> tuple[list[int], list[int]]:
    """For each slice of a stack the number of the one below and of the one above it.

    Args:
        numbers: Of the slices.
        count: How many the stack has; its ends stand for what is beyond.
        spacing: Distance of neighbours in mm.
        reach_mm: How far away, to the nearest slice but at least one.
    """
    step = max(1, round(reach_mm / spacing))
    return [max(0, number - step) for number in numbers], [
        min(count - 1, number + step) for number in numbers
    ]
