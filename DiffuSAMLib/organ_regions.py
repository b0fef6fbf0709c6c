"""Where an organ lies, seen from the others: what is found far from there is not the organ.

Anatomy is the same in modalities that a prior has not learnt from, where it cannot tell tissues well. In those that it
has learnt from there is nothing to gain, and unusual patients would lose.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import ndimage

from .layout import LEAST_OTHERS, Position, centre_of

CELL_MM = 10.0
# So far beyond where the organ lay in some training case it may lie as well: three patients are not all patients.
MARGIN_MM = 30.0
# Distances are capped here: a mask so far outside has lost in any case.
FURTHEST_MM = 75.0
# What a mask's logit loses for each mm beyond the margin.
PER_MM = 1.0
# Patients are at most so much larger or smaller than those of the layout.
LARGEST_SCALE = 4 / 3
# Index of a cell, in each direction.
FURTHEST_CELL = 100


@dataclass(frozen=True)
class OrganRegion:
    """The cells of 10 mm that some training case's organ lies in, in the frame of the layout.

    Attributes:
        start: Index `(z, y, x)` of the first cell; cell 0 has its middle at the layout's origin.
        shape: Of the block of cells, `(z, y, x)`.
        cells: Which of them, one bit each, the last axis fastest, in base64.

    Raises:
        ValueError: The cells are not as many as the shape says.
    """

    start: tuple[int, int, int]
    shape: tuple[int, int, int]
    cells: str

    def __post_init__(self) -> None:
        for name in ("start", "shape"):
            numbers = tuple(getattr(self, name))
            if len(numbers) != 3 or not all(
                isinstance(n, int) and abs(n) <= 2 * FURTHEST_CELL + 1 for n in numbers
            ):
                raise ValueError(f"a region's {name} must be three whole numbers, not {numbers}")
            object.__setattr__(self, name, numbers)
        try:
            count = len(base64.b64decode(self.cells, validate=True))
        except (TypeError, binascii.Error) as error:
            raise ValueError("a region's cells must be base64") from error
        if min(self.shape) < 1 or count != (math.prod(self.shape) + 7) // 8:
            raise ValueError(f"a region of {self.shape} cells has not {count} bytes")

    @classmethod
    def of_cells(cls, cells: np.ndarray) -> OrganRegion:
        """The region of cells of these indices `(n, 3)`, of which there is at least one."""
        start, taken = _block(cells)
        packed = base64.b64encode(np.packbits(taken).tobytes()).decode("ascii")
        z, y, x = (int(number) for number in start)
        depth, height, width = taken.shape
        return cls((z, y, x), (depth, height, width), packed)

    def taken(self) -> np.ndarray:
        """The cells, bool `shape`."""
        bits = np.unpackbits(
            np.frombuffer(base64.b64decode(self.cells), np.uint8), count=math.prod(self.shape)
        )
        return bits.reshape(self.shape).astype(bool)

    def distances(self, axes: Sequence[np.ndarray]) -> np.ndarray:
        """How far from the region, in mm, at most 75, places of the layout's frame are.

        Args:
            axes: Their coordinates along z, y and x in mm.

        Returns:
            float32 `(z, y, x)`.
        """
        beyond = math.ceil(FURTHEST_MM / CELL_MM)
        outside = ~np.pad(self.taken(), beyond)
        away = ndimage.distance_transform_edt(outside, sampling=CELL_MM).astype(np.float32)
        places = [axis / CELL_MM - first + beyond for axis, first in zip(axes, self.start, strict=True)]
        grid = np.meshgrid(*places, indexing="ij")
        return ndimage.map_coordinates(away, grid, order=1, mode="nearest").clip(max=FURTHEST_MM)


@dataclass(frozen=True)
class Frame:
    """Where a layout lies in a volume, and how large it is there.

    Attributes:
        origin: Of the layout, mm.
        scale: Larger than 1 in a patient who is larger than those of the layout.
    """

    origin: np.ndarray
    scale: float

    def within(self, positions: np.ndarray, axis: int | slice = slice(None)) -> np.ndarray:
        """Positions in mm, `(n, 3)` or along one axis, as the layout has them."""
        return (positions - self.origin[axis]) / self.scale


def frames_of(
    centres: Mapping[str, Position], layout: Mapping[str, Position], organs: Iterable[str]
) -> dict[str, Frame]:
    """How the layout lies in a volume, if organs lie as it says.

    Args:
        centres: Of the organs that were found, mm.
        layout: Their positions.
        organs: Which ones are looked for: each is not asked itself where the layout is.

    Returns:
        For each the median of what the others tell; not where they are fewer than two.
    """
    known = {name: np.asarray(place) for name, place in centres.items() if name in layout}
    scale = _scale_of(known, layout)
    origins = {name: place - scale * np.asarray(layout[name]) for name, place in known.items()}
    frames = {}
    for organ in organs:
        others = [origin for name, origin in origins.items() if name != organ]
        if len(others) >= LEAST_OTHERS:
            frames[organ] = Frame(np.median(others, axis=0), scale)
    return frames


def _scale_of(known: Mapping[str, np.ndarray], layout: Mapping[str, Position]) -> float:
    """How much farther apart organs lie than the layout says."""
    apart = [
        (np.linalg.norm(known[a] - known[b]), np.linalg.norm(np.subtract(layout[a], layout[b])))
        for a, b in combinations(known, 2)
    ]
    ratios = [found / expected for found, expected in apart if expected > CELL_MM]
    return float(np.clip(np.median(ratios), 1 / LARGEST_SCALE, LARGEST_SCALE)) if ratios else 1.0


def regions_of(
    cases: Iterable[Mapping[str, np.ndarray]], layout: Mapping[str, Position]
) -> dict[str, OrganRegion]:
    """The region of every organ of which the others tell where it is.

    Args:
        cases: Of each case the positions `(n, 3)` of the voxels of its organs, mm.
        layout: Of these cases.
    """
    seen: dict[str, list[np.ndarray]] = {}
    for case in cases:
        centres: dict[str, Position] = {
            organ: tuple(voxels.mean(axis=0).tolist()) for organ, voxels in case.items()
        }
        for organ, frame in frames_of(centres, layout, case).items():
            seen.setdefault(organ, []).append(_cells(frame.within(case[organ])))
    cells = {organ: np.concatenate(parts) for organ, parts in seen.items()}
    return {organ: OrganRegion.of_cells(indices) for organ, indices in cells.items() if len(indices)}


def _cells(positions: np.ndarray) -> np.ndarray:
    """Indices `(n, 3)` of the cells that positions `(m, 3)` in mm lie in, each once."""
    indices = np.round(positions / CELL_MM).astype(int)
    indices = indices[(np.abs(indices) <= FURTHEST_CELL).all(axis=1)]
    if not len(indices):
        return indices
    start, taken = _block(indices)
    return np.argwhere(taken) + start


def _block(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first cell `(3,)` of the smallest block that holds cells `(n, 3)`, and which of its cells these are."""
    start = cells.min(axis=0)
    taken = np.zeros(cells.max(axis=0) - start + 1, bool)
    taken[tuple((cells - start).T)] = True
    return start, taken


