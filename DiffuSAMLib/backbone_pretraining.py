"""Pretrains the compact backbone: to follow a mask from slice to slice, and to know where organs are."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .backbones import Backbone, ImageFeatures, Memory, mask_to_logits
from .checkpoints import other_run_error, read_checkpoint, write_checkpoint
from .damaged_masks import damage_masks
from .errors import InputError
from .interrupts import uninterrupted
from .losses import mask_loss, outline_loss
from .out_of_memory import is_out_of_memory
from .outline_decoder import OutlineDecoder
from .pair_sampler import PairSampler
from .pretraining_config import PretrainingConfig

logger = logging.getLogger(__name__)
# The command has no option for it.
_ANEW = "Remove that file to begin anew"


class BackbonePretraining:
    """The training loop: self-memory, neighbour's memory, both together, and the outlines of all organs.

    The decoder of outlines is a prior's: it makes the features show what a prior will look for.

    Args:
        backbone: The network to train, at its full image size.
        outlines: Trained with it; made for its features and the organs.
        sampler: Where pairs come from.
        organs: Number of organ labels in the stacks.
        config: The recipe.
        checkpoint: File that the run is saved to every two minutes and when interrupted, and resumes from; one with
            other settings is refused, but for the minutes.
        record: What the run was started with; a checkpoint with another record is refused.
    """

    def __init__(
        self,
        backbone: Backbone,
        outlines: OutlineDecoder,
        sampler: PairSampler,
        *,
        organs: int,
        config: PretrainingConfig,
        checkpoint: Path,
        record: str = "",
    ) -> None:
        self.backbone, self.outlines, self.sampler = backbone, outlines, sampler
        self.organs, self.config = organs, config
        self.checkpoint, self.record = checkpoint, record
        self.optimizer = torch.optim.AdamW(
            [*backbone.parameters(), *self.outlines.parameters()],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.averaged = {name: value.clone() for name, value in backbone.state_dict().items()}
        self.averaged_outlines = {name: value.clone() for name, value in outlines.state_dict().items()}
        self.seconds = 0.0
        self.steps = 0
        self.generator = torch.Generator().manual_seed(config.seed + 1)

    def run(self) -> dict[str, Tensor]:
        """Trains for the recipe's time, saving every two minutes and when interrupted.

        Returns:
            The averaged weights of the backbone; those of the outlines are in `averaged_outlines`.

        Raises:
            InputError: The checkpoint is damaged or of another run.
            OutputError: The checkpoint cannot be written.
            OutOfMemoryError: The device has too little memory for the checkpoint.
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
            pairs = self.config.pairs * (2 if small else 1)
            follow = self.steps % self.config.follow_every == 0
            step_losses = self._step(pairs, size) if follow else self._outlines_step(2 * pairs, size)
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
        """Learns from pairs of slices, by all losses."""
        self.backbone.train()
        images, labels, known, distance = self.sampler.draw(pairs, size)
        features = self.backbone.encode_image(images)
        small = size < self.backbone.image_size
        count = self.config.small_objects if small else self.config.objects
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
        later = second[slice(half, None)]
        damaged_masks = mask_to_logits(damage_masks(target[half:], self.generator))
        damaged = self._noisy(self.backbone.encode_memory(later, damaged_masks))
        both = self.backbone.decode(later, [Memory(damaged), Memory(memory[half:], distance=distance)])
        return self._update(
            {
                "self": mask_loss(own, masks[:half]).mean(),
                "neighbour": mask_loss(neighbour, target).mean(),
                "both": mask_loss(both, target[half:]).mean(),
                "outlines": self._outline_loss(features, labels, known),
            }
        )

    def _outlines_step(self, slices: int, size: int) -> dict[str, float]:
        """Learns from slices of their own by the outlines alone, in half the time."""
        self.backbone.train()
        images, labels, known = (value[:slices] for value in self.sampler.draw(slices, size)[:3])
        return self._update(
            {"outlines": self._outline_loss(self.backbone.encode_image(images), labels, known)}
        )

    def _outline_loss(self, features: ImageFeatures, labels: Tensor, known: Tensor) -> Tensor:
        """Mere shapes teach no outlines."""
        (named,) = known.any(1).nonzero(as_tuple=True)
        if not len(named):
            return features.fine.sum() * 0
        values = torch.arange(1, self.organs + 1)[:, None, None]
        masks = labels[named][:, None] == values
        loss = outline_loss(self.outlines(features[named]), masks, known[named])
        return self.config.outline_weight * loss

    def _update(self, losses: dict[str, Tensor]) -> dict[str, float]:
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        # Each by itself: large gradients of the one must not make steps of the other small.
        for network in (self.backbone, self.outlines):
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        # Half an update could neither be kept nor gone on from.
        with uninterrupted():
            self.optimizer.step()
            decay = min(self.config.average, (self.steps + 1) / (self.steps + 10))
            for network, averaged in (
                (self.backbone, self.averaged),
                (self.outlines, self.averaged_outlines),
            ):
                for name, value in network.state_dict().items():
                    averaged[name].lerp_(value, 1 - decay)
        return {name: float(value.detach()) for name, value in losses.items()}

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
                "outlines": self.outlines.state_dict(),
                "averaged_outlines": self.averaged_outlines,
                "optimizer": self.optimizer.state_dict(),
                "seconds": self.seconds,
                "steps": self.steps,
                "config": json.dumps(self.config.to_dict()),
                "record": self.record,
            },
        )

    def _resume(self) -> None:
        state = read_checkpoint(self.checkpoint, device=self.backbone.device, anew=_ANEW)
        # Runs begun by earlier versions have no record.
        if state.get("record", self.record) != self.record:
            raise other_run_error(self.checkpoint, anew=_ANEW)
        try:
            self._require_same_settings(json.loads(state["config"]))
            self.backbone.load_state_dict(state["backbone"])
            self.outlines.load_state_dict(state["outlines"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.averaged, self.averaged_outlines = state["averaged"], state["averaged_outlines"]
            self.seconds, self.steps = state["seconds"], state["steps"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise other_run_error(self.checkpoint, anew=_ANEW) from error
        # A resumed run must not draw the pairs it has already seen.
        self.sampler.rng = np.random.default_rng([self.config.seed, self.steps])
        self.sampler.generator.manual_seed(self.config.seed + self.steps)
        logger.info("Resumed at step %d, %.1f minutes.", self.steps, self.seconds / 60)

    def _require_same_settings(self, begun: dict[str, Any]) -> None:
        """Refuses settings that the run did not begin with; only its time may be another."""
        mine = self.config.to_dict()
        other = [name for name in mine if name != "minutes" and mine[name] != begun.get(name)]
        if other:
            raise InputError(
                f"{self.checkpoint} holds an unfinished run with other settings: {', '.join(other)}.",
                hint="Resume with those it was started with, or remove that file to begin anew.",
            )
