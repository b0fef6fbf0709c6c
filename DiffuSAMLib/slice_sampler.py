"""Batches of augmented training slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .augmentation import sample_images, sample_labels
from .labelled_stacks import LabelledStack
from .recipe import TrainingConfig
from .slices import numbers_beside
from .stack_pool import StackPool

# Of a slice's image.
CHANNELS = 3


@dataclass(frozen=True)
class Batch:
    """Augmented slices and what is labelled on them.

    Attributes:
        images: `(b, 3, s, s)`.
        masks: bool `(b, organs, s, s)`.
        known: bool `(b, organs)`, whether the slice's case has labels for the organ.
        below, above: Images of the slices beside, changed in the same way; None without a reach.
    """

    images: Tensor
    masks: Tensor
    known: Tensor
    below: Tensor | None = None
    above: Tensor | None = None


class SliceSampler:
    """Draws augmented slices.

    Args:
        pool: Of the stacks.
        config: Says how they are changed.
        context: See `slices.as_channels`.
        reach_mm: How far away the slices beside them are; 0 leaves them out.
    """

    def __init__(self, pool: StackPool, config: TrainingConfig, *, context: int, reach_mm: float) -> None:
        self.pool, self.config, self.context, self.reach_mm = pool, config, context, reach_mm
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
            numbers = [number, *self._beside(stack, number)]
            images.append(stack.channels(torch.tensor(numbers), context=self.context).flatten(0, 1))
            labels.append(torch.from_numpy(stack.labels[numbers].astype(np.int64)))
            known.append(torch.from_numpy(stack.known))
        stacked = torch.stack(images)
        grid = self.config.spatial.grid(len(stacked), stacked.shape[-1], self.generator)
        # (b, 1, s, s), or (b, 3, s, s) with the slices beside.
        label = torch.stack([sample_labels(each, grid) for each in torch.stack(labels, dim=1)], dim=1)
        of_channels = label.repeat_interleave(CHANNELS, dim=1)
        changed = self.config.intensity(sample_images(stacked, grid), self.generator, labels=of_channels)
        values = torch.arange(1, len(known[0]) + 1)
        own, *beside = changed.split(CHANNELS, dim=1)
        return Batch(own, label[:, :1] == values[:, None, None], torch.stack(known), *beside)

    def _beside(self, stack: LabelledStack, number: int) -> list[int]:
        if not self.reach_mm:
            return []
        beside = numbers_beside(
            [number], count=len(stack.slices), spacing=stack.spacing[0], reach_mm=self.reach_mm
        )
        return [other for (other,) in beside]
