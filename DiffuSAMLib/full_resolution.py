"""Mask logits of the slices become labels on the volume's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.special import expit

from .geometry import AxisOrder
from .guided_filter import guided_filter
from .lanes import for_each_part
from .slices import SliceGrid
from .volumes import Volume, intensity_window, scale_intensity

# Slices at a time: bounds memory.
CHUNK = 4

# Reach of the guided filter in positions of the decoder's masks, which are what limits their detail.
REACH = 1.0
# Variance of an edge, in the image's units of 0 to 1: a standard deviation of 13 HU in CT.
EDGE = 1e-3
# Below this probability an organ is not refined.
NOWHERE = 0.02


@dataclass(frozen=True)
class PlaneLogits:
    """What was found in the slices of one plane.

    Attributes:
        order: Between the volume's axes and the stack of slices.
        grid: Between the stack and the square slices.
        logits: Over the whole squares, `(n, organs, k, k)`; `k = s / 4` is what the decoder gives,
            smoothing up to twice that.
    """

    order: AxisOrder
    grid: SliceGrid
    logits: np.ndarray


def to_volume(volume: Volume, found: Sequence[PlaneLogits], *, refine: bool) -> tuple[np.ndarray, np.ndarray]:
    """Labels and confidence levels on the source grid.

    Logits, not labels, are resampled, and brought to the image's edges at the volume's own resolution; then the
    largest of the organs and the background (0) wins. Of several planes the mean probability counts.

    Args:
        volume: Whose grid and image these are.
        found: In one plane or several, the axial one first.
        refine: Whether outlines follow the image's edges.

    Returns:
        uint8 `(z, y, x)`: labels, 1 for the first organ; and the probability of each voxel's label times 255.
    """
    labels = np.zeros(volume.geometry.shape, np.uint8)
    confidence = np.zeros_like(labels)
    window = intensity_window(volume)
    first = found[0]
    label_stack, confidence_stack = first.order.view(labels), first.order.view(confidence)

    def choose(numbers: slice, scores: np.ndarray, *, probabilities: bool) -> None:
        best = scores.max(axis=1)
        # The filter may reach a little beyond 0 and 1.
        certainty = np.maximum(best, 1 - best).clip(0.5, 1) if probabilities else expit(np.abs(best))
        label_stack[numbers] = np.where(best > (0.5 if probabilities else 0), scores.argmax(axis=1) + 1, 0)
        confidence_stack[numbers] = (certainty * 255).round()

    if len(found) == 1:
        for_each_part(
            len(first.logits),
            lambda part: choose(part, _scores(volume, first, part, window, refine), probabilities=refine),
            most=CHUNK,
        )
        return labels, confidence
    # Half precision: a long scan has several times as many of these as voxels.
    mean = np.zeros((first.logits.shape[1], *volume.geometry.shape), np.float16)

    def add(plane: PlaneLogits, part: slice) -> None:
        scores = _scores(volume, plane, part, window, refine)
        likely = scores if refine else expit(scores)
        plane.order.view(mean)[:, part] += likely.swapaxes(0, 1) / len(found)

    for plane in found:
        for_each_part(len(plane.logits), partial(add, plane), most=CHUNK)
    stack = first.order.view(mean)
    for_each_part(
        len(first.logits),
        lambda part: choose(part, stack[:, part].swapaxes(0, 1).astype(np.float32), probabilities=True),
        most=CHUNK,
    )
    return labels, confidence


def _scores(
    volume: Volume, plane: PlaneLogits, part: slice, window: tuple[float, float], refine: bool
) -> np.ndarray:
    """Some slices at the volume's resolution, `(n, organs, rows, columns)`: refined probabilities, or else logits."""
    grid = plane.grid
    scores = grid.from_slices(torch.from_numpy(plane.logits[part].astype(np.float32))).numpy()
    if not refine:
        return scores
    scores = expit(scores)
    # The same reach in millimetres both ways, whatever the shape of the pixels.
    by_rows, by_columns = (
        max(1, round(REACH * pixels / side * 4))
        for pixels, side in ((grid.rows, grid.height), (grid.columns, grid.width))
    )
    guide = scale_intensity(plane.order.view(volume.array)[part], *window)
    for organ in range(scores.shape[1]):
        _refine(guide, scores[:, organ], (by_rows, by_columns))
    return scores


def _refine(guide: np.ndarray, likely: np.ndarray, radius: tuple[int, int]) -> None:
    """Filters probabilities `(n, y, x)` in place, in the box where there are any."""
    somewhere = np.any(likely > NOWHERE, axis=0)
    rows, columns = np.flatnonzero(somewhere.any(axis=1)), np.flatnonzero(somewhere.any(axis=0))
    if not rows.size:
        return
    margins = (2 * reach for reach in radius)
    sides = (
        slice(max(0, part[0] - margin), part[-1] + margin + 1)
        for part, margin in zip((rows, columns), margins, strict=True)
    )
    box = (slice(None), *sides)
    likely[box] = guided_filter(guide[box], likely[box], radius=radius, epsilon=EDGE)
