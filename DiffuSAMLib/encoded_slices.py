"""Augmented training slices with what the frozen backbone makes of them, each used in several iterations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .backbones import MASK_LOGIT, Backbone, ImageFeatures, mask_to_logits
from .slice_sampler import Batch, SliceSampler


@dataclass(frozen=True)
class EncodedSlice:
    """One augmented slice.

    Attributes:
        features: Of this slice, a batch of one.
        masks: bool `(organs, s, s)`.
        known: bool `(organs,)`, whether its case has labels for the organ.
        memories: By organ, `(m, h, w)` that the true mask makes; only of organs that the slice shows.
        absent: Memory `(m, h, w)` of an organ that is not there.
    """

    features: ImageFeatures
    masks: Tensor
    known: Tensor
    memories: dict[int, Tensor]
    absent: Tensor

    def memory(self, organ: int) -> Tensor:
        return self.memories.get(organ, self.absent)


@dataclass(frozen=True)
class Choice:
    """A slice in a batch, and what is random about this use of it.

    Attributes:
        slice: With its features, encoded once.
        organ: Whose memory is learnt this time: mostly one that is there.
        timestep: Of the noise schedule.
        noise: `(m, h, w)`, standard normal.
    """

    slice: EncodedSlice
    organ: int
    timestep: int
    noise: Tensor


@dataclass(frozen=True)
class EncodedBatch:
    """The slices of a batch, `b` of them, and the memory to learn of each.

    Attributes:
        features: Of the slices.
        masks: bool `(b, organs, s, s)`.
        known: bool `(b, organs)`.
        organs: `(b,)`, whose memory.
        memories: `(b, m, h, w)`.
        timesteps: `(b,)`.
        noise: `(b, m, h, w)`.
    """

    features: ImageFeatures
    masks: Tensor
    known: Tensor
    organs: Tensor
    memories: Tensor
    timesteps: Tensor
    noise: Tensor

    @classmethod
    def of(cls, choices: Sequence[Choice]) -> EncodedBatch:
        slices = [choice.slice for choice in choices]
        device = slices[0].masks.device
        return cls(
            features=ImageFeatures.stacked([each.features for each in slices]),
            masks=torch.stack([each.masks for each in slices]),
            known=torch.stack([each.known for each in slices]).to(device),
            organs=torch.tensor([choice.organ for choice in choices], device=device),
            memories=torch.stack([choice.slice.memory(choice.organ) for choice in choices]),
            timesteps=torch.tensor([choice.timestep for choice in choices], device=device),
            noise=torch.stack([choice.noise for choice in choices]).to(device),
        )


class EncodedSlices:
    """Keeps slices encoded for as long as batches draw on them.

    Encoding a slice, and those beside it, costs more than learning from it once. So each is used `slice_uses` times,
    mixed anew with others every time, under other noise: batches are drawn from a window that moves on over an
    endless row of augmented slices. What is drawn depends on the seed and the iteration alone, not on what was drawn
    before: a resumed run, and each of several processes, meets the same slices.

    Args:
        sampler: Where slices come from.
        backbone: Frozen.
        training_steps: Length of the noise schedule.
    """

    def __init__(self, sampler: SliceSampler, backbone: Backbone, *, training_steps: int) -> None:
        self.sampler, self.backbone, self.training_steps = sampler, backbone, training_steps
        self._kept: dict[int, EncodedSlice] = {}

    def window(self, iteration: int) -> range:
        """Numbers of the slices that a batch is drawn from."""
        config = self.sampler.config
        first = iteration * config.batch // config.slice_uses
        return range(first, first + config.batch * config.slice_uses)

    def batch(self, iteration: int, share: slice = slice(None)) -> list[Choice]:
        """The batch of an iteration, or this process's share of it."""
        seed, size = self.sampler.config.seed, self.sampler.config.batch
        window = self.window(iteration)
        rng = np.random.default_rng([seed, iteration, 1])
        positions = range(size)[share]
        numbers = rng.choice(len(window), size=size, replace=False)[share] + window.start
        slices = self.encoded(numbers.tolist(), keep=window)
        return [
            self._choice(each, np.random.SeedSequence([seed, iteration, 2, position]))
            for each, position in zip(slices, positions, strict=True)
        ]

    def encoded(self, numbers: Sequence[int], *, keep: range) -> list[EncodedSlice]:
        """The augmented slices of these numbers; forgets all others that are not in `keep`."""
        # The last one's partner may be just beyond.
        within = range(keep.start, keep.stop + 1)
        self._kept = {
            number: kept for number, kept in self._kept.items() if number in within or number in numbers
        }
        missing = [number for number in numbers if number not in self._kept]
        # Sums in a batch depend a little on its size. What is kept must not depend on what else was missing, so
        # slices of which each is used often are encoded in the same pairs whatever is asked for.
        if self.sampler.config.slice_uses == 1:
            groups = [missing] if missing else []
        else:
            groups = [[2 * pair, 2 * pair + 1] for pair in dict.fromkeys(n // 2 for n in missing)]
        for group in groups:
            self._kept.update(zip(group, self._encode(group), strict=True))
        return [self._kept[number] for number in numbers]

    @torch.no_grad()
    def _encode(self, numbers: Sequence[int]) -> Iterator[EncodedSlice]:
        drawn = []
        for number in numbers:
            self.sampler.seek(number)
            drawn.append(self.sampler.draw(1))
        device = self.backbone.device
        features = self._features(drawn)
        masks = torch.cat([each.masks for each in drawn])
        rows, organs = masks.flatten(2).any(2).nonzero(as_tuple=True)
        nothing = mask_to_logits(torch.zeros(1, 1, *masks.shape[-2:], device=device))
        score = nothing.new_full((len(numbers), 1), -MASK_LOGIT)
        absent = self.backbone.encode_memory(features, nothing, object_score=score)
        memories: list[dict[int, Tensor]] = [{} for _ in numbers]
        if len(rows):
            logits = mask_to_logits(masks[rows, organs][:, None]).to(device)
            made = self.backbone.encode_memory(features[rows.to(device)], logits)
            for row, organ, memory in zip(rows.tolist(), organs.tolist(), made, strict=True):
                memories[row][organ] = memory.clone()
        for row, each in enumerate(drawn):
            yield EncodedSlice(
                # A tensor as index copies; views would keep all slices of the chunk in memory.
                features[torch.tensor([row])],
                masks[row].to(device),
                each.known[0],
                memories[row],
                absent[row].clone(),
            )

    def _features(self, drawn: Sequence[Batch]) -> ImageFeatures:
        """Of slices drawn one by one, with those beside them if these were drawn, too."""
        images = [torch.cat([each.images for each in drawn])]
        for others in ([each.below for each in drawn], [each.above for each in drawn]):
            if known := [other for other in others if other is not None]:
                images.append(torch.cat(known))
        features = self.backbone.encode_image(torch.cat(images).to(self.backbone.device))
        own, *beside = (features[at : at + len(drawn)] for at in range(0, len(features), len(drawn)))
        return own.between(*beside) if beside else own

    def _choice(self, chosen: EncodedSlice, seed: np.random.SeedSequence) -> Choice:
        config = self.sampler.config
        generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        organs = chosen.known.nonzero()[:, 0].tolist()
        there = list(chosen.memories)
        if there and torch.rand((), generator=generator) >= config.absent_share:
            organs = there
        organ = organs[int(torch.randint(len(organs), (), generator=generator))]
        last = self.training_steps - 1
        timestep = int(torch.randint(last + 1, (), generator=generator))
        if torch.rand((), generator=generator) < config.last_step_share:
            timestep = last
        noise = torch.randn(self.backbone.memory_shape, generator=generator)
        return Choice(chosen, organ, timestep, noise)
