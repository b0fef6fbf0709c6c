"""Training material of the backbone: augmented pairs of neighbouring slices, and objects to follow in them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .augmentation import sample_images, sample_labels
from .pretraining_config import PretrainingConfig
from .stack_pool import StackPool


class PairSampler:
    """Draws augmented pairs of neighbouring slices with objects to follow from the first to the second."""

    def __init__(
        self,
        pool: StackPool,
        config: PretrainingConfig,
        *,
        shapes: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> None:
        self.pool, self.config, self.shapes = pool, config, shapes
        self.rng = np.random.default_rng(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)

    def draw(self, pairs: int, size: int) -> tuple[Tensor, Tensor, Tensor, int]:
        """One batch.

        Returns:
            images `(2 * pairs, 3, size, size)`, first all first slices, then all second ones; labels
            `(2 * pairs, size, size)`; the organs that each slice's case has labels for, bool
            `(2 * pairs, organs)`, all False where labels are mere shapes; distance of all pairs in slices.
        """
        images, labels, known = [], [], []
        distance = int(self.rng.integers(1, self.config.farthest + 1))
        for _ in range(pairs):
            if self.shapes is not None and self.rng.random() < 0.08:
                two, marks = self.shapes(self.rng, size=self.pool.size)
                pair = torch.from_numpy(two)
                images.append(pair[:, None].expand(-1, 3, -1, -1))
                labels.append(torch.from_numpy(marks.astype(np.int64)))
                known.append(torch.zeros(2, self.pool.organs, dtype=torch.bool))
                continue
            stack, first = self.pool.draw(self.rng, organ_share=0.75)
            second = first + distance * int(self.rng.choice((-1, 1)))
            if not 0 <= second < len(stack.slices):
                second = 2 * first - second
            second = int(np.clip(second, 0, len(stack.slices) - 1))
            indices = torch.tensor([first, second])
            images.append(stack.channels(indices, context=1))
            labels.append(torch.from_numpy(stack.labels[[first, second]].astype(np.int64)))
            known.append(torch.from_numpy(stack.known).expand(2, -1))
        image = torch.stack(images, dim=1).flatten(0, 1)
        label = torch.stack(labels, dim=1).flatten(0, 1)
        grid = self.config.spatial.grid(pairs, size, self.generator).repeat(2, 1, 1, 1)
        image = sample_images(image, grid)
        # Both slices of a pair come from one scan: the same change of appearance for all their channels.
        both = torch.cat((image[:pairs], image[pairs:]), dim=1)
        both = self.config.intensity(both, self.generator)
        image = torch.cat((both[:, :3], both[:, 3:]))
        return (
            image,
            sample_labels(label, grid),
            torch.stack(known, dim=1).flatten(0, 1),
            distance,
        )

    def objects(self, labels: Tensor, organs: int, *, count: int) -> tuple[Tensor, Tensor]:
        """Chooses what to follow in each pair.

        Returns:
            Index of the pair and label value of every object, `(pairs * count,)` each.
        """
        pairs = len(labels) // 2
        rows, values = [], []
        for row in range(pairs):
            seen = torch.unique(torch.cat((labels[row], labels[row + pairs])))
            present = [int(v) for v in seen if v > 0]
            for _ in range(count):
                if present and self.rng.random() < 0.9:
                    value = present[self.rng.integers(len(present))]
                else:
                    value = int(self.rng.integers(1, organs + 1))
                rows.append(row)
                values.append(value)
        return torch.tensor(rows), torch.tensor(values)
