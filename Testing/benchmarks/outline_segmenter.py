"""What memories and SAM2's decoder add: the outlines that a prior begins with, taken as masks as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from DiffuSAMLib.encoded_volume import CHUNK, EncodedVolume
from DiffuSAMLib.full_resolution import PlaneLogits
from DiffuSAMLib.propagation import NOTHING
from DiffuSAMLib.segmenter import Segmenter, SegmentOptions


class OutlineSegmenter(Segmenter):
    """A `Segmenter` that generates no memories and decodes none; what follows, from smoothing on, is the same."""

    def _found(
        self, views: Sequence[EncodedVolume], organs: list[int], options: SegmentOptions, *_: Any
    ) -> list[PlaneLogits]:
        return [
            PlaneLogits(view.order, view.grid, self._outlines(view, organs, options.propagation.presence))
            for view in views
        ]

    def _outlines(self, view: EncodedVolume, organs: list[int], least_presence: float) -> np.ndarray:
        """Logits `(n, organs, s/4, s/4)`, float16."""
        logits = []
        for first in range(0, len(view), CHUNK):
            numbers = range(first, min(first + CHUNK, len(view)))
            outlines = self.prior.outlines(view.features(numbers, reach_mm=self.prior.config.reach_mm))
            absent = self.prior.presence(outlines) < least_presence
            found = torch.logit(outlines, eps=1e-4).masked_fill(absent[:, :, None, None], NOTHING)
            logits.append(found[:, organs].cpu().numpy().astype(np.float16))
        return np.concatenate(logits)
