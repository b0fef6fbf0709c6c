"""Pretrains the compact backbone as a promptable slice-to-slice segmenter."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .augmentation import IntensityAugmentation, SpatialAugmentation, sample_images, sample_labels
from .backbones import Backbone, ImageFeatures, Memory, mask_to_logits
from .checkpoints import other_run_error, read_checkpoint, write_checkpoint
from .config_json import from_json, with_settings
from .errors import InputError
from .interrupts import uninterrupted
from .losses import mask_loss
from .rough_masks import rough_masks
from .slices import as_channels
from .stack_pool import StackPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainingConfig:
    """How the backbone is pretrained; travels in its model card.

    Attributes:
        minutes: Time to train; the learning rate falls to zero over it.
        small_part: Part of the time spent at `small_size`, where a step costs a quarter.
        small_size: Side of the slices in the first part, in pixels.
        pairs: Pairs of neighbouring slices in a step at full size; twice as many at the small one.
        small_objects: Objects prompted in each pair at the small size.
        objects: The same at full size, where following masks has been learnt.
        farthest: Largest distance between the slices of a pair, in slices.
        learning_rate: Highest learning rate (AdamW).
        weight_decay: AdamW's.
        small_dense_weight: Weight, at the small size, of the auxiliary head that names the organ of every pixel.
        dense_weight: The same at full size.
        memory_noise: Largest noise added to memories, in their channels' standard deviations, so that the
            memory space is smooth and a generated memory need not be exact.
        average: Decay of the exponential moving average of the weights.
        seed: Of weights, sampling and augmentation.
        spatial, intensity: The augmentation.
    """

    minutes: float = 60.0
    small_part: float = 0.4
    small_size: int = 128
    pairs: int = 6
    small_objects: int = 2
    objects: int = 1
    farthest: int = 3
    learning_rate: float = 8e-4
    weight_decay: float = 0.02
    small_dense_weight: float = 0.5
    dense_weight: float = 3.0
    memory_noise: float = 0.5
    average: float = 0.998
    seed: int = 0
    spatial: SpatialAugmentation = field(default_factory=SpatialAugmentation)
    intensity: IntensityAugmentation = field(default_factory=IntensityAugmentation)

    @classmethod
    def with_settings(cls, settings: Mapping[str, Any]) -> PretrainingConfig:
        """The defaults with some settings changed.

        Args:
            settings: Values by their places, such as "intensity.strength".

        Raises:
            InputError: There is no such setting, or it cannot have the value.
        """
        names = ", ".join(item.name for item in fields(cls))
        content = with_settings(asdict(cls()), settings, hint=f"There are {names}.")
        config = from_json(cls, content, source="The pretraining")
        config.check()
        return config

    def check(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            InputError: A value is out of range.
        """
        if self.minutes <= 0 or self.seed < 0:
            raise InputError("The training needs more than 0 minutes and a seed of 0 or more.")
        for name in ("pairs", "small_objects", "objects", "farthest"):
            if getattr(self, name) < 1:
                raise InputError(f"The setting {name} must be 1 or more, not {getattr(self, name)}.")
        for name in ("small_part", "average"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"The setting {name} must be 0 to 1, not {getattr(self, name):g}.")
        for name in ("learning_rate", "weight_decay", "small_dense_weight", "dense_weight", "memory_noise"):
            if getattr(self, name) < 0:
                raise InputError(f"The setting {name} must be 0 or more, not {getattr(self, name):g}.")
        if self.small_size < 64 or self.small_size % 32:
            raise InputError(f"The setting small_size must be a multiple of 32, not {self.small_size}.")
        self.spatial.check()
        self.intensity.check()


