"""The slice-by-slice loop of equation 3: generated memories, joined by those of the neighbours' predicted masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .backbones import Backbone, Decoded, ImageFeatures, Memory

# Logit of an organ where it was never looked for or found absent.
NOTHING = -10.0


@dataclass(frozen=True)
class PropagationConfig:
    """How masks are chained.

    Attributes:
        three_d: False decodes every slice from its generated memory alone: the paper's "no 3D" ablation.
        start: "best" begins each organ where the prior is surest of its presence, "middle" at the middle slice.
        bank: How many encoded neighbours are attended to, at most 6.
        presence: Least probability of presence at which an organ is looked for in a slice.
    """

    three_d: bool = True
    start: Literal["best", "middle"] = "best"
    bank: int = 1
    presence: float = 0.5


@dataclass
class _Track:
    """One organ, one sample, one direction through the stack."""

    organ: int
    sample: int
    direction: int
    position: int
    memories: list[tuple[int, Tensor]] = field(default_factory=list)


class Propagation:
    """Decodes all organs of a volume, both ways from each organ's start slice, as batches.

    Args:
        backbone: Frozen.
        features: Gives the features of slices by their numbers.
        generated: Gives generated memories `(b, m, h, w)` of (slice, organ, sample) triples.
        presence: Probability `(n, organs)` that the organ is in the slice.
        samples: Chains with different noise, averaged as probabilities.
        config: See there.
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
        items = [(int(i), int(o), s) for i, o in np.argwhere(self.wanted) for s in range(self.samples)]
        for begin in range(0, len(items), 16):
            self._decode(items[begin : begin + 16], [])

    def _chain(self) -> None:
        organs = [organ for organ in range(self.wanted.shape[1]) if self.wanted[:, organ].any()]
        tracks: list[_Track] = []
        for organ in organs:
            for sample in range(self.samples):
                start = self.start_slice(organ)
                tracks += [_Track(organ, sample, direction, start) for direction in (1, -1)]
        # The two directions share their start slice: it is decoded once, for the upward track.
        self._advance(tracks[::2])
        for up, down in zip(tracks[::2], tracks[1::2], strict=True):
            down.memories = list(up.memories)
        while tracks:
            for track in tracks:
                track.position += track.direction
            tracks = [track for track in tracks if 0 <= track.position < len(self.wanted)]
            self._advance(tracks)

    def _advance(self, tracks: Sequence[_Track]) -> None:
        """Decodes each track's present slice and keeps the memory of what was found."""
        # Tracks whose memories lie equally far away can be decoded as one batch.
        groups: dict[tuple[int, ...], list[_Track]] = {}
        for track in tracks:
            reach = self.backbone.network.num_maskmem
            track.memories = [item for item in track.memories if abs(item[0] - track.position) < reach]
            if self.wanted[track.position, track.organ]:
                groups.setdefault(tuple(abs(at - track.position) for at, _ in track.memories), []).append(
                    track
                )
        for distances, group in groups.items():
            self._advance_group(group, distances)

    def _advance_group(self, group: Sequence[_Track], distances: Sequence[int]) -> None:
        neighbours = [
            Memory(torch.stack([track.memories[k][1] for track in group]), distance=distance)
            for k, distance in enumerate(distances)
        ]
        items = [(track.position, track.organ, track.sample) for track in group]
        decoded, features = self._decode(items, neighbours)
        found = [row for row in range(len(group)) if bool(decoded.object_score[row, 0] > 0)]
        if not found:
            return
        memory = self.backbone.encode_memory(
            features[found], decoded.raw_logits[found], object_score=decoded.object_score[found]
        )
        for row, remembered in zip(found, memory, strict=True):
            track = group[row]
            track.memories = [*track.memories, (track.position, remembered)][-self.config.bank :]

    def _decode(
        self, items: Sequence[tuple[int, int, int]], neighbours: Sequence[Memory]
    ) -> tuple[Decoded, ImageFeatures]:
        features = self.features([slice_number for slice_number, _, _ in items])
        decoded = self.backbone.decode(features, [Memory(self.generated(items)), *neighbours])
        logits = decoded.logits.clamp(NOTHING, -NOTHING)[:, 0].float().cpu()
        for (slice_number, organ, sample), mask in zip(items, logits, strict=True):
            if self._probability is not None:
                self._probability[slice_number, organ] += mask.sigmoid().numpy().astype(np.float16)
            else:
                self.logits[slice_number, organ] = mask.numpy()
            if sample == 0:
                self.on_decoded(slice_number, organ, mask)
        return decoded, features
