"""Batches of augmented training slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .augmentation import sample_images, sample_labels
from .recipe import TrainingConfig
from .stack_pool import StackPool


@dataclass(frozen=True)
class Batch:
    """Augmented slices and what is labelled on them.

    Attributes:
        images: `(b, 3, s, s)`.
        masks: bool `(b, organs, s, s)`.
        known: bool `(b, organs)`, whether the slice's case has labels for the organ.
    """

    images: Tensor
    masks: Tensor
    known: Tensor


class SliceSampler:
    """Draws augmented slices."""

    def __init__(self, pool: StackPool, config: TrainingConfig, *, context: int) -> None:
        self.pool, self.config, self.context = pool, config, context
        self.seek(0)

    def seek(self, number: int) -> None:
        """Makes the draw from here on depend on the seed and this number alone, so that a run can resume."""
        self.rng = np.random.default_rng([self.config.seed, number])
        self.generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + number)

    def draw(self, count: int) -> Batch:
        """The next `count` slices."""
        images, labels, known = [], [], []
        for _ in range(count):
            stack, number = self.pool.draw(self.rng, organ_share=0.6)
            images.append(stack.channels(torch.tensor([number]), context=self.context)[0])
            labels.append(torch.from_numpy(stack.labels[number].astype(np.int64)))
            known.append(torch.from_numpy(stack.known))
        stacked = torch.stack(images)
        grid = self.config.spatial.grid(len(stacked), stacked.shape[-1], self.generator)
        label = sample_labels(torch.stack(labels), grid)
        values = torch.arange(1, len(known[0]) + 1)
        return Batch(
            images=self.config.intensity(sample_images(stacked, grid), self.generator, labels=label),
            masks=label[:, None] == values[:, None, None],
            known=torch.stack(known),
        )
