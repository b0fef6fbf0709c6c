"""What the absolute scale of CT tells about an organ's voxels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from .label_boxes import boxes_and_masks

FAT_HU = -100.0
# Of the way from fat to the organ: below it, a voxel holds less organ than something else. A little above one half,
# for what lies beside fat is smoothed by the scanner; the best thresholds of 17 BTCV volumes follow it.
LEAST_PART = 0.6
# What has as many HU and is so far from its own border is no fat, nor smoothed fat: a cyst or a tumour, it may be.
LEAST_LESION_HU = 0.0
LESION_RADIUS_MM = 4.0
# A label with more than this share of fat or gas is one that such voxels belong to.
MOST_FAT = 0.15
# Bone, contrast medium and metal are as bright. The window that networks see ends a little above: they cannot tell
# these from an organ that is nearly as bright.
BRIGHT_HU = 270.0
# An organ full of contrast medium may be bright itself: what is not it is brighter still.
BRIGHTER_BY_HU = 75.0
# A label with more than this share of it, such as a vessel with calcified walls, is one that it belongs to.
MOST_BRIGHT = 0.001
# Where so much of what was found is bright, it is the organ's own, as the cortex of kidneys in the arterial phase.
MOST_FOREIGN = 1 / 3


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


def least_bright_hu(values: np.ndarray) -> float:
    """Lowest HU at which a voxel is bone, contrast medium or metal rather than the organ.

    Args:
        values: HU of the organ's voxels; most are the organ's own, whatever the contrast phase.
    """
    return max(BRIGHT_HU, float(np.median(values)) + BRIGHTER_BY_HU)


def is_soft(values: np.ndarray) -> bool:
    """Whether a labelled organ has nothing as bright as bone or contrast medium, which would stand out from it.

    Args:
        values: HU of the voxels that bear the label.
    """
    return bool(values.size) and float(np.mean(values >= least_bright_hu(values))) <= MOST_BRIGHT


def remove_bright(labels: np.ndarray, image: np.ndarray, values: Iterable[int]) -> None:
    """Takes bone and contrast medium out of soft organs, such as a loop of bowel that was taken for a kidney.

    A voxel beside it that is more of it than of the organ goes too. What the rest of the organ encloses stays, for it
    may be calcified, or treated; so does all of it where it is more than a third of what was found (`MOST_FOREIGN`).

    Args:
        labels: `(z, y, x)` of a canonical stack, uint8; becomes 0 where the bright was.
        image: HU `(z, y, x)`.
        values: The labels of soft organs; others are left as they are.
    """
    for box, mask in boxes_and_masks(labels, values):
        hu = image[box]
        least = least_bright_hu(hu[mask])
        bright = mask & (hu >= least)
        if bright.sum() > MOST_FOREIGN * mask.sum():
            continue
        bright &= ~ndimage.binary_fill_holes(mask & ~bright)
        half = (float(np.median(hu[mask])) + least) / 2
        labels[box][bright | (mask & (hu >= half) & ndimage.binary_dilation(bright))] = 0


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
    for box, mask in boxes_and_masks(labels, values):
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