class DenseHead(nn.Module):
    """Names the organ of every pixel at stride 8 from all three feature levels; thrown away after pretraining.

    It makes the features know anatomy, which is what a prior will look for in them.
    """

    def __init__(self, channels: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(sum(channels), classes, kernel_size=1)

    def forward(self, features: ImageFeatures) -> Tensor:
        """Logits `(n, classes, s/8, s/8)`."""
        size = features.middle.shape[-2:]
        coarse = F.interpolate(features.coarse, size=size, mode="bilinear", align_corners=False)
        return self.project(torch.cat((F.avg_pool2d(features.fine, 2), features.middle, coarse), dim=1))


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
            images.append(as_channels(self.pool.images(stack), indices, context=1))
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


def dense_loss(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Cross entropy of `(n, 1 + organs, h, w)` logits; organs that a case does not label count as background.

    Cases with no known organ (mere shapes) do not take part.
    """
    used = known.any(1)
    if not used.any():
        return logits.sum() * 0
    logits, known = logits[used], known[used]
    step = labels.shape[-1] // logits.shape[-1]
    target = labels[used][:, step // 2 :: step, step // 2 :: step]
    log_probability = logits.log_softmax(1)
    unlabelled = torch.cat((torch.ones_like(known[:, :1]), ~known), dim=1)[..., None, None]
    background = log_probability.masked_fill(~unlabelled, -math.inf).logsumexp(1, keepdim=True)
    merged = torch.cat((background, log_probability[:, 1:]), dim=1)
    # Small organs would drown in background and liver.
    weight = torch.full((merged.shape[1],), 2.0)
    weight[0] = 1.0
    return F.nll_loss(merged, target, weight=weight)


class BackbonePretraining:
    """The training loop: self-memory, neighbour's memory, both together, and the dense head.

    A prior's memory tells where an organ is, not quite how it is bounded. So half of what is decoded has memories of
    rough masks: the decoder learns to find the outline in the image, instead of giving back what the memory holds.

    Args:
        backbone: The network to train, at its full image size.
        sampler: Where pairs come from.
        organs: Number of organ labels in the stacks.
        config: The recipe.
        checkpoint: File that the run is saved to every two minutes and when interrupted, and resumes from.
        record: What the run was started with; a checkpoint with another record is refused.
    """

    def __init__(
        self,
        backbone: Backbone,
        sampler: PairSampler,
        *,
        organs: int,
        config: PretrainingConfig,
        checkpoint: Path,
        record: str = "",
    ) -> None:
        self.backbone, self.sampler, self.organs, self.config = backbone, sampler, organs, config
        self.checkpoint, self.record = checkpoint, record
        self.dense = DenseHead(backbone.feature_channels, organs + 1)
        self.parameters = [*backbone.parameters(), *self.dense.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.averaged = {name: value.clone() for name, value in backbone.state_dict().items()}
        self.seconds = 0.0
        self.steps = 0
        self.generator = torch.Generator().manual_seed(config.seed + 1)

    def run(self) -> dict[str, Tensor]:
        """Trains for the recipe's time, saving every two minutes and when interrupted.

        Returns:
            The averaged weights.

        Raises:
            InputError: The checkpoint is damaged or of another run.
            OutputError: The checkpoint cannot be written.
        """
        if self.checkpoint.exists():
            self._resume()
        try:
            self._iterate()
        except KeyboardInterrupt:
            self._save()
            raise
        self._save()
        return self.averaged

    def _iterate(self) -> None:
        budget = self.config.minutes * 60
        saved = time.monotonic()
        losses: dict[str, float] = {}
        while self.seconds < budget:
            start = time.monotonic()
            part = self.seconds / budget
            rate = (
                self.config.learning_rate
                * min(1.0, (self.steps + 1) / 200)
                * 0.5
                * (1 + math.cos(math.pi * part))
            )
            for group in self.optimizer.param_groups:
                group["lr"] = max(rate, 1e-6)
            small = part < self.config.small_part
            size = self.config.small_size if small else self.backbone.image_size
            step_losses = self._step(self.config.pairs * (2 if small else 1), size)
            for name, value in step_losses.items():
                losses[name] = value if name not in losses else 0.98 * losses[name] + 0.02 * value
            self.steps += 1
            self.seconds += time.monotonic() - start
            if self.steps % 50 == 0:
                text = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
                logger.info("step %d, %.1f min, %d px: %s", self.steps, self.seconds / 60, size, text)
            if time.monotonic() - saved > 120:
                self._save()
                saved = time.monotonic()

    def _step(self, pairs: int, size: int) -> dict[str, float]:
        self.backbone.train()
        images, labels, known, distance = self.sampler.draw(pairs, size)
        features = self.backbone.encode_image(images)
        small = size < self.backbone.image_size
        count = self.config.small_objects if small else self.config.objects
        dense_weight = self.config.small_dense_weight if small else self.config.dense_weight
        rows, values = self.sampler.objects(labels, self.organs, count=count)
        masks = (labels[rows] == values[:, None, None])[:, None].float()
        target = (labels[rows + pairs] == values[:, None, None])[:, None].float()
        first, second = features[rows], features[rows + pairs]
        memory = self._noisy(self.backbone.encode_memory(first, mask_to_logits(masks)))
        half = len(rows) // 2
        own = self.backbone.decode(first[slice(0, half)], [Memory(memory[:half])])
        # As a prompt's memory (distance 0) one time in three, else as a neighbour's.
        as_prompt = torch.rand((), generator=self.generator) < 0.33
        neighbour = self.backbone.decode(second, [Memory(memory, distance=0 if as_prompt else distance)])
        roughly = self._rough_memory(second, target)
        rough = self.backbone.decode(second, [Memory(roughly)])
        later = second[slice(half, None)]
        both = self.backbone.decode(later, [Memory(roughly[half:]), Memory(memory[half:], distance=distance)])
        losses = {
            "self": mask_loss(own, masks[:half]).mean(),
            "neighbour": mask_loss(neighbour, target).mean(),
            "rough": mask_loss(rough, target).mean(),
            "both": mask_loss(both, target[half:]).mean(),
            "dense": dense_loss(self.dense(features), labels, known) * dense_weight,
        }
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        # Half an update could neither be kept nor gone on from.
        with uninterrupted():
            self.optimizer.step()
            decay = min(self.config.average, (self.steps + 1) / (self.steps + 10))
            for name, value in self.backbone.state_dict().items():
                self.averaged[name].lerp_(value, 1 - decay)
        return {name: float(value.detach()) for name, value in losses.items()}

    def _rough_memory(self, features: ImageFeatures, masks: Tensor) -> Tensor:
        """Memories of rough masks, half of them between two such: what a network generates that cannot decide."""
        one, other = (
            self.backbone.encode_memory(features, mask_to_logits(rough_masks(masks, self.generator)))
            for _ in range(2)
        )
        share = (torch.rand(len(masks), 1, 1, 1, generator=self.generator) - 0.5).clamp(min=0)
        return self._noisy(one.lerp(other, share))

    def _noisy(self, memory: Tensor) -> Tensor:
        """Adds noise to half of the memories."""
        deviation = memory.detach().std((0, 2, 3), keepdim=True)
        amount = (torch.rand(len(memory), 1, 1, 1, generator=self.generator) - 0.5).clamp(min=0) * 2
        noise = torch.randn(memory.shape, generator=self.generator)
        return memory + noise * deviation * amount * self.config.memory_noise

    def _save(self) -> None:
        write_checkpoint(
            self.checkpoint,
            {
                "backbone": self.backbone.state_dict(),
                "averaged": self.averaged,
                "dense": self.dense.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "seconds": self.seconds,
                "steps": self.steps,
                "config": json.dumps(asdict(self.config)),
                "record": self.record,
            },
        )

    def _resume(self) -> None:
        state = read_checkpoint(self.checkpoint, device=self.backbone.device)
        # Runs begun by earlier versions have no record.
        if state.get("record", self.record) != self.record:
            raise other_run_error(self.checkpoint)
        try:
            self.backbone.load_state_dict(state["backbone"])
            self.dense.load_state_dict(state["dense"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.averaged = state["averaged"]
            self.seconds, self.steps = state["seconds"], state["steps"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise other_run_error(self.checkpoint) from error
        # A resumed run must not draw the pairs it has already seen.
        self.sampler.rng = np.random.default_rng([self.config.seed, self.steps])
        self.sampler.generator.manual_seed(self.config.seed + self.steps)
        logger.info("Resumed at step %d, %.1f minutes.", self.steps, self.seconds / 60)
