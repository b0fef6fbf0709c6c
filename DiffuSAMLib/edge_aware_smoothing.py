"""Masks that spread within what the image shows as one piece, and stop at its edges."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from .finer_masks import changed_finer_masks

# SPREAD: how far masks spread. EDGE: the step in an image of 0 to 1 across which they do so e times less. A third of
# the first with one and a half of the second gives the same Dice.
SPREAD = 1000.0
EDGE = 0.007
ROUNDS = 3
# Slices, or rows of slices, at a time.
BLOCK = 16
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
    axes = [axis for axis in ((2, 1, 0) if across else (2, 1)) if guide.shape[axis] > 1]

    def smooth(masks: np.ndarray) -> None:
        likely = expit(masks, out=masks)
        for left in range(ROUNDS - 1, -1, -1):
            for axis in axes:
                _smooth_along(likely, guide, axis, spread=1.5 * SPREAD * 4**left / (4**ROUNDS - 1))
        logit(likely.clip(1 - SUREST, SUREST, out=likely), out=masks)

    return changed_finer_masks(logits, guide.shape[-1], smooth)


def _smooth_along(likely: np.ndarray, guide: np.ndarray, axis: int, *, spread: float) -> None:
    """Smooths probabilities `(n, organs, k, k)` in place along one axis of the guide `(n, k, k)`."""
    # Lines along slices are independent of each other: by a few slices, or rows, at a time they stay in the cache.
    other = 1 if axis == 0 else 0
    for begin in range(0, guide.shape[other], BLOCK):
        block = slice(begin, begin + BLOCK)
        images, masks = (guide[:, block], likely[:, :, block]) if axis == 0 else (guide[block], likely[block])
        ties = np.ascontiguousarray(np.moveaxis(images, axis, 0))
        ties = spread * np.exp(np.abs(np.diff(ties, axis=0)) / -EDGE)
        # Organs lie between slices and rows.
        lines = np.moveaxis(np.moveaxis(masks, 1, 0), axis + 1, 0)
        lines[:] = _solved(np.ascontiguousarray(lines), ties)


def _solved(values: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Solves for what is near the values `(m, organs, y, x)` and tied along the first axis by `(m - 1, y, x)`.

    The matrix has three diagonals: one pass forwards and one back (the Thomas algorithm).
    """
    solved = np.empty_like(values)
    passed_on = np.empty_like(ties)
    above = np.zeros_like(ties[0])
    for row in range(len(values)):
        pivot = 1 + above
        if row:
            pivot -= above * passed_on[row - 1]
        if row < len(ties):
            pivot += ties[row]
        inverse = np.reciprocal(pivot, out=pivot)
        if row:
            np.multiply(above, solved[row - 1], out=solved[row])
            solved[row] += values[row]
            solved[row] *= inverse
        else:
            np.multiply(values[row], inverse, out=solved[row])
        if row < len(ties):
            np.multiply(ties[row], inverse, out=passed_on[row])
            above = ties[row]
    for row in range(len(ties) - 1, -1, -1):
        solved[row] += passed_on[row] * solved[row + 1]
    return solved
