"""Where organs lie to one another: tells an organ's own piece from one found where it cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# mm, z, y and x of a canonical stack.
Position = tuple[float, float, float]

# How far organs lie from where the layout has them: patients differ in size, and organs move.
SPREAD_MM = 40.0
# Fewer than two others say too little of where an organ is to be expected.
LEAST_OTHERS = 2
_ROUNDS = 3


@dataclass(frozen=True)
class Piece:
    """A connected part of what was found of an organ.

    Attributes:
        number: Of the part.
        voxels: Its size.
        centre: Where its voxels are in the mean, mm.
    """

    number: int
    voxels: int
    centre: Position


def centre_of(mask: np.ndarray, spacing: Position, start: Sequence[int] = (0, 0, 0)) -> Position:
    """The mean place in mm of what is True in a mask `(z, y, x)`, which is not empty.

    Args:
        mask: Bool, at least one voxel True.
        spacing: Size of its voxels in mm.
        start: Index of its first voxel.
    """
    place = []
    for axis in range(3):
        count = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        place.append(float(count @ np.arange(len(count))) / float(count.sum()))
    z, y, x = ((index + first) * step for index, first, step in zip(place, start, spacing, strict=True))
    return z, y, x


def layout_of(centres: Sequence[Mapping[str, Position]]) -> dict[str, Position]:
    """Positions of organs, up to a common shift, that agree best with those in some cases.

    Args:
        centres: Of each case the centres of its organs, mm; each case is shifted as a whole to agree with the others.

    Returns:
        A position for every organ that is in some case; their mean is 0.
    """
    centres = [case for case in centres if case]
    organs = sorted({organ for case in centres for organ in case})
    if not organs:
        return {}
    positions = {organ: np.zeros(3) for organ in organs}
    for _ in range(50):
        shifted = []
        for case in centres:
            shift = np.mean([np.subtract(place, positions[organ]) for organ, place in case.items()], axis=0)
            shifted.append({organ: place - shift for organ, place in case.items()})
        positions = {
            organ: np.mean([case[organ] for case in shifted if organ in case], axis=0) for organ in organs
        }
    mean = np.mean(list(positions.values()), axis=0)
    return {organ: tuple((place - mean).round(1).tolist()) for organ, place in positions.items()}


def own_pieces(candidates: Mapping[int, Sequence[Piece]], layout: Mapping[int, Position]) -> dict[int, Piece]:
    """Which piece of each organ is its own: a large one, near to where the others' own pieces let it be expected.

    Args:
        candidates: At least one piece of each label.
        layout: Positions of labels in mm, up to a common shift; of others the largest piece is taken.
    """
    chosen = {label: max(pieces, key=lambda piece: piece.voxels) for label, pieces in candidates.items()}
    placed = [label for label in candidates if label in layout]
    for _ in range(_ROUNDS):
        for label in placed:
            others = [np.subtract(chosen[other].centre, layout[other]) for other in placed if other != label]
            if len(others) >= LEAST_OTHERS:
                # The median, for some of the others may be wrong themselves.
                expected = np.asarray(layout[label]) + np.median(others, axis=0)
                chosen[label] = max(candidates[label], key=lambda piece: _score(piece, expected))
    return chosen


def _score(piece: Piece, expected: np.ndarray) -> float:
    distance = float(np.linalg.norm(np.asarray(piece.centre) - expected))
    return float(np.log(piece.voxels)) - 0.5 * (distance / SPREAD_MM) ** 2
