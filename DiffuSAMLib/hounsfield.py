"""What the absolute scale of CT tells about an organ's voxels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

FAT_HU = -100.0
# Of the way from fat to the organ: below it, a voxel holds less organ than something else. A little above one half,
# for what lies beside fat is smoothed by the scanner; the best thresholds of 17 BTCV volumes follow it.
LEAST_PART = 0.6
# A label with more than this share of fat or gas is one that such voxels belong to.
MOST_FAT = 0.15


def least_hu(values: np.ndarray) -> float:
    """Lowest HU at which a voxel is still more of the organ than of the fat around it.

    Args:
        values: HU of the organ's voxels; most are the organ's own, whatever the contrast phase.
    """
    return FAT_HU + LEAST_PART * (float(np.median(values)) - FAT_HU)


def is_solid(values: np.ndarray) -> bool:
    """Whether a labelled organ has neither fat nor gas, but for its border.

    Args:
        values: HU of the voxels that bear the label.
    """
    return bool(values.size) and float(np.mean(values < least_hu(values))) <= MOST_FAT


def remove_fat(labels: np.ndarray, image: np.ndarray, values: Iterable[int]) -> None:
    """Takes fat and gas out of solid organs, such as the fat of the renal sinus out of a kidney.

    Args:
        labels: `(z, y, x)`, uint8; becomes 0 where fat was.
        image: HU `(z, y, x)`.
        values: The labels of solid organs; others are left as they are.
    """
    boxes = ndimage.find_objects(labels)
    for value in values:
        box = boxes[value - 1] if 0 < value <= len(boxes) else None
        if box is not None:
            mask = labels[box] == value
            hu = image[box]
            labels[box][mask & (hu < least_hu(hu[mask]))] = 0
