"""Clean-up of a label map: specks away from the organ go, pinholes inside it close."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from scipy import ndimage

from .layout import Piece, Position, centre_of, own_pieces

# Enclosed background larger than this is anatomy, not noise: in the BTCV references the renal sinus is left
# out of the kidney, with a median of about 80 mm2 in the slices that enclose it.
MAX_HOLE_MM2 = 50.0
# With `keep="major"`, a piece stays if it has at least this share of the largest piece's voxels.
MAJOR_SHARE = 0.25
# A smaller piece than this share of the largest is not taken for the organ, wherever it lies.
CANDIDATE_SHARE = 0.1

_NEIGHBOURS_3D = np.ones((3, 3, 3), dtype=bool)
# The background is 4-connected within a slice, as the organ is 8-connected; slices do not touch.
_HOLE_NEIGHBOURS = np.zeros((3, 3, 3), dtype=bool)
_HOLE_NEIGHBOURS[1] = ndimage.generate_binary_structure(2, 1)


def clean_labels(
    labels: np.ndarray,
    values: Iterable[int],
    *,
    spacing: tuple[float, float, float],
    keep: Literal["largest", "major"] = "largest",
    layout: Mapping[int, Position] | None = None,
) -> np.ndarray:
    """Keep each organ's main piece and fill its small holes.

    Pieces are 26-connected in three dimensions. Holes are background that the organ encloses within
    a slice of axis 0; only those of up to 50 mm2 are filled. No voxel moves from one organ to another, and
    an organ that is present stays present.

    Args:
        labels: Labels `(z, y, x)`, uint8. Not changed.
        values: The label numbers to clean; others are left as they are.
        spacing: Voxel size `(z, y, x)` in mm.
        keep: `largest` keeps one piece per organ; `major` also those of at least a quarter of its size,
            for labels that cover a pair, such as "kidneys".
        layout: Where labels lie to one another, positions in mm. With it, `largest` keeps the best placed of an organ's
            large pieces (`layout.own_pieces`).

    Returns:
        Cleaned labels, a new array of the same shape and type.

    Raises:
        ValueError: `keep` is neither of the two.
    """
    if keep not in ("largest", "major"):
        raise ValueError(f"keep must be 'largest' or 'major', not {keep!r}")
    values = list(values)
    cleaned = labels.copy()
    boxes = ndimage.find_objects(cleaned)
    present = {value: boxes[value - 1] for value in values if 0 < value <= len(boxes) and boxes[value - 1]}
    own = _own_pieces(cleaned, present, spacing, layout) if keep == "largest" and layout else {}
    for value, box in present.items():
        _remove_pieces(cleaned[box], value, only_largest=keep == "largest", own=own.get(value))
    # Only after all specks are gone: a speck of one organ inside another leaves a hole to fill.
    max_hole_voxels = int(MAX_HOLE_MM2 / (spacing[1] * spacing[2]))
    for value, box in present.items():
        _fill_small_holes(cleaned[box], value, max_hole_voxels)
    return cleaned


def has_several_pieces(mask: np.ndarray) -> bool:
    """Whether a second piece of a mask `(z, y, x)` is at least a quarter of the largest."""
    pieces, count = ndimage.label(mask, structure=_NEIGHBOURS_3D)
    if count < 2:
        return False
    second, largest = np.sort(_piece_sizes(pieces, count)[1:])[-2:]
    return bool(second >= MAJOR_SHARE * largest)


def _own_pieces(
    labels: np.ndarray,
    present: Mapping[int, tuple[slice, ...]],
    spacing: tuple[float, float, float],
    layout: Mapping[int, Position],
) -> dict[int, int]:
    """The number of the piece that is each organ's own."""
    candidates: dict[int, list[Piece]] = {}
    for value, box in present.items():
        pieces, count = ndimage.label(labels[box] == value, structure=_NEIGHBOURS_3D)
        sizes = _piece_sizes(pieces, count)
        sizes[0] = 0
        start = [side.start for side in box]
        candidates[value] = [
            Piece(int(number), int(sizes[number]), centre_of(pieces == number, spacing, start))
            for number in np.flatnonzero(sizes >= CANDIDATE_SHARE * sizes.max())
        ]
    return {value: piece.number for value, piece in own_pieces(candidates, layout).items()}


def _remove_pieces(labels: np.ndarray, value: int, *, only_largest: bool, own: int | None) -> None:
    mask = labels == value
    pieces, count = ndimage.label(mask, structure=_NEIGHBOURS_3D)
    if count < 2:
        return
    sizes = _piece_sizes(pieces, count)
    sizes[0] = 0
    kept = sizes >= MAJOR_SHARE * sizes.max()
    if only_largest:
        kept = np.arange(sizes.size) == (sizes.argmax() if own is None else own)
    labels[mask & ~kept[pieces]] = 0


def _fill_small_holes(labels: np.ndarray, value: int, max_voxels: int) -> None:
    # Gaps that touch the edge of the box are open to the outside, also when another organ closes them off.
    gaps, count = ndimage.label(labels != value, structure=_HOLE_NEIGHBOURS)
    if count == 0 or max_voxels == 0:
        return
    fillable = _piece_sizes(gaps, count) <= max_voxels
    fillable[0] = False
    for edge in (gaps[:, 0], gaps[:, -1], gaps[:, :, 0], gaps[:, :, -1]):
        fillable[edge] = False
    labels[fillable[gaps] & (labels == 0)] = value


def _piece_sizes(pieces: np.ndarray, count: int) -> np.ndarray:
    """Voxels of each of `count` pieces and, first, of the rest."""
    # Slice by slice: bincount works on an int64 copy of what it is given.
    return np.sum([np.bincount(part.ravel(), minlength=count + 1) for part in pieces], axis=0)
