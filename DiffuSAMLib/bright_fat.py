"""What fat tells about an organ's voxels in MR that shows it bright, as T1-weighted MR mostly does."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from .label_boxes import boxes_and_masks
from .volumes import sample_voxels

# Where subcutaneous fat is looked for, mm below the skin.
BELOW_SKIN_MM = (4.0, 12.0)
# Where fat is suppressed, it is far from this part of the patient's brightest voxels.
LEAST_BRIGHTNESS = 0.4
# Fat that is not so many times as bright as an organ cannot be told from it.
LEAST_CONTRAST = 2.5
# Of the way from an organ to fat, in ratios: beyond it, a voxel holds more fat than organ.
LEAST_PART = 0.6
# What is darker than this part of the fat may be the organ's own.
_DARKER = 0.6
# A label of which less is darker has no brightness of its own that is known.
_LEAST_OWN = 0.1
# The patient is what is brighter than this part of the brightest voxels.
_BODY = 0.1


def remove_bright_fat(
    labels: np.ndarray, image: np.ndarray, values: Iterable[int], *, spacing: tuple[float, float, float]
) -> None:
    """Takes fat out of solid organs where MR shows it much brighter than them; else nothing changes.

    Fat is as bright as what lies below the skin. A voxel of an organ is fat where, in ratios, it is nearer to fat than
    to the organ's own brightness (`LEAST_PART`); what the rest of the organ encloses within a slice stays, for it may be
    a vessel or a lesion.

    Args:
        labels: `(z, y, x)` of a canonical stack, uint8; becomes 0 where fat was.
        image: MR of any scale and offset `(z, y, x)`.
        values: The labels of solid organs; others are left as they are.
        spacing: Voxel size `(z, y, x)` in mm.
    """
    image = image - np.float32(np.percentile(sample_voxels(image), 0.1))
    fat = brightness_of_fat(image, spacing)
    if fat is None:
        return
    for box, mask in boxes_and_masks(labels, values):
        signal = image[box]
        darker = signal[mask & (signal < _DARKER * fat)]
        if darker.size < _LEAST_OWN * mask.sum():
            continue
        own = float(np.median(darker))
        if own <= 0 or fat < LEAST_CONTRAST * own:
            continue
        kept = mask & (signal < own * (fat / own) ** LEAST_PART)
        kept = np.stack([ndimage.binary_fill_holes(part) for part in kept])
        labels[box][mask & ~kept] = 0


def brightness_of_fat(image: np.ndarray, spacing: tuple[float, float, float]) -> float | None:
    """The median of what lies a little below the skin; None where that is not bright.

    Args:
        image: MR of any scale `(z, y, x)`, 0 where there is no signal.
        spacing: Voxel size `(z, y, x)` in mm.
    """
    brightest = float(np.percentile(sample_voxels(image), 99))
    body = image > _BODY * brightest
    fat = []
    for part, signal in zip(body, image, strict=True):
        inside = ndimage.binary_fill_holes(ndimage.binary_opening(part, iterations=2))
        depth = ndimage.distance_transform_edt(inside, sampling=spacing[1:])
        fat.append(signal[(depth > BELOW_SKIN_MM[0]) & (depth < BELOW_SKIN_MM[1])])
    found = np.concatenate(fat)
    level = float(np.median(found)) if found.size else 0.0
    return level if level >= LEAST_BRIGHTNESS * brightest > 0 else None
