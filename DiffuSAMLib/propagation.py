"""The slice-by-slice loop of equation 3: generated memories, joined by those of the neighbours' predicted masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .backbones import Backbone, Decoded, ImageFeatures, Memory
from .lanes import Lanes, deal
from .prior import PRESENT

# Logit of an organ where it was never looked for or found absent.
NOTHING = -10.0


@dataclass(frozen=True)
class PropagationConfig:
    """How masks are chained.

    Attributes:
        three_d: False decodes every slice from its generated memory alone: the paper's "no 3D" ablation.
        start: "best" begins each organ where the prior is surest of its presence, "middle" at the middle slice.
        bank: How many encoded neighbours are attended to, at most 6.
        presence: Least presence, see `Prior.presence`, at which an organ is looked for in a slice.
    """

    three_d: bool = True
    start: Literal["best", "middle"] = "best"
    bank: int = 1
    presence: float = PRESENT


@dataclass
class _Track:
    """One organ, one sample, one direction through the stack: 1, -1, or 0 for the start slice alone."""

    organ: int
    sample: int
    direction: int
    position: int
    memories: list[tuple[int, Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class _Masks:
    """Mask logits `(b, s/4, s/4)` of (slice, organ, sample) triples."""

    items: Sequence[tuple[int, int, int]]
    logits: Tensor


class Propagation:
    """Decodes all organs of a volume, both ways from each organ's start slice, as batches.

    Args:
        backbone: Frozen.
        features: Gives the features of slices by their numbers.
        generated: Gives generated memories `(b, m, h, w)` of (slice, organ, sample) triples.
        presence: How surely `(n, organs)` the organ is in the slice, 0 to 1.
        samples: Chains with different noise, averaged as probabilities.
        config: How slices are chained.
        on_decoded: Called with (slice, organ, mask logits `(s/4, s/4)`) as each appears, first sample only.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        features: Callable[[Sequence[int]], ImageFeatures],
        generated: Callable[[Sequence[tuple[int, int, int]]], Tensor],
        presence: np.ndarray,
        samples: int,
        config: PropagationConfig,
        on_decoded: Callable[[int, int, Tensor], None],
    ) -> None:
        self.backbone, self.features, self.generated = backbone, features, generated
        self.samples, self.config, self.on_decoded = samples, config, on_decoded
        self.presence = presence
        self.wanted = presence >= config.presence
        side = backbone.image_size // 4
        self.logits = np.full((*presence.shape, side, side), NOTHING, np.float16)
        self._probability = np.zeros(self.logits.shape, np.float16) if samples > 1 else None

    def run(self) -> np.ndarray:
        """Returns mask logits `(n, organs, s/4, s/4)`, float16, `NOTHING` where an organ is absent."""
        if self.config.three_d:
            self._chain()
        else:
            self._decode_alone()
        if self._probability is not None:
            mean = self._probability.astype(np.float32) / self.samples
            limit = 1 / (1 + np.exp(-NOTHING))
            mean = np.clip(mean, limit, 1 - limit)
            self.logits = np.log(mean / (1 - mean)).astype(np.float16)
        return self.logits

    def start_slice(self, organ: int) -> int:
        """Where the chain of an organ begins."""
        count = len(self.presence)
        if self.config.start == "middle" or not self.wanted[:, organ].any():
            return count // 2
        # The surest neighbourhood, not one lucky slice.
        # An odd width, at most the number of slices.
        window = np.hanning(min(9, (count - 1) | 1) + 2)[1:-1]
        smooth = np.convolve(self.presence[:, organ], window, mode="same")
        return int(np.where(self.wanted[:, organ], smooth, -1.0).argmax())

    def _decode_alone(self) -> None:
        lanes: Lanes[_Masks] = Lanes(self.backbone.device)
        items = [(int(i), int(o), s) for i, o in np.argwhere(self.wanted) for s in range(self.samples)]
        size = max(1, 16 // self.samples) * self.samples
        batches = [items[begin : begin + size] for begin in range(0, len(items), size)]
        lanes.run((self._alone(batch) for batch in batches), self._take)

    def _alone(self, items: Sequence[tuple[int, int, int]]) -> Iterator[_Masks]:
        yield self._masks(items, self._decode(items, [])[0])

    def _chain(self) -> None:
        lanes: Lanes[_Masks] = Lanes(self.backbone.device)
        # All samples of an organ go together: their sum must not depend on which thread is quicker.
        starts = [
            [_Track(organ, sample, 0, self.start_slice(organ)) for sample in range(self.samples)]
            for organ in range(self.wanted.shape[1])
            if self.wanted[:, organ].any()
        ]
        # The two directions share their start slice.
        hands = deal(starts, [1.0] * len(starts), lanes=lanes.count)
        lanes.run((self._advance([track for chain in hand for track in chain]) for hand in hands), self._take)
        chains = [
            [
                _Track(start.organ, start.sample, direction, start.position, list(start.memories))
                for start in chain
            ]
            for chain in starts
            for direction in (1, -1)
        ]
        weights = [self._ahead(chain[0], len(self.wanted)).sum() for chain in chains]
        hands = deal(chains, weights, lanes=lanes.count)
        lanes.run((self._walk([track for chain in hand for track in chain]) for hand in hands), self._take)

    def _walk(self, tracks: list[_Track]) -> Iterator[_Masks]:
        """Goes on to the ends of the stack."""
        while tracks:
            for track in tracks:
                track.position += track.direction
            tracks = [track for track in tracks if 0 <= track.position < len(self.wanted)]
            yield from self._advance(tracks)

    def _ahead(self, track: _Track, count: int) -> np.ndarray:
        """In which of the next `count` slices the organ is looked for; from the start slice, both ways."""
        wanted, at = self.wanted[:, track.organ], track.position
        below, above = wanted[max(0, at - count) : at], wanted[at + 1 : at + 1 + count]
        return {1: above, -1: below, 0: np.r_[below, above]}[track.direction]

    def _advance(self, tracks: Sequence[_Track]) -> Iterator[_Masks]:
        """Decodes each track's present slice and keeps the memory of what was found."""
        # Tracks whose memories lie equally far away can be decoded as one batch.
        groups: dict[tuple[int, ...], list[_Track]] = {}
        reach = self.backbone.network.num_maskmem
        for track in tracks:
            track.memories = [item for item in track.memories if abs(item[0] - track.position) < reach]
            if self.wanted[track.position, track.organ]:
                distances = tuple(abs(at - track.position) for at, _ in track.memories)
                groups.setdefault(distances, []).append(track)
        for distances, group in groups.items():
            neighbours = [
                Memory(torch.stack([track.memories[k][1] for track in group]), distance=distance)
                for k, distance in enumerate(distances)
            ]
            items = [(track.position, track.organ, track.sample) for track in group]
            decoded, features = self._decode(items, neighbours)
            self._remember(group, decoded, features)
            yield self._masks(items, decoded)

    def _remember(self, group: Sequence[_Track], decoded: Decoded, features: ImageFeatures) -> None:
        """Encodes what was found, where a slice to come can attend to it."""
        reach = self.backbone.network.num_maskmem
        present = (decoded.object_score[:, 0] > 0).tolist()
        rows = [
            row for row, track in enumerate(group) if present[row] and self._ahead(track, reach - 1).any()
        ]
        if not rows:
            return
        memory = self.backbone.encode_memory(
            features[rows], decoded.raw_logits[rows], object_score=decoded.object_score[rows]
        )
        for row, remembered in zip(rows, memory, strict=True):
            track = group[row]
            track.memories = [*track.memories, (track.position, remembered)][-self.config.bank :]

    def _decode(
        self, items: Sequence[tuple[int, int, int]], neighbours: Sequence[Memory]
    ) -> tuple[Decoded, ImageFeatures]:
        features = self.features([slice_number for slice_number, _, _ in items])
        return self.backbone.decode(features, [Memory(self.generated(items)), *neighbours]), features

    def _masks(self, items: Sequence[tuple[int, int, int]], decoded: Decoded) -> _Masks:
        return _Masks(items, decoded.logits.clamp(NOTHING, -NOTHING)[:, 0].float().cpu())

    def _take(self, masks: _Masks) -> None:
        for (slice_number, organ, sample), mask in zip(masks.items, masks.logits, strict=True):
            if self._probability is not None:
                self._probability[slice_number, organ] += mask.sigmoid().numpy().astype(np.float16)
            else:
                self.logits[slice_number, organ] = mask.numpy()
            if sample == 0:
                self.on_decoded(slice_number, organ, mask)
