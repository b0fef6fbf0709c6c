"""Asks how bright organs are in the slices of one plane, near where something was found."""

from __future__ import annotations

from .appearance import AROUND_MM, weigh_appearance
from .encoded_volume import EncodedVolume
from .full_resolution import PlaneLogits
from .shown_slices import finer_side, shown_slices, with_finer_logits


def weigh_plane(view: EncodedVolume, found: PlaneLogits, *, weight: float, across: bool) -> PlaneLogits:
    """The same masks, changed by the brightness of what they hold, at twice the resolution where they are coarse.

    Args:
        view: The slices.
        found: In them.
        weight: How much the brightness counts.
        across: Whether all slices tell together how bright an organ is.
    """
    spacing = found.grid.spacing(found.order.geometry, finer_side(found))
    numbers = shown_slices(found, beyond=int(AROUND_MM / spacing[0]) + 1 if across else 0)
    return with_finer_logits(
        view,
        found,
        numbers,
        lambda logits, guide: weigh_appearance(logits, guide, spacing, weight=weight, across=across),
    )
