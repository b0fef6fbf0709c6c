"""Masks that spread within what the image shows as one piece, and stop at its edges."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import expit, logit
from torch.nn import functional as F

from .lanes import Lanes, even_parts

# How far masks spread, and the step of an image of 0 to 1 across which that is e times less. A third of the
# one with half as much again of the other makes no difference.
SPREAD = 1000.0
EDGE = 0.007
ROUNDS = 3
# Of all organs that are smoothed at a time: bounds memory.
MOST_VALUES = 2**24
# Nothing is surer than this: rounding may bring probabilities to 0 or 1, or a little beyond.
SUREST = float(expit(10.0))


def smooth_masks(logits: np.ndarray, guide: np.ndarray, *, across: bool) -> np.ndarray:
    """Smooths the masks of a stack of slices along the edges of its image.

    The fast global smoother (Min et al., "Fast Global Image Smoothing Based on Weighted Least Squares", IEEE
    Transactions on Image Processing 2014, section III): of probabilities that stay near the given ones, those that differ
    least between neighbours of equal brightness, solved for along one axis after another. So what was found in a
    corner of a tissue counts by its share of that tissue, far beyond the reach of a guided filter.

    Args:
        logits: Of masks, `(n, organs, j, j)`.
        guide: Images of the slices, `(n, k, k)`, float32, 0 to 1.
        across: Whether neighbouring slices are neighbours too.

    Returns:
        Logits `(n, organs, k, k)`, float16.
    """
    size = guide.shape[-1]
    organs = logits.shape[1]
    smoothed = np.empty((len(logits), organs, size, size), np.float16)
    axes = [axis for axis in ((2, 1, 0) if across else (2, 1)) if guide.shape[axis] > 1]
    # How strongly neighbours along each axis are tied; that axis comes first.
    ties = [np.moveaxis(np.exp(np.abs(np.diff(guide, axis=axis)) / -EDGE), axis, 0) for axis in axes]

    def work(numbers: range) -> Iterator[None]:
        part = slice(numbers.start, numbers.stop)
        enlarged = F.interpolate(
            torch.from_numpy(logits[:, part].astype(np.float32)),
            size=(size, size),
            mode="bilinear",
            align_corners=False,
        )
        likely = np.moveaxis(expit(enlarged.numpy()), 1, -1)
        for left in range(ROUNDS - 1, -1, -1):
            spread = 1.5 * SPREAD * 4**left / (4**ROUNDS - 1)
            for axis, tie in zip(axes, ties, strict=True):
                likely = np.moveaxis(_spread(np.moveaxis(likely, axis, 0), spread * tie), 0, axis)
        smoothed[:, part] = np.moveaxis(logit(likely.clip(1 - SUREST, SUREST)), -1, 1)
        yield None

    most = max(1, MOST_VALUES // guide.size)
    lanes: Lanes[None] = Lanes(torch.device("cpu"))
    lanes.run((work(numbers) for numbers in even_parts(organs, most=most, lanes=lanes.count)), lambda _: None)
    return smoothed


def _spread(values: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Solves for what is near the values `(m, y, x, organs)` and tied along the first axis by `(m - 1, y, x)`.

    The matrix has three diagonals: one pass forwards and one back (the Thomas algorithm).
    """
    solved = np.empty(values.shape, np.float32)
    passed_on = np.empty(ties.shape, np.float32)
    above = np.zeros(ties.shape[1:], np.float32)
    for row in range(len(values)):
        below = ties[row] if row < len(ties) else 0.0
        pivot = 1 + above + below
        if row:
            pivot -= above * passed_on[row - 1]
            solved[row] = (values[row] + above[..., None] * solved[row - 1]) / pivot[..., None]
        else:
            solved[row] = values[row] / pivot[..., None]
        if row < len(ties):
            passed_on[row] = below / pivot
            above = ties[row]
    for row in range(len(ties) - 1, -1, -1):
        solved[row] += passed_on[row][..., None] * solved[row + 1]
    return solved
