"""Trains a prior on labelled volumes: equations 1 and 2 on augmented slices."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .augmentation import IntensityAugmentation, SpatialAugmentation, sample_images, sample_labels
from .backbones import Backbone, Memory, mask_to_logits
from .checkpoints import other_run_error, read_checkpoint, write_checkpoint
from .losses import mask_loss, outline_loss
from .prior import Prior, empty_memory
from .progress import Progress, ProgressEvent
from .slices import as_channels
from .stack_pool import StackPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe of a prior; travels in its file.

    Attributes:
        iterations: Steps of the optimizer.
        minutes: Ends earlier when this time is up; None sets no limit. The learning rate falls to zero at
            whichever end comes first.
        batch: Slices in a step; each with the organs it shows.
        learning_rate: Highest learning rate (AdamW).
        weight_decay: AdamW's.
        prior_weight: Lambda of the squared error on latents (equation 1).
        segmentation_weight: Lambda of the segmentation loss (equation 2).
        outline_weight: Weight of the auxiliary loss on where the condition believes the organs; not in the paper.
        last_step_share: Share of samples at the last timestep, where sampling starts.
        absent_share: Share of the organs absent from a slice that are trained on there.
        average: Decay of the exponential moving average of the weights.
        seed: Of weights, sampling, noise and augmentation.
        spatial, intensity: The augmentation.
    """

    iterations: int = 7800
    minutes: float | None = None
    batch: int = 8
    learning_rate: float = 6e-4
    weight_decay: float = 0.02
    prior_weight: float = 1.0
    segmentation_weight: float = 1.0
    outline_weight: float = 1.0
    last_step_share: float = 0.5
    absent_share: float = 0.25
    average: float = 0.998
    seed: int = 0
    spatial: SpatialAugmentation = field(default_factory=SpatialAugmentation)
    intensity: IntensityAugmentation = field(default_factory=IntensityAugmentation)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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
    """Draws batches of augmented slices."""

    def __init__(self, pool: StackPool, config: TrainingConfig, *, context: int) -> None:
        self.pool, self.config, self.context = pool, config, context
        self.seek(0)

    def seek(self, iteration: int) -> None:
        """Makes the draws from here on depend on the seed and the iteration alone, so that a run can resume."""
        self.rng = np.random.default_rng([self.config.seed, iteration])
        self.generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + iteration)

    def draw(self) -> Batch:
        images, labels, known = [], [], []
        for _ in range(self.config.batch):
            stack, number = self.pool.draw(self.rng, organ_share=0.6)
            images.append(
                as_channels(self.pool.images(stack), torch.tensor([number]), context=self.context)[0]
            )
            labels.append(torch.from_numpy(stack.labels[number].astype(np.int64)))
            known.append(torch.from_numpy(stack.known))
        stacked = torch.stack(images)
        grid = self.config.spatial.grid(len(stacked), stacked.shape[-1], self.generator)
        label = sample_labels(torch.stack(labels), grid)
        values = torch.arange(1, len(known[0]) + 1)
        return Batch(
            images=self.config.intensity(sample_images(stacked, grid), self.generator),
            masks=label[:, None] == values[:, None, None],
            known=torch.stack(known),
        )


