"""Soft masks that follow the edges of the image they belong to."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def guided_filter(
    guide: np.ndarray, mask: np.ndarray, *, radius: tuple[int, int], epsilon: float
) -> np.ndarray:
    """The guided filter (He, Sun, Tang, "Guided Image Filtering", ECCV 2010, equations 5, 6 and 8).

    In every neighbourhood the mask becomes the linear function of the image that is nearest to it, so that its
    border moves to an edge of the image where there is one within reach.

    Args:
        guide: Images `(n, y, x)`, float32, about 0 to 1.
        mask: `(n, y, x)`, float32, 0 to 1.
        radius: Of the neighbourhoods in rows and in columns, in pixels; slices do not touch.
        epsilon: Variance of the image, in its units squared, from which a neighbourhood counts as an edge.

    Returns:
        `(n, y, x)`, float32; may reach a little below 0 and above 1.
    """
    mean_guide, mean_mask = _mean(guide, radius), _mean(mask, radius)
    covariance = _mean(guide * mask, radius) - mean_guide * mean_mask
    variance = _mean(guide * guide, radius) - mean_guide * mean_guide
    slope = covariance / (variance + epsilon)
    offset = mean_mask - slope * mean_guide
    filtered: np.ndarray = _mean(slope, radius) * guide + _mean(offset, radius)
    return filtered


def _mean(array: np.ndarray, radius: tuple[int, int]) -> np.ndarray:
    rows, columns = radius
    mean: np.ndarray = ndimage.uniform_filter(array, (1, 2 * rows + 1, 2 * columns + 1))
    return mean
