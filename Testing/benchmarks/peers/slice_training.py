"""The trainer that all trained peers share: the slices, size, context and augmentation of DiffuSAM's own training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import benchmark_path  # noqa: F401
import numpy as np
import torch
from common import RUNS
from protocols import Job
from torch import Tensor, nn
from torch.nn import functional as F
from units import fingerprint

from DiffuSAMLib.augmentation import IntensityAugmentation, SpatialAugmentation
from DiffuSAMLib.checkpoints import read_checkpoint, write_checkpoint
from DiffuSAMLib.edge_aware_smoothing import smooth_masks
from DiffuSAMLib.full_resolution import PlaneLogits, to_volume
from DiffuSAMLib.geometry import to_canonical
from DiffuSAMLib.hounsfield import remove_bright, remove_fat
from DiffuSAMLib.labelled_stacks import LabelledStack, load_stack
from DiffuSAMLib.postprocessing import clean_labels
from DiffuSAMLib.recipe import TrainingConfig
from DiffuSAMLib.shown_slices import FINER_SIDE
from DiffuSAMLib.slice_sampler import Batch, SliceSampler
from DiffuSAMLib.slices import SliceGrid, as_channels
from DiffuSAMLib.stack_pool import StackPool
from DiffuSAMLib.volumes import Volume, normalise

# Slices as DiffuSAM's compact backbone sees them: 256 pixels, with both neighbours as channels.
SIZE = 256
CONTEXT = 1
CHECKPOINT_SECONDS = 110.0
# Slices segmented at a time.
CHUNK = 4
INTENSITY = {
    "default": IntensityAugmentation(),
    "plain": IntensityAugmentation(cross_modality=0.0),
    # SLAug changes every image, half of them with curves of their own for the organs (arXiv 2211.14805).
    "slaug": IntensityAugmentation(cross_modality=0.9, organ_curves=0.5),
}
# What a training may add to its loss: given the batch, its logits, the true classes and which pixels count.
ExtraLoss = Callable[[Batch, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SliceRecipe:
    """How a peer's network is trained.

    Attributes:
        learning_rate: The highest; it falls to zero over the time.
        batch: Slices in a step.
        augmentation: Which of `INTENSITY`.
        size: Side of the slices in pixels.
    """

    learning_rate: float = 1e-3
    batch: int = 8
    augmentation: str = "default"
    size: int = SIZE

    def config(self, minutes: float, seed: int) -> TrainingConfig:
        return TrainingConfig(
            iterations=1_000_000,
            minutes=minutes,
            batch=self.batch,
            learning_rate=self.learning_rate,
            seed=seed,
            spatial=SpatialAugmentation(),
            intensity=INTENSITY[self.augmentation],
        )


def segmentation_loss(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Cross entropy and Dice, in equal parts.

    Args:
        logits: `(b, 1 + organs, h, w)`.
        target: Classes `(b, h, w)`.
        counted: bool `(b, h, w)`; other pixels do not count.
    """
    weight = counted.float()
    entropy = F.cross_entropy(logits, target, reduction="none")
    entropy = (entropy * weight).sum() / weight.sum().clamp(min=1)
    probability = logits.softmax(1)[:, 1:] * weight[:, None]
    truth = F.one_hot(target, logits.shape[1]).permute(0, 3, 1, 2)[:, 1:] * weight[:, None]
    overlap = 2 * (probability * truth).sum((0, 2, 3)) + 1
    return entropy + 1 - (overlap / (probability.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1)).mean()


class SliceTraining:
    """Trains a network that names the organ of every pixel; keeps an average of the weights, as DiffuSAM's does.

    Args:
        network: `(b, 3, s, s)` to logits `(b, 1 + organs, h, w)`; only parameters that require a gradient are trained.
        stacks: Labelled slices. Where `ignored` is set, their last label is not an organ: it marks pixels that do not
            count.
        config: Time, batch, learning rate, augmentation, seed.
        checkpoint: Where the run is saved every two minutes and when interrupted.
    """

    def __init__(
        self,
        network: nn.Module,
        stacks: Sequence[LabelledStack],
        config: TrainingConfig,
        checkpoint: Path,
        *,
        ignored: bool = False,
        extra_loss: ExtraLoss | None = None,
    ) -> None:
        self.network, self.config, self.checkpoint = network, config, checkpoint
        self.ignored, self.extra_loss = ignored, extra_loss
        self.sampler = SliceSampler(StackPool(stacks), config, context=CONTEXT, reach_mm=0)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.averaged = {name: value.clone() for name, value in network.state_dict().items()}
        self.iteration, self.seconds = 0, 0.0

    def run(self) -> dict[str, Any]:
        """Trains until the time is up; the network then holds the averaged weights. Returns a record."""
        if self.checkpoint.exists():
            self._resume()
        saved = time.monotonic()
        try:
            while self.part() < 1:
                started = time.monotonic()
                self._step()
                self.seconds += time.monotonic() - started
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()
        except KeyboardInterrupt:
            self._save()
            raise
        self.network.load_state_dict(self.averaged)
        self.network.eval()
        self.checkpoint.unlink(missing_ok=True)
        return {"iterations": self.iteration, "minutes": round(self.seconds / 60, 1)}

    def part(self) -> float:
        """How much of the run is done."""
        assert self.config.minutes is not None
        return max(self.seconds / (60 * self.config.minutes), self.iteration / self.config.iterations)

    def _step(self) -> None:
        self.network.train()
        self.sampler.seek(self.iteration)
        warm = min(1.0, (self.iteration + 1) / self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * self.part()))
        batch = self.sampler.draw(self.config.batch)
        organs = batch.masks[:, :-1] if self.ignored else batch.masks
        counted = ~batch.masks[:, -1] if self.ignored else torch.ones_like(batch.masks[:, 0])
        values = torch.arange(1, organs.shape[1] + 1)
        target = (organs * values[:, None, None]).amax(1)
        logits = resized(self.network(batch.images), target.shape[-1])
        loss = segmentation_loss(logits, target, counted)
        if self.extra_loss is not None:
            loss = loss + self.extra_loss(batch, logits, target, counted)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.iteration += 1
        decay = min(self.config.average, self.iteration / (self.iteration + 9))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.averaged[name].lerp_(value, 1 - decay)
            else:
                self.averaged[name].copy_(value)

    def _save(self) -> None:
        write_checkpoint(
            self.checkpoint,
            {
                "network": self.network.state_dict(),
                "averaged": self.averaged,
                "optimizer": self.optimizer.state_dict(),
                "iteration": self.iteration,
                "seconds": self.seconds,
            },
        )

    def _resume(self) -> None:
        state = read_checkpoint(self.checkpoint, device=torch.device("cpu"))
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged = state["averaged"]
        self.iteration, self.seconds = state["iteration"], state["seconds"]


def resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def trained(
    job: Job, name: str, network: nn.Module, recipe: SliceRecipe, *, settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Fills the network with weights trained on the job's cases, trained now unless they are there.

    Args:
        job: Whose cases, organs, minutes and seed.
        name: Of the network.
        network: Fresh; built after `seeded`.
        recipe: How to train.
        settings: What else decides the weights.

    Returns:
        The record of the training.
    """
    cases = job.training_cases()
    content = {
        "name": name,
        "cases": [case.name for case in cases],
        "organs": job.protocol.organs,
        "recipe": asdict(recipe),
        "minutes": job.minutes,
        "seed": job.draw,
        "settings": settings or {},
    }
    path = RUNS / "peers" / f"{name}_{fingerprint(content)[:16]}.weights"
    if path.exists():
        state = read_checkpoint(path, device=torch.device("cpu"))
        network.load_state_dict(state["network"])
        network.eval()
        return {"iterations": state["iterations"], "minutes": state["minutes"]}
    stacks = [load_stack(case, organs=job.protocol.organs, size=recipe.size) for case in cases]
    config = recipe.config(job.minutes, job.draw)
    record = SliceTraining(network, stacks, config, path.with_suffix(".training")).run()
    write_checkpoint(path, {"network": network.state_dict(), **record})
    return record


def seeded(job: Job) -> None:
    """Makes the weights of the network built next depend on the draw alone."""
    torch.manual_seed(job.draw)


@torch.no_grad()
def stack_logits(network: Callable[[Tensor], Tensor], slices: Tensor) -> Tensor:
    """Logits `(n, 1 + organs, h, w)` of a stack `(n, s, s)`."""
    parts = []
    for begin in range(0, len(slices), CHUNK):
        numbers = torch.arange(begin, min(begin + CHUNK, len(slices)))
        parts.append(network(as_channels(slices, numbers, context=CONTEXT)))
    return torch.cat(parts)


@torch.no_grad()
def segment_slices(
    logits_of: Callable[[Tensor], Tensor],
    volume: Volume,
    *,
    organs: int,
    size: int = SIZE,
    smooth: bool = False,
) -> np.ndarray:
    """Labels on the volume's grid, from logits in the same way as DiffuSAM's: refined by the image, then cleaned.

    Args:
        logits_of: Slices `(n, s, s)` in `[0, 1]` of a whole volume to logits `(n, 1 + organs, h, w)`.
        volume: Any grid.
        organs: How many.
        size: Side of the slices in pixels.
        smooth: Whether masks are smoothed along the image's edges first, as DiffuSAM's are.
    """
    order = to_canonical(volume.geometry)
    grid = SliceGrid.fit(order.geometry, size)
    stack = torch.from_numpy(np.ascontiguousarray(order.apply(normalise(volume))))
    slices = grid.to_slices(stack)
    logits = logits_of(slices).softmax(1)[:, 1:].logit(eps=1e-4).numpy()
    if smooth:
        guide = F.interpolate(slices[:, None], size=FINER_SIDE, mode="bilinear", antialias=True)
        logits = smooth_masks(logits, guide[:, 0].clamp(0, 1).numpy(), across=True)
    labels, _ = to_volume(volume, [PlaneLogits(order, grid, logits)], refine=True)
    values, view, spacing = range(1, organs + 1), order.view(labels), order.geometry.spacing[::-1]
    if volume.modality == "CT":
        # The organs that CT cases label here are all solid and soft, as trainings of DiffuSAM find too.
        image = order.apply(volume.array)
        remove_bright(view, image, values)
        remove_fat(view, image, values, spacing=spacing)
    view[:] = clean_labels(view, values, spacing=spacing)
    return labels


def with_labels(stack: LabelledStack, labels: np.ndarray, known: int) -> LabelledStack:
    """The slices of a stack with other labels, all of which count as known."""
    return replace(stack, labels=labels, known=np.ones(known, bool))