class PriorTraining:
    """The training loop.

    Args:
        prior: Fresh or half trained.
        backbone: Frozen, on the same device.
        sampler: Where slices come from.
        config: The recipe.
        checkpoint: File that the run is saved to every two minutes and when interrupted, and resumes from.
    """

    def __init__(
        self,
        prior: Prior,
        backbone: Backbone,
        sampler: SliceSampler,
        *,
        config: TrainingConfig,
        checkpoint: Path,
    ) -> None:
        self.prior, self.backbone, self.sampler, self.config = prior, backbone, sampler, config
        self.checkpoint = checkpoint
        self.optimizer = torch.optim.AdamW(
            prior.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.averaged = {name: value.clone() for name, value in prior.state_dict().items()}
        self.iteration = 0
        self.seconds = 0.0
        self.losses: list[dict[str, float]] = []
        self._whole = True

    def run(self, progress: Progress | None = None) -> dict[str, Tensor]:
        """Trains to the end of the recipe.

        Returns:
            The averaged weights.

        Raises:
            InputError: The checkpoint is damaged or of another run.
            OutputError: The checkpoint cannot be written.
        """
        if self.checkpoint.exists():
            self._resume()
        elif bool((self.prior.latent_deviation == 1).all()):
            # A prior that starts from another keeps that one's measure.
            self._measure_latents()
        try:
            self._iterate(progress)
        except KeyboardInterrupt:
            # Half an update is not worth keeping: the last checkpoint is.
            if self._whole:
                self._save()
            raise
        self._save()
        return self.averaged

    def _iterate(self, progress: Progress | None) -> None:
        saved = time.monotonic()
        while self._part() < 1:
            started = time.monotonic()
            losses = self._gradients()
            self._whole = False
            self._update()
            self.iteration += 1
            self.seconds += time.monotonic() - started
            self.losses.append(losses)
            self._whole = True
            if progress is not None:
                progress(ProgressEvent("train", self.iteration, self.config.iterations))
            if self.iteration % 50 == 0:
                recent = self.losses[-50:]
                text = ", ".join(f"{name} {np.mean([loss[name] for loss in recent]):.3f}" for name in losses)
                logger.info("iteration %d, %.1f min: %s", self.iteration, self.seconds / 60, text)
            if time.monotonic() - saved > 110:
                self._save()
                saved = time.monotonic()

    def _part(self) -> float:
        """How much of the run is done, 0 to 1."""
        by_time = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return max(by_time, self.iteration / self.config.iterations)

    @torch.no_grad()
    def _measure_latents(self, *, batches: int = 12) -> None:
        """Sets the deviation of each latent channel, over organs that are present."""
        squares = []
        for _ in range(batches):
            latent, *_ = self._targets(self.sampler.draw(), present_only=True)
            squares.append((latent**2).mean((0, 2, 3)))
        deviation = torch.stack(squares).mean(0).sqrt().clamp(min=1e-4)
        self.prior.latent_deviation.copy_(deviation[:, None, None])
        self.averaged["latent_deviation"].copy_(self.prior.latent_deviation)

    @torch.no_grad()
    def _targets(
        self, batch: Batch, *, present_only: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Any]:
        """The latents that true masks make.

        Returns:
            latents `(b, m, h, w)`, memories of the empty slices `(b, m, h, w)`, which slice and which organ
            each belongs to `(b,)`, and the image features of the batch.
        """
        device = self.backbone.device
        features = self.backbone.encode_image(batch.images.to(device))
        present = batch.masks.flatten(2).any(2)
        chosen = present | (
            torch.rand(present.shape, generator=self.sampler.generator) < self.config.absent_share
        )
        chosen = (present if present_only else chosen) & batch.known
        if not chosen.any():
            chosen = batch.known
        rows, organs = chosen.nonzero(as_tuple=True)
        masks = mask_to_logits(batch.masks[rows, organs][:, None]).to(device)
        rows, organs = rows.to(device), organs.to(device)
        memory = self.backbone.encode_memory(features[rows], masks)
        empty = empty_memory(self.backbone, features)[rows]
        return self.prior.to_latent(memory, empty), empty, rows, organs, features

    def _gradients(self) -> dict[str, float]:
        """Draws a batch and computes its losses and their gradients."""
        config, scheduler = self.config, self.prior.scheduler
        self.sampler.seek(self.iteration)
        rate = (
            config.learning_rate
            * min(1.0, (self.iteration + 1) / 100)
            * 0.5
            * (1 + math.cos(math.pi * self._part()))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = max(rate, 1e-6)
        self.prior.train()
        batch = self.sampler.draw()
        latent, empty, rows, organs, features = self._targets(batch)
        generator = self.sampler.generator
        last = self.prior.config.training_steps - 1
        timestep = torch.randint(0, last + 1, (len(latent),), generator=generator)
        timestep[torch.rand(len(latent), generator=generator) < config.last_step_share] = last
        noise = torch.randn(latent.shape, generator=generator).to(latent)
        timestep = timestep.to(latent.device)
        condition = self.prior.condition(features)
        clean = self.prior.denoise(
            scheduler.add_noise(latent, noise, timestep), timestep, condition[rows], organs
        )
        decoded = self.backbone.decode(features[rows], [Memory(self.prior.to_memory(clean, empty))])
        outlines = self.prior.outlines(condition)
        presence = self.prior.presence(condition, outlines)
        present = batch.masks.flatten(2).any(2).to(presence)
        known = batch.known.to(presence.device)
        masks = batch.masks[rows.cpu(), organs.cpu()][:, None].to(latent.device)
        losses = {
            "prior": config.prior_weight * F.mse_loss(clean, latent),
            "segmentation": config.segmentation_weight * mask_loss(decoded, masks),
            "outlines": config.outline_weight
            * outline_loss(outlines, batch.masks.to(outlines.device), known),
            "presence": F.binary_cross_entropy_with_logits(presence[known], present[known]),
        }
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        return {name: float(value.detach()) for name, value in losses.items()}

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self.prior.parameters(), 1.0)
        self.optimizer.step()
        decay = min(self.config.average, (self.iteration + 1) / (self.iteration + 10))
        for name, value in self.prior.state_dict().items():
            self.averaged[name].lerp_(value, 1 - decay)

    def _save(self) -> None:
        write_checkpoint(
            self.checkpoint,
            {
                "prior": self.prior.state_dict(),
                "averaged": self.averaged,
                "optimizer": self.optimizer.state_dict(),
                "iteration": self.iteration,
                "seconds": self.seconds,
                "losses": json.dumps(self.losses),
            },
        )

    def _resume(self) -> None:
        state = read_checkpoint(self.checkpoint, device=self.backbone.device)
        try:
            self.prior.load_state_dict(state["prior"])
            self.averaged = state["averaged"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.iteration, self.seconds = state["iteration"], state["seconds"]
            self.losses = json.loads(state["losses"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise other_run_error(self.checkpoint) from error
        logger.info("Resumed at iteration %d, %.1f minutes.", self.iteration, self.seconds / 60)
