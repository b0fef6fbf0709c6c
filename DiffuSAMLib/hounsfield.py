"""What the absolute scale of CT tells about an organ's voxels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

FAT_HU = -100.0
# Of the way from fat to the organ: below it, a voxel holds less organ than something else. A little above one half,
# for what lies beside fat is smoothed by the scanner; the best thresholds of 17 BTCV volumes follow it.
LEAST_PART = 0.6
# What has as many HU and is so far from its own border is no fat, nor smoothed fat: a cyst or a tumour, it may be.
LEAST_LESION_HU = 0.0
LESION_RADIUS_MM = 4.0
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


def remove_fat(
    labels: np.ndarray, image: np.ndarray, values: Iterable[int], *, spacing: tuple[float, float, float]
) -> None:
    """Takes fat and gas out of solid organs, such as the fat of the renal sinus out of a kidney.

    What is smoothed with fat goes too, but nothing of 0 HU or more that is at least 8 mm wide within a slice.

    Args:
        labels: `(z, y, x)` of a canonical stack, uint8; becomes 0 where fat was.
        image: HU `(z, y, x)`.
        values: The labels of solid organs; others are left as they are.
        spacing: Voxel size `(z, y, x)` in mm.
    """
    boxes = ndimage.find_objects(labels)
    for value in values:
        box = boxes[value - 1] if 0 < value <= len(boxes) else None
        if box is not None:
            mask = labels[box] == value
            hu = image[box]
            fat = mask & (hu < least_hu(hu[mask]))
            labels[box][fat & ~_wide_parts(fat & (hu >= LEAST_LESION_HU), spacing[1:])] = 0


def _wide_parts(mask: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """What a disc of the radius of a lesion reaches within the slices of a mask `(z, y, x)`: its opening."""
    wide = np.zeros_like(mask)
    for part, found in zip(mask, wide, strict=True):
        framed = np.pad(part, 1)
        middles = ndimage.distance_transform_edt(framed, sampling=spacing) > LESION_RADIUS_MM
        if middles.any():
            near = ndimage.distance_transform_edt(~middles, sampling=spacing) <= LESION_RADIUS_MM
            found[:] = (near & framed)[1:-1, 1:-1]
    return wide
