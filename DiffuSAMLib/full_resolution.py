"""Mask logits of the slices become labels on the volume's own grid."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import expit

from .geometry import AxisOrder
from .guided_filter import guided_filter
from .lanes import Lanes, even_parts
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


def to_volume(
    volume: Volume, order: AxisOrder, grid: SliceGrid, logits: np.ndarray, *, refine: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and confidence levels on the source grid.

    Logits, not labels, are resampled, and brought to the image's edges at the volume's own resolution; then the
    largest of the organs and the background (0) wins.

    Args:
        volume: Whose grid and image these are.
        order: Between its axes and the canonical stack.
        grid: Between the stack and the square slices.
        logits: Over the whole squares, `(n, organs, k, k)`; `k = s / 4` is what the decoder gives.
        refine: Whether outlines follow the image's edges.

    Returns:
        uint8 `(z, y, x)`: labels, 1 for the first organ; and the probability of each voxel's label times 255.
    """
    labels = np.zeros(volume.geometry.shape, np.uint8)
    confidence = np.zeros_like(labels)
    label_stack, confidence_stack = order.view(labels), order.view(confidence)
    images = order.view(volume.array)
    window = intensity_window(volume)
    # The same reach in millimetres both ways, whatever the shape of the pixels.
    by_rows, by_columns = (
        max(1, round(REACH * pixels / side * 4))
        for pixels, side in ((grid.rows, grid.height), (grid.columns, grid.width))
    )
    radius = by_rows, by_columns

    def resampled(numbers: range) -> Iterator[None]:
        part = slice(numbers.start, numbers.stop)
        maps = grid.from_slices(torch.from_numpy(logits[part].astype(np.float32)))
        scores, least = maps.numpy(), 0.0
        if refine:
            scores, least = expit(scores), 0.5
            guide = scale_intensity(images[part], *window)
            for organ in range(scores.shape[1]):
                _refine(guide, scores[:, organ], radius)
        best = scores.max(axis=1)
        # The filter may reach a little beyond 0 and 1.
        certainty = np.maximum(best, 1 - best).clip(0.5, 1) if refine else expit(np.abs(best))
        label_stack[part] = np.where(best > least, scores.argmax(axis=1) + 1, 0)
        confidence_stack[part] = (certainty * 255).round()
        yield None

    lanes: Lanes[None] = Lanes(torch.device("cpu"))
    parts = even_parts(len(logits), most=CHUNK, lanes=lanes.count)
    lanes.run((resampled(numbers) for numbers in parts), lambda _: None)
    return labels, confidence


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
