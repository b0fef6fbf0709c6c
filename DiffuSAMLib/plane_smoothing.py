"""Smooths what was found in the slices of one plane, near where something was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .edge_aware_smoothing import smooth_masks
from .encoded_volume import EncodedVolume
from .full_resolution import PlaneLogits
from .propagation import NOTHING

# Masks are smoothed at this resolution, or at their own where that is finer.
SMOOTHED_SIDE = 128
# As many slices beyond the first and the last that show something.
SMOOTHED_BEYOND = 16


def smooth_plane(view: EncodedVolume, found: PlaneLogits, *, across: bool) -> PlaneLogits:
    """The same masks along the image's edges, at twice the resolution where they are coarse.

    Args:
        view: The slices.
        found: In them.
        across: Whether neighbouring slices are neighbours too.
    """
    shown = np.flatnonzero((found.logits > NOTHING + 1).any(axis=(1, 2, 3)))
    if not shown.size:
        return found
    # Most of a long scan shows no organ that was asked for.
    numbers = range(max(0, shown[0] - SMOOTHED_BEYOND), min(len(view), shown[-1] + 1 + SMOOTHED_BEYOND))
    part = slice(numbers.start, numbers.stop)
    side = found.logits.shape[-1]
    size = max(side, min(2 * side, SMOOTHED_SIDE))
    logits = np.full((*found.logits.shape[:2], size, size), NOTHING, np.float16)
    logits[part] = smooth_masks(found.logits[part], view.guide(numbers, size), across=across)
    return replace(found, logits=logits)
