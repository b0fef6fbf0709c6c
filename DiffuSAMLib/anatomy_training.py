"""Trains an anatomy network: from damaged outlines to the true ones."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .anatomy import CELLS, STEP_MM, overview
from .anatomy_network import AnatomyNetwork
from .augmentation import IntensityAugmentation
from .checkpoints import other_run_error, read_checkpoint, write_checkpoint
from .damaged_outlines import damage_outlines, random_field
from .datasets import LabelledStack

LEARNING_RATE = 2e-3
_WARMUP = 50
_AVERAGE = 0.995
_CHECKPOINT_SECONDS = 110.0
# Fewer slices than this are no volume.
_FEWEST = 12
# Of all cells' cross entropy against Dice: most cells are background.
_ENTROPY_WEIGHT = 4.0
# Outlines may be missing in all slices: then the image alone tells.
_NOTHING_SHARE = 0.03


@dataclass(frozen=True)
class AnatomyCase:
    """A labelled volume in cells.

    Attributes:
        image: `anatomy.overview` of its slices, half precision.
        parts: How much of each cell each organ fills, `(organs, n, 64, 64)`, half precision.
        step: Distance of slices in mm.
    """

    image: Tensor
    parts: Tensor
    step: float

    @classmethod
    def of(cls, stack: LabelledStack, *, organs: int) -> AnatomyCase:
        """From slices whose labels are 1 to `organs`."""
        labels = F.one_hot(torch.from_numpy(stack.labels).long(), organs + 1)[..., 1:]
        cell = labels.shape[1] // CELLS
        parts = F.avg_pool2d(labels.permute(3, 0, 1, 2).float(), cell)
        return cls(overview(stack.images()).half(), parts.half(), stack.spacing[0])


class AnatomyTraining:
    """A run, which can be stopped and taken up again.

    Args:
        network: To be trained.
        cases: What it learns from, each as often as the others.
        minutes: Of training, stops not counted; the learning rate falls to zero until then.
        seed: Of cases, augmentation and damage.
        checkpoint: File that the run is saved to every two minutes and taken up from.

    Raises:
        InputError: The checkpoint is damaged or of another run.
    """

    def __init__(
        self,
        network: AnatomyNetwork,
        cases: Sequence[AnatomyCase],
        *,
        minutes: float,
        seed: int,
        checkpoint: Path,
    ) -> None:
        self.network, self.cases, self.minutes, self.checkpoint = network, cases, minutes, checkpoint
        self.averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGE))
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
        self.generator = torch.Generator().manual_seed(seed)
        self.intensity = IntensityAugmentation()
        self.steps, self.seconds = 0, 0.0
        if checkpoint.exists():
            self._take_up()

    def run(self) -> AnatomyNetwork:
        """Trains until the time is up; returns the network with the averaged weights."""
        saved = self.seconds
        try:
            while self.seconds < 60 * self.minutes:
                begun = time.monotonic()
                self._step()
                self.seconds += time.monotonic() - begun
                if self.seconds - saved > _CHECKPOINT_SECONDS:
                    self._save()
                    saved = self.seconds
        except BaseException:
            self._save()
            raise
        averaged = self.averaged.module
        assert isinstance(averaged, AnatomyNetwork)
        return averaged

    def _step(self) -> None:
        done = min(1.0, self.seconds / 60 / self.minutes)
        rate = LEARNING_RATE * min(1, (self.steps + 1) / _WARMUP) * (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        case = self.cases[int(torch.randint(len(self.cases), (), generator=self.generator))]
        image, parts = deformed(case, self.generator)
        image[:1] = self.intensity(image[:1], self.generator)
        outlines = damage_outlines(parts, image[0], self.generator)
        if float(torch.rand((), generator=self.generator)) < _NOTHING_SHARE:
            outlines = torch.zeros_like(outlines)
        loss = anatomy_loss(self.network(outlines[None], image[None]), parts[None])
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.averaged.update_parameters(self.network)
        self.steps += 1

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "seconds": self.seconds,
        }
        write_checkpoint(self.checkpoint, state)

    def _take_up(self) -> None:
        state = read_checkpoint(self.checkpoint, device=torch.device("cpu"))
        try:
            self.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            self.steps, self.seconds = int(state["steps"]), float(state["seconds"])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise other_run_error(self.checkpoint) from error


def deformed(case: AnatomyCase, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A case turned, scaled, shifted and bent, at times cut at its ends, its slices `STEP_MM` apart.

    Bending moves organs of about 20 mm against one another along the body, so that their usual places are known, but not
    insisted on.

    Returns:
        The overview `(2, n, 64, 64)` and the organs' parts `(organs, n, 64, 64)`.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    low, high = (uniform(0, 0.25) if uniform(0, 1) < 0.5 else 0.0 for _ in range(2))
    length = case.image.shape[1] * case.step / STEP_MM * math.exp(uniform(-0.25, 0.25))
    count = max(_FEWEST, round(length * (1 - low - high)))
    angle = uniform(-0.2, 0.2)
    zoom, narrow = math.exp(uniform(-0.22, 0.22)), math.exp(uniform(-0.1, 0.1))
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    matrix = torch.tensor(
        [
            [cos * narrow, -sin * narrow, 0.0, uniform(-0.2, 0.2)],
            [sin / narrow, cos / narrow, 0.0, uniform(-0.2, 0.2)],
            [0.0, 0.0, 1 - low - high, low - high],
        ]
    )
    shape = (count, CELLS, CELLS)
    grid = F.affine_grid(matrix[None], [1, 1, *shape], align_corners=False)
    reach = (0.035, 0.035, uniform(0, 0.14))
    bent = torch.stack([size * random_field(shape, (6, 14, 14), generator) for size in reach], dim=-1)
    together = torch.cat([case.image, case.parts]).float()
    sampled = F.grid_sample(together[None], grid + bent, align_corners=False)[0].clamp(0, 1)
    channels = len(case.image)
    return sampled[:channels], sampled[channels:]


def anatomy_loss(logits: Tensor, parts: Tensor) -> Tensor:
    """Cross entropy and, for the organs that are there, Dice.

    Args:
        logits: `(b, 1 + organs, n, k, k)`.
        parts: `(b, organs, n, k, k)`, 0 to 1.
    """
    nothing = (1 - parts.sum(1, keepdim=True)).clamp(0, 1)
    likely = logits.log_softmax(1)
    entropy = -(torch.cat([nothing, parts], dim=1) * likely).sum(1).mean()
    found, volume = likely.exp()[:, 1:], (2, 3, 4)
    overlap = 2 * (found * parts).sum(volume) + 1
    lack = 1 - overlap / (found.square().sum(volume) + parts.square().sum(volume) + 1)
    there = (parts.sum(volume) > 3).float()
    return _ENTROPY_WEIGHT * entropy + (lack * there).sum() / there.sum().clamp(min=1)
