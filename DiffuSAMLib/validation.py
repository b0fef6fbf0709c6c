"""How well a prior in training does on slices that it does not learn from."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from .backbones import Backbone, ImageFeatures, Memory
from .devices import autocast
from .held_out import HeldOut
from .prior import PRESENT, SAMPLING_STEPS, Prior, outline_memory
from .stack_features import stack_features

# Slices at a time.
CHUNK = 4


class Validation:
    """Segments the held-out slices one by one, their features computed once.

    Args:
        held_out: What to look at.
        backbone: Frozen.
    """

    def __init__(self, held_out: HeldOut, backbone: Backbone) -> None:
        self.held_out, self.backbone = held_out, backbone
        self.truth = held_out.stack.labels[list(held_out.numbers)]
        self.features: list[ImageFeatures] = []

    @torch.no_grad()
    def predict(self, prior: Prior) -> np.ndarray:
        """What the prior finds, each slice by itself: labels, uint8 `(n, s, s)`, as in `LabelledStack`.

        The noise is the same at every call.
        """
        device = self.backbone.device
        if not self.features:
            with autocast(device):
                self.features = [
                    stack_features(
                        self.backbone,
                        self.held_out.stack,
                        self.held_out.numbers[first : first + CHUNK],
                        reach_mm=prior.config.reach_mm,
                    )
                    for first in range(0, len(self.held_out.numbers), CHUNK)
                ]
        organs = len(prior.config.organs)
        generator = torch.Generator().manual_seed(0)
        labels = []
        for features in self.features:
            count = len(features)
            noise = torch.randn((count * organs, *self.backbone.memory_shape), generator=generator)
            index = torch.arange(organs, device=device).repeat(count)
            with autocast(device):
                outlines = prior.outlines(features)
                each = features.repeat(organs)
                outlined = outline_memory(self.backbone, each, outlines.flatten(0, 1))
                latent = prior.sample(
                    outlines.flatten(0, 1),
                    index,
                    steps=min(SAMPLING_STEPS, prior.config.training_steps),
                    noise=noise.to(device),
                )
                memory = prior.to_memory(latent, outlined)
                logits = self.backbone.decode(each, [Memory(memory)]).logits.float()
                present = prior.presence(outlines) >= PRESENT
            maps = F.interpolate(logits, self.backbone.image_size, mode="bilinear", align_corners=False)
            maps = maps.view(count, organs, *maps.shape[-2:])
            maps = maps.masked_fill(~present[..., None, None], -1.0)
            strongest, organ = maps.max(1)
            labels.append(torch.where(strongest > 0, organ + 1, 0).byte().cpu().numpy())
        return np.concatenate(labels)

    def dice(self, labels: np.ndarray) -> list[float | None]:
        """Dice of each organ over all held-out slices; None where it is not labelled there."""
        scores: list[float | None] = []
        for number, known in enumerate(self.held_out.stack.known, start=1):
            truth, found = self.truth == number, labels == number
            if not known or not truth.any():
                scores.append(None)
            else:
                scores.append(2 * float((truth & found).sum()) / float(truth.sum() + found.sum()))
        return scores
