"""Those slices of a plane that show an organ, where what was found is worked on at a finer resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .encoded_volume import EncodedVolume
from .full_resolution import PlaneLogits
from .propagation import NOTHING

# Masks are worked on at this resolution, or at their own where that is finer.
FINER_SIDE = 128


def finer_side(found: PlaneLogits) -> int:
    """Pixels along a side of the masks once they are finer."""
    side = found.logits.shape[-1]
    return max(side, min(2 * side, FINER_SIDE))


def shown_slices(found: PlaneLogits, *, beyond: int) -> range:
    """From the first slice that shows something to the last, and as many beyond; most of a long scan shows nothing."""
    shown = np.flatnonzero((found.logits > NOTHING + 1).any(axis=(1, 2, 3)))
    if not shown.size:
        return range(0)
    return range(max(0, shown[0] - beyond), min(len(found.logits), shown[-1] + 1 + beyond))


def with_finer_logits(
    view: EncodedVolume,
    found: PlaneLogits,
    numbers: range,
    work: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> PlaneLogits:
    """What was found with other logits in some slices, `NOTHING` in the others.

    Args:
        view: The slices.
        found: In them.
        numbers: Of those that are worked on; of none, all stays as it is.
        work: From logits `(n, organs, j, j)` and images of the slices `(n, k, k)`, 0 to 1, to logits
            `(n, organs, k, k)`.
    """
    if not numbers:
        return found
    size = finer_side(found)
    part = slice(numbers.start, numbers.stop)
    logits = np.full((*found.logits.shape[:2], size, size), NOTHING, np.float16)
    logits[part] = work(found.logits[part], view.guide(numbers, size))
    return replace(found, logits=logits)
