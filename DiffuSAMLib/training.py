"""Trains a prior on labelled volumes: equations 1 and 2 on augmented slices."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .backbones import MASK_LOGIT, Backbone, Memory, mask_to_logits
from .checkpoints import other_run_error, read_checkpoint, write_checkpoint
from .damaged_masks import damage_masks
from .encoded_slices import EncodedBatch, EncodedSlices
from .errors import InputError
from .held_out import ValidationConfig
from .interrupts import uninterrupted
from .losses import mask_loss, outline_loss
from .out_of_memory import is_out_of_memory
from .outline_decoder import compete
from .prior import Prior, outline_memory
from .processes import Processes
from .progress import Progress
from .recipe import TrainingConfig
from .slice_sampler import SliceSampler
from .stack_pool import StackPool
from .training_events import TrainingListener
from .training_log import TrainingLog
from .training_record import Ending
from .training_reporter import TrainingReporter
from .validated import Validated, best_of, choose_weights
from .validation import Validation

logger = logging.getLogger(__name__)

# Slices over which the deviation of the latents is measured.
MEASURED = 96


class PriorTraining:
    """The training loop.

    Args:
        prior: Fresh or half trained.
        backbone: Frozen, on the same device.
        pool: Where slices come from.
        config: The recipe.
        checkpoint: File that the run is saved to every two minutes and when interrupted, and resumes from.
        validation: Held-out slices; None holds out nothing.
        validation_config: How often they are looked at.
        record: What else is to be known to finish the run, kept in the checkpoint.
        processes: Those that train it together; they read the checkpoint from a folder that all see.
    """

    def __init__(
        self,
        prior: Prior,
        backbone: Backbone,
        pool: StackPool,
        *,
        config: TrainingConfig,
        checkpoint: Path,
        validation: Validation | None = None,
        validation_config: ValidationConfig | None = None,
        record: str = "",
        processes: Processes | None = None,
    ) -> None:
        self.prior, self.backbone, self.config = prior, backbone, config
        sampler = SliceSampler(pool, config, context=backbone.slice_context, reach_mm=prior.config.reach_mm)
        self.slices = EncodedSlices(sampler, backbone, training_steps=prior.config.training_steps)
        self.checkpoint, self.record = checkpoint, record
        self.processes = processes or Processes()
        self.validation, self.validation_config = validation, validation_config or ValidationConfig()
        kinds: dict[str, type[torch.optim.Optimizer]] = {
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
        }
        self.optimizer = kinds[config.optimizer](
            prior.parameters(),
            lr=config.learning_rate,  # type: ignore[call-arg]
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.averaged = {name: value.clone() for name, value in prior.state_dict().items()}
        self.best: dict[str, Tensor] | None = None
        self.iteration = 0
        self.seconds = 0.0
        self.losses: list[dict[str, float]] = []
        self.validated: list[Validated] = []
        self.ended: Ending = "complete"
        self._shadow: Prior | None = None
        self._validation_cost = 0.0

    def resume(self) -> None:
        """Takes up the run in the checkpoint, if there is one.

        Raises:
            InputError: The checkpoint is damaged or of another run.
        """
        if self.checkpoint.exists():
            self._resume()

    def run(
        self,
        progress: Progress | None = None,
        *,
        listener: TrainingListener | None = None,
        stop: Callable[[], bool] | None = None,
        log: TrainingLog | None = None,
        on_validated: Callable[[Prior, np.ndarray, int], Path | None] | None = None,
    ) -> dict[str, Tensor]:
        """Trains to the end of the recipe, from where it is: `resume` first takes up an interrupted run.

        Args:
            progress: Called after each iteration.
            listener: Told of losses and validations.
            stop: Asked before each iteration whether to end now, with what there is.
            log: Where losses and validations are written.
            on_validated: Given the averaged prior and what it finds on the held-out slices; may make a picture.

        Returns:
            The averaged weights, of the end or of the best validation.

        Raises:
            InputError: The training has diverged.
            OutputError: The checkpoint cannot be written.
        """
        if self.iteration == 0 and bool((self.prior.latent_deviation == 1).all()):
            # A prior that starts from another keeps that one's measure.
            self._measure_latents()
        self._tell = TrainingReporter(self, progress, listener, log, on_validated)
        try:
            self._iterate(stop)
            if self.iteration and (not self.validated or self.validated[-1].iteration < self.iteration):
                self._validate()
            self._tell.rest()
        except (KeyboardInterrupt, SystemExit):
            self._save()
            raise
        finally:
            self._tell.close()
        self._save()
        return self.chosen()[0]

    def chosen(self) -> tuple[dict[str, Tensor], Validated | None]:
        """The weights to keep, and how they did on the held-out slices."""
        return choose_weights(self.averaged, self.best, self.validated, self.validation_config.margin)

    def _iterate(self, stop: Callable[[], bool] | None) -> None:
        saved = time.monotonic()
        longest = 0.0
        while True:
            stopped = stop is not None and stop()
            # The clock of one process decides for all.
            part, rate, *ends = self.processes.agree(
                [self.part(), self.learning_rate(), stopped, self._out_of_patience()]
            )
            if part >= 1:
                return
            if ends[0] and self.iteration == 0:
                # There is nothing to keep.
                raise KeyboardInterrupt
            if any(ends):
                self.ended = "stopped" if ends[0] else "no improvement"
                return
            began = started = time.monotonic()
            losses = self._gradients(rate)
            if not all(map(math.isfinite, losses.values())):
                raise InputError(
                    f"The training has diverged: in iteration {self.iteration + 1} its losses are no numbers.",
                    hint="Choose a lower --learning-rate, and begin anew with --restart.",
                )
            # Half an update could neither be kept nor gone on from.
            with uninterrupted():
                self._update()
                self.iteration += 1
                self.losses.append(losses)
            self.seconds += time.monotonic() - started
            started = time.monotonic()
            if self._validation_is_due():
                self._validate()
            self._tell.iteration()
            now = time.monotonic()
            longest = max(longest, now - began)
            # Earlier, rather than later than promised where an iteration takes long.
            if now - saved + longest >= self.config.checkpoint_seconds:
                self._save()
                saved = time.monotonic()
            self.seconds += time.monotonic() - started

    def part(self) -> float:
        """How much of the run is done, 0 to 1."""
        by_time = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return max(by_time, self.iteration / self.config.iterations)

    def _validation_is_due(self) -> bool:
        if self.validation is None or not self.processes.main:
            return False
        every = 60 * self.validation_config.every_minutes
        last = self.validated[-1].seconds if self.validated else 0.0
        return every == 0 or self.seconds - last >= max(every, 30 * self._validation_cost)

    def _out_of_patience(self) -> bool:
        patience = self.validation_config.patience
        if patience is None or not self.validated:
            return False
        return self.validated[::-1].index(best_of(self.validated)) >= patience

    def _validate(self) -> None:
        """Looks at the held-out slices with the averaged weights; draws nothing, so the run goes on as without."""
        if self.validation is None or not self.processes.main:
            return
        started = time.monotonic()
        if self._shadow is None:
            self._shadow = copy.deepcopy(self.prior).requires_grad_(False).eval()
        self._shadow.load_state_dict(self.averaged)
        labels = self.validation.predict(self._shadow)
        dice = tuple(self.validation.dice(labels))
        self._validation_cost = time.monotonic() - started
        look = Validated(self.iteration, self.seconds, dice)
        best = not self.validated or (look.mean or 0) >= (best_of(self.validated).mean or 0)
        if best:
            self.best = {name: value.clone() for name, value in self.averaged.items()}
        self.validated.append(look)
        self._tell.validation(self._shadow, labels, best=best)

    @torch.no_grad()
    def _measure_latents(self) -> None:
        """Sets the deviation of each latent channel: how far the memories of rough masks are from the true ones."""
        # Every process measures all of it.
        first = self.slices.window(0)
        generator = torch.Generator().manual_seed(self.config.seed)
        squares = []
        for number in range(MEASURED):
            (each,) = self.slices.encoded([number], keep=first)
            for organ, memory in each.memories.items():
                rough = damage_masks(each.masks[organ].cpu()[None, None], generator).to(memory)
                score = memory.new_full((1, 1), MASK_LOGIT)
                other = self.backbone.encode_memory(each.features, mask_to_logits(rough), object_score=score)
                squares.append(((memory - other[0]) ** 2).mean((1, 2)))
        if squares:
            deviation = torch.stack(squares).mean(0).sqrt().clamp(min=1e-4)
            self.prior.latent_deviation.copy_(deviation[:, None, None])
            self.averaged["latent_deviation"].copy_(self.prior.latent_deviation)

    def _gradients(self, rate: float) -> dict[str, float]:
        """Computes the losses of a batch and their gradients."""
        config, scheduler, processes = self.config, self.prior.scheduler, self.processes
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.prior.train()
        batch = EncodedBatch.of(self.slices.batch(self.iteration, processes.share(config.batch)))
        features, organs, truth = batch.features, batch.organs, batch.masks
        rows = torch.arange(len(organs), device=organs.device)
        logits = self.prior.outline_decoder(features)
        # What is generated from an outline must not change it: outlines learn from the labels alone.
        outlines = compete(logits.detach())[rows, organs]
        outlined = outline_memory(self.backbone, features, outlines)
        latent = self.prior.to_latent(batch.memories, outlined)
        known = latent
        if config.recycle and self.prior.config.kind == "diffusion":
            # What a later step of sampling knows is the guess of an earlier one, never the truth.
            with torch.no_grad():
                known = self.prior.denoise(batch.noise, len(scheduler) - 1, outlines, organs)
        noisy = scheduler.add_noise(known, batch.noise, batch.timesteps)
        clean = self.prior.denoise(noisy, batch.timesteps, outlines, organs)
        decoded = self.backbone.decode(features, [Memory(self.prior.to_memory(clean, outlined))])

        def total(values: Tensor) -> Tensor:
            return processes.sum(values.sum())

        def mean(values: Tensor) -> Tensor:
            return total(values) / total(torch.ones_like(values))

        losses = {
            "prior": config.prior_weight * mean((clean - latent) ** 2),
            "segmentation": config.segmentation_weight
            * mean(mask_loss(decoded, truth[rows, organs][:, None])),
            "outlines": config.outline_weight * outline_loss(logits, truth, batch.known, total=total),
        }
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        processes.sum_gradients(self.prior.parameters())
        return {name: float(value.detach()) for name, value in losses.items()}

    def learning_rate(self) -> float:
        """At this point of the run."""
        config = self.config
        rate = config.learning_rate * min(1.0, (self.iteration + 1) / max(1, config.warmup))
        if config.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, self.part())))
        return max(rate, min(1e-6, config.learning_rate))

    def _update(self) -> None:
        # Each by itself: large gradients of the one must not make steps of the other small.
        for network in (self.prior.outline_decoder, self.prior.denoiser):
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        self.optimizer.step()
        decay = min(self.config.average, (self.iteration + 1) / (self.iteration + 10))
        latest = self.prior.state_dict()
        torch._foreach_lerp_([self.averaged[name] for name in latest], list(latest.values()), 1 - decay)

    def _save(self) -> None:
        if not self.processes.main:
            return
        write_checkpoint(
            self.checkpoint,
            {
                "prior": self.prior.state_dict(),
                "averaged": self.averaged,
                "best": self.best,
                "optimizer": self.optimizer.state_dict(),
                "iteration": self.iteration,
                "seconds": self.seconds,
                "losses": json.dumps(self.losses),
                "validated": json.dumps([asdict(look) for look in self.validated]),
                "record": self.record,
            },
        )

    def _resume(self) -> None:
        state = read_checkpoint(self.checkpoint, device=self.backbone.device)
        try:
            self.prior.load_state_dict(state["prior"])
            self.averaged, self.best = state["averaged"], state["best"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.iteration, self.seconds = state["iteration"], state["seconds"]
            self.losses = json.loads(state["losses"])
            self.validated = [Validated.from_json(look) for look in json.loads(state["validated"])]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            raise other_run_error(self.checkpoint) from error
        logger.info("Resumed at iteration %d, %.1f minutes.", self.iteration, self.seconds / 60)
