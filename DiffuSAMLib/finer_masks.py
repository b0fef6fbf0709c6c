"""Masks brought to a finer resolution and changed there, some organs at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from .lanes import for_each_part

# Of all organs that are worked on at a time: bounds memory.
MOST_VALUES = 2**24


def changed_finer_masks(logits: np.ndarray, size: int, change: Callable[[np.ndarray], None]) -> np.ndarray:
    """Enlarges masks and changes them.

    Args:
        logits: `(n, organs, j, j)`.
        size: Side `k` of the finer masks.
        change: Changes float32 logits `(n, some organs, k, k)` in place; called for a few organs at a time, on all cores.

    Returns:
        Logits `(n, organs, k, k)`, float16.
    """
    count, organs = logits.shape[:2]
    changed = np.empty((count, organs, size, size), np.float16)

    def work(part: slice) -> None:
        finer = F.interpolate(
            torch.from_numpy(logits[:, part].astype(np.float32)),
            size=(size, size),
            mode="bilinear",
            align_corners=False,
        ).numpy()
        change(finer)
        changed[:, part] = finer

    for_each_part(organs, work, most=max(1, MOST_VALUES // (count * size * size)))
    return changed
