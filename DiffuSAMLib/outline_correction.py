"""Outlines of slices, corrected by what the whole volume tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .anatomy import CELLS, Anatomy, load_anatomy, overview
from .anatomy_network import OVERVIEW_CHANNELS
from .encoded_volume import CHUNK, EncodedVolume
from .lanes import Lanes, even_parts
from .prior import Prior

# How much the outlines of the whole volume count against those of the slices.
SHARE = 0.5


@dataclass(frozen=True)
class OutlineCorrection:
    """The outlines of a whole volume.

    Attributes:
        known: Places of its organs in the prior's.
        outlines: Probabilities `(n, known, 64, 64)`.
    """

    known: Sequence[int]
    outlines: Tensor

    def apply(self, outlines: Tensor, numbers: range) -> Tensor:
        """The geometric mean of both, so that an organ is where both say so; others stay as they are.

        Args:
            outlines: Of slices by themselves, `(m, organs, k, k)`.
            numbers: Of these slices.
        """
        blended = outlines.clone()
        own, whole = blended[:, self.known], self.outlines[numbers.start : numbers.stop].to(outlines)
        whole = F.interpolate(whole, size=own.shape[-2:], mode="bilinear", align_corners=False)
        blended[:, self.known] = own ** (1 - SHARE) * whole**SHARE
        return blended


def outline_correction(
    prior: Prior, encoded: EncodedVolume, *, device: torch.device
) -> OutlineCorrection | None:
    """Looks at all slices of a volume; None where the prior lacks an organ that the anatomy network knows.

    Args:
        prior: Draws the outlines.
        encoded: All slices, axial ones.
        device: Of the prior.
    """
    network = load_anatomy()
    if not set(network.config.organs) <= set(prior.config.organs):
        return None
    anatomy = Anatomy(network, prior.config.organs)
    outlines = torch.zeros(len(encoded), len(anatomy.known), CELLS, CELLS)
    image = torch.zeros(OVERVIEW_CHANNELS, len(encoded), CELLS, CELLS)

    def looked_at(numbers: range) -> Iterator[tuple[range, Tensor, Tensor]]:
        drawn = prior.outlines(encoded.features(numbers))[:, anatomy.known]
        cells = F.interpolate(drawn.float().cpu(), size=(CELLS, CELLS), mode="area")
        yield numbers, cells, overview(encoded.squares(numbers))

    def keep(seen: tuple[range, Tensor, Tensor]) -> None:
        numbers, cells, look = seen
        outlines[numbers.start : numbers.stop] = cells
        image[:, numbers.start : numbers.stop] = look

    lanes: Lanes[tuple[range, Tensor, Tensor]] = Lanes(device)
    parts = even_parts(len(encoded), most=CHUNK, lanes=lanes.count)
    lanes.run((looked_at(numbers) for numbers in parts), keep)
    # On the CPU whatever the device: it takes a second, and not all devices have its operations.
    whole = anatomy(outlines, image, step=encoded.order.geometry.spacing[2])
    return OutlineCorrection(anatomy.known, whole)
