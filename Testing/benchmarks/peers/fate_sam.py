"""Support memories in the manner of FATE-SAM, on the same backbone; no training.

    python Testing/benchmarks/peers/fate_sam.py A B

For each slice the three most similar labelled slices are found (absolute difference of features at the same place,
averaged over the levels). The memories of their true masks are attended to, beside those of the slices segmented before;
the middle slice is the first, then both ways. An organ in none of the three is believed absent. Unlike FATE-SAM's code,
overlaps go to the largest logit, every image is encoded once, and intensities are scaled once per volume.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import benchmark_path  # noqa: F401
import torch
from peer import Peer, Prepared, run_peers
from protocols import Job
from slice_training import segment_slices
from torch import Tensor
from torch.nn import functional as F

from DiffuSAMLib.backbones import Backbone, ImageFeatures, Memory, mask_to_logits
from DiffuSAMLib.labelled_stacks import LabelledStack, load_stack
from DiffuSAMLib.slices import as_channels

SUPPORTS = 3
# Memories of the slices segmented before: our backbone was pretrained with one, SAM2 with six.
BANK = {"compact": 1}
CHUNK = 8
# Side to which feature maps are averaged before they are compared.
COMPARED = 16


class SupportSet:
    """Every labelled slice of the training cases: what it looks like, and its organs' memories."""

    def __init__(self, backbone: Backbone, stacks: list[LabelledStack], organs: int) -> None:
        self.backbone = backbone
        looks, memories, shown = [], [], []
        for stack in stacks:
            slices = stack.images()
            numbers = torch.from_numpy(stack.labels).flatten(1).any(1).nonzero()[:, 0]
            for part in numbers.split(CHUNK):
                features = encode(backbone, slices, part)
                looks.append(look(features))
                masks = (
                    torch.from_numpy(stack.labels)[part][:, None]
                    == torch.arange(1, organs + 1)[:, None, None]
                )
                memory = backbone.encode_memory(
                    features.repeat(organs), mask_to_logits(masks.flatten(0, 1)[:, None])
                )
                memories.append(memory.unflatten(0, (len(part), organs)).half())
                shown.append(masks.flatten(2).any(2))
        self.looks, self.memories, self.shown = torch.cat(looks), torch.cat(memories), torch.cat(shown)

    def nearest(self, features: ImageFeatures) -> Tensor:
        """Numbers of the most similar slices to one slice."""
        distance = (self.looks - look(features)).abs().mean(1)
        return distance.topk(min(SUPPORTS, len(distance)), largest=False).indices


def encode(backbone: Backbone, slices: Tensor, numbers: Tensor) -> ImageFeatures:
    return backbone.encode_image(as_channels(slices, numbers, context=backbone.slice_context))


def look(features: ImageFeatures) -> Tensor:
    """Features to compare `(n, f)`: every level, with the same weight."""
    parts = []
    for level in features.levels():
        pooled = F.adaptive_avg_pool2d(level, min(COMPARED, level.shape[-1]))
        parts.append(pooled.flatten(1) / pooled.shape[1])
    return torch.cat(parts, dim=1)


@torch.no_grad()
def supported_logits(support: SupportSet, slices: Tensor, *, organs: int, bank: int) -> Tensor:
    """Logits `(n, 1 + organs, s/4, s/4)` of a stack."""
    side = slices.shape[-1] // 4
    logits = torch.full((len(slices), 1 + organs, side, side), -10.0)
    logits[:, 0] = 0
    middle = len(slices) // 2
    start = _segment(support, slices, middle, [], logits)
    for numbers in (range(middle + 1, len(slices)), range(middle - 1, -1, -1)):
        before = [(middle, start)]
        for number in numbers:
            before = [*before, (number, _segment(support, slices, number, before, logits))][-bank:]
    return logits


def _segment(
    support: SupportSet, slices: Tensor, number: int, before: list[tuple[int, Tensor]], logits: Tensor
) -> Tensor:
    """Segments one slice into `logits`; returns the memories of what was found."""
    backbone = support.backbone
    organs = logits.shape[1] - 1
    features = encode(backbone, slices, torch.tensor([number])).repeat(organs)
    nearest = support.nearest(features[[0]])
    memories = [Memory(support.memories[index].float()) for index in nearest]
    memories += [Memory(memory, distance=abs(number - at)) for at, memory in before]
    decoded = backbone.decode(features, memories)
    # In none of the supports: absent.
    score = torch.where(support.shown[nearest].any(0)[:, None], decoded.object_score, -10.0)
    logits[number, 1:] = torch.where(score[..., None] > 0, decoded.raw_logits[:, 0], -10.0)
    return backbone.encode_memory(features, decoded.raw_logits, object_score=score)


def prepare(job: Job) -> Prepared:
    loaded = job.backbone()
    backbone, names = loaded.backbone, job.protocol.organs
    stacks = [load_stack(case, organs=names, size=backbone.image_size) for case in job.training_cases()]
    with torch.no_grad():
        support = SupportSet(backbone, stacks, len(names))
    ask = partial(supported_logits, support, organs=len(names), bank=BANK.get(backbone.name, 6))
    return Prepared(
        lambda volume, _: segment_slices(ask, volume, organs=len(names), size=backbone.image_size),
        (*job.split.train, *loaded.training_cases),
        {"support_slices": len(support.looks)},
    )


SETTINGS: dict[str, Any] = {"supports": SUPPORTS, "bank": BANK, "compared": COMPARED}
PEERS = {"fate_sam": Peer("support memories (FATE-SAM)", prepare, SETTINGS, trains=False, uses_backbone=True)}

if __name__ == "__main__":
    run_peers(PEERS, __doc__)
