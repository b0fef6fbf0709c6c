"""Smooths what was found in the slices of one plane, near where something was found."""

from __future__ import annotations

from .edge_aware_smoothing import smooth_masks
from .encoded_volume import EncodedVolume
from .full_resolution import PlaneLogits
from .shown_slices import shown_slices, with_finer_logits

# As many slices beyond the first and the last that show something.
SMOOTHED_BEYOND = 16


def smooth_plane(view: EncodedVolume, found: PlaneLogits, *, across: bool) -> PlaneLogits:
    """The same masks along the image's edges, at twice the resolution where they are coarse.

    Args:
        view: The slices.
        found: In them.
        across: Whether neighbouring slices are neighbours too.
    """
    numbers = shown_slices(found, beyond=SMOOTHED_BEYOND)
    return with_finer_logits(
        view, found, numbers, lambda logits, guide: smooth_masks(logits, guide, across=across)
    )
