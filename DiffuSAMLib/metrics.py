"""How well a predicted organ matches a reference: volume overlap and distance between surfaces.

The surface measures follow DeepMind's `surface-distance` package (S. Nikolov et al., 2018,
arXiv:1809.04430) in its voxel-boundary form: the surface of a mask is the set of its voxels that have a
face neighbour outside the mask (the edge of the volume counts as outside), and every surface voxel weighs the
same. DeepMind's own code weighs marching-cubes surface elements by their area instead, so figures
agree closely but not to the last digit.

All arrays are `(z, y, x)`; all spacings are `(z, y, x)` in mm, that is `geometry.spacing[::-1]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SURFACE_TOLERANCE_MM = 3.0


@dataclass(frozen=True)
class OrganScore:
    """Agreement of one organ with the reference.

    Attributes:
        name: Organ name.
        dice: Dice over the whole volume, 0 to 1; nan when the organ is in neither.
        dice_z_cropped: Dice over the slices that hold any organ of the reference, for comparison with papers.
        hd95_mm: 95th percentile Hausdorff distance in mm; nan when in neither, inf when in one only.
        surface_dice: Normalised surface Dice, 0 to 1; nan when in neither.
        predicted_ml: Predicted volume in ml.
        true_ml: Reference volume in ml.
    """

    name: str
    dice: float
    dice_z_cropped: float
    hd95_mm: float
    surface_dice: float
    predicted_ml: float
    true_ml: float


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice overlap `2 |A and B| / (|A| + |B|)` of two boolean masks.

    Returns:
        0 to 1; nan when both masks are empty, 0 when one is.

    Raises:
        ValueError: The masks differ in shape.
    """
    _require_same_shape(prediction, truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    if total == 0:
        return float("nan")
    return float(2.0 * np.count_nonzero(prediction & truth) / total)


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances between the surfaces of two boolean masks, in both directions.

    Args:
        prediction: Boolean `(z, y, x)`.
        truth: Boolean `(z, y, x)`.
        spacing: Voxel size `(z, y, x)` in mm.

    Returns:
        For each surface voxel of the prediction the distance in mm to the truth's surface, and the reverse.
        Where one mask is empty, the distances of the other are inf.

    Raises:
        ValueError: The masks differ in shape.
    """
    _require_same_shape(prediction, truth)
    box = _bounding_box(prediction | truth)
    if box is None:
        return np.empty(0), np.empty(0)
    # Both surfaces lie inside the common box, so distances computed in it are exact.
    predicted_surface = _surface(prediction[box])
    true_surface = _surface(truth[box])
    return (
        _distance_to(true_surface, spacing)[predicted_surface],
        _distance_to(predicted_surface, spacing)[true_surface],
    )


def hd95(from_prediction: np.ndarray, from_truth: np.ndarray) -> float:
    """95th percentile Hausdorff distance: the larger of the two directed 95th percentiles.

    Args:
        from_prediction: Distances in mm, from `surface_distances`.
        from_truth: The same in the other direction.

    Returns:
        Distance in mm; nan when both masks are empty, inf when one is.
    """
    if not from_prediction.size and not from_truth.size:
        return float("nan")
    if not from_prediction.size or not from_truth.size:
        return float("inf")
    return float(max(np.percentile(from_prediction, 95), np.percentile(from_truth, 95)))


def surface_dice(
    from_prediction: np.ndarray, from_truth: np.ndarray, *, tolerance_mm: float = SURFACE_TOLERANCE_MM
) -> float:
    """Normalised surface Dice: the share of both surfaces that lies within `tolerance_mm` of the other one.

    Args:
        from_prediction: Distances in mm, from `surface_distances`.
        from_truth: The same in the other direction.
        tolerance_mm: Distance in mm that still counts as agreement.

    Returns:
        0 to 1; nan when both masks are empty, 0 when one is.
    """
    total = from_prediction.size + from_truth.size
    if total == 0:
        return float("nan")
    close = np.count_nonzero(from_prediction <= tolerance_mm) + np.count_nonzero(from_truth <= tolerance_mm)
    return float(close / total)


def z_crop(truth: np.ndarray) -> slice:
    """Slices from the first to the last that hold any foreground, as several papers crop their test volumes.

    Args:
        truth: Boolean or label `(z, y, x)`, with only the organs of interest.

    Returns:
        A slice over z; empty when there is no foreground.
    """
    filled = np.flatnonzero(truth.any(axis=(1, 2)))
    return slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, 0)


def score_case(
    prediction: np.ndarray,
    truth: np.ndarray,
    values: Mapping[str, int],
    spacing: tuple[float, float, float],
) -> dict[str, OrganScore]:
    """Score every organ of one case.

    Args:
        prediction: Predicted labels `(z, y, x)`.
        truth: Reference labels `(z, y, x)`, with the same numbers as the prediction.
        values: Organ name to label number.
        spacing: Voxel size `(z, y, x)` in mm.

    Returns:
        Organ name to score, in the order of `values`.

    Raises:
        ValueError: The label maps differ in shape.
    """
    _require_same_shape(prediction, truth)
    crop = z_crop(np.isin(truth, list(values.values())))
    voxel_ml = float(np.prod(spacing)) / 1000.0
    scores = {}
    for name, value in values.items():
        predicted_mask, true_mask = prediction == value, truth == value
        distances = surface_distances(predicted_mask, true_mask, spacing)
        scores[name] = OrganScore(
            name=name,
            dice=dice(predicted_mask, true_mask),
            dice_z_cropped=dice(predicted_mask[crop], true_mask[crop]),
            hd95_mm=hd95(*distances),
            surface_dice=surface_dice(*distances),
            predicted_ml=float(np.count_nonzero(predicted_mask) * voxel_ml),
            true_ml=float(np.count_nonzero(true_mask) * voxel_ml),
        )
    return scores


def _require_same_shape(prediction: np.ndarray, truth: np.ndarray) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of shapes {prediction.shape} and {truth.shape} cannot be compared")


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    boxes = ndimage.find_objects(mask.astype(np.uint8), max_label=1)
    return boxes[0] if boxes else None


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def _distance_to(surface: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    if not surface.any():
        return np.full(surface.shape, np.inf)
    return ndimage.distance_transform_edt(~surface, sampling=spacing)