def regions_from_json(content: Mapping[str, Mapping[str, Any]]) -> dict[str, OrganRegion]:
    """What `dataclasses.asdict` has made of regions.

    Raises:
        TypeError, ValueError: It is something else.
    """
    return {organ: OrganRegion(**values) for organ, values in dict(content).items()}


def keep_to_regions(
    logits: np.ndarray,
    labels: np.ndarray,
    organs: Sequence[str],
    *,
    layout: Mapping[str, Position],
    regions: Mapping[str, OrganRegion],
    spacing: Position,
) -> None:
    """Takes from the logits of masks, in place, what lies far from where the other organs let the organ be expected.

    Args:
        logits: `(n, organs, k, k)`.
        labels: What they show at first, `(n, k, k)`, 1 for the first of `organs`, cleaned.
        organs: Names.
        layout: Positions of organs to one another.
        regions: Of organs in its frame.
        spacing: Of the positions of logits and labels, `(z, y, x)` in mm.
    """
    masks = {organ: labels == value for value, organ in enumerate(organs, start=1)}
    # Of an organ that the volume's ends cut, the middle is not known.
    whole = {organ: mask for organ, mask in masks.items() if mask.any() and not mask[[0, -1]].any()}
    centres = {organ: centre_of(mask, spacing) for organ, mask in whole.items()}
    frames = frames_of(centres, layout, organs)
    for index, organ in enumerate(organs):
        frame = frames.get(organ)
        if frame is None or organ not in regions:
            continue
        axes = [
            frame.within(np.arange(count) * step, axis)
            for axis, (count, step) in enumerate(zip(labels.shape, spacing, strict=True))
        ]
        beyond = (regions[organ].distances(axes) - MARGIN_MM).clip(min=0)
        kept = logits[:, index]
        np.maximum(kept - PER_MM * beyond, kept.min(), out=kept, casting="same_kind")
