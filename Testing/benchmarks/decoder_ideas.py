"""What makes the decoder on frozen features good, and what its masks are worth as memories; draw 1 of protocol A.

    python Testing/benchmarks/decoder_ideas.py train narrow --minutes 8
    python Testing/benchmarks/decoder_ideas.py chain DECODER PRIOR      # weights under runs/benchmarks

Variants of `train`: words joined by "+": narrow (24 to 96 channels instead of 96), each (a cross entropy for each organ
by itself and one Dice for all, instead of softmax and a Dice for each), procedural (48 abdomens besides).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import BENCHMARKS, RUNS, labelled_cases
from protocols import CLEAN_BACKBONE, PROTOCOLS, Job
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.append(str(BENCHMARKS / "peers"))

import slice_training
from frozen_decoder import FrozenFeatureDecoder

from DiffuSAMLib.backbones import Backbone, ImageFeatures, mask_to_logits
from DiffuSAMLib.checkpoints import read_checkpoint
from DiffuSAMLib.datasets import load_stack, read_case
from DiffuSAMLib.encoded_volume import EncodedVolume
from DiffuSAMLib.full_resolution import PlaneLogits, to_volume
from DiffuSAMLib.hounsfield import remove_fat
from DiffuSAMLib.losses import outline_loss
from DiffuSAMLib.metrics import dice
from DiffuSAMLib.outline_decoder import OutlineDecoder
from DiffuSAMLib.postprocessing import clean_labels
from DiffuSAMLib.procedural_stacks import procedural_stacks
from DiffuSAMLib.propagation import Propagation, PropagationConfig
from DiffuSAMLib.segmenter import Segmenter, SegmentOptions
from DiffuSAMLib.weights import load_prior

JOBS = {name: Job(PROTOCOLS[name], draw=1) for name in ("A", "B")}
ORGANS = len(JOBS["A"].protocol.organs)
# The exponent of today's priors of A for MR; a decoder is tried with and without.
GAMMA = 1.5


class Decoder(nn.Module):
    """Slices to logits of the organs, and of the background first if they compete."""

    def __init__(self, backbone: Backbone, *, narrow: bool, each: bool) -> None:
        super().__init__()
        self._backbone = (backbone.freeze(),)
        count = ORGANS if each else ORGANS + 1
        if narrow:
            self.decoder: nn.Module = OutlineDecoder(backbone.feature_channels, count, width=24)
        else:
            self.decoder = FrozenFeatureDecoder(backbone, count)
        self.narrow, self.each = narrow, each

    def decode(self, features: ImageFeatures) -> Tensor:
        if self.narrow:
            return self.decoder(features)
        net = self.decoder
        fine, middle, coarse = (p(level) for p, level in zip(net.project, features.levels(), strict=True))
        x = net.blocks[0](coarse)
        for block, level in zip(net.blocks[1:], (middle, fine), strict=True):
            x = block(level + F.interpolate(x, size=level.shape[-2:], mode="bilinear", align_corners=False))
        return net.head(x)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self._backbone[0].encode_image(images)
        return self.decode(features)

    def likely(self, features: ImageFeatures) -> Tensor:
        logits = self.decode(features)
        return logits.sigmoid() if self.each else logits.softmax(1)[:, 1:]


def each_loss(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    masks = F.one_hot(target, ORGANS + 1).permute(0, 3, 1, 2)[:, 1:].bool()
    known = torch.ones(masks.shape[:2], dtype=torch.bool)
    return outline_loss(F.adaptive_avg_pool2d(logits, logits.shape[-1] // 4), masks, known)


def train(variant: str, minutes: float) -> None:
    words = set(variant.split("+"))
    job = JOBS["A"]
    backbone = job.backbone().backbone
    torch.manual_seed(job.draw)
    network = Decoder(backbone, narrow="narrow" in words, each="each" in words)
    if "each" in words:
        slice_training.segmentation_loss = each_loss
    stacks = [load_stack(c, organs=job.protocol.organs, size=256) for c in job.training_cases()]
    if "procedural" in words:
        stacks += procedural_stacks(48, organs=job.protocol.organs, size=256)
    config = slice_training.SliceRecipe(learning_rate=6e-4).config(minutes, job.draw)
    checkpoint = RUNS / f"decoder_{variant}.training"
    print(slice_training.SliceTraining(network, stacks, config, checkpoint).run())
    for name, job in JOBS.items():
        for gamma in (1.0,) if name == "A" else (1.0, GAMMA):
            scores = []
            for case in labelled_cases(job.evaluated_names):
                volume, labels = read_case(case)
                view = encoded(volume, backbone, gamma)
                parts = [network.likely(view.features(part)) for part in parts_of(view)]
                scores.append(score(view, torch.cat(parts).logit(eps=1e-4).numpy(), labels, case, job))
            print(name, gamma, np.mean(scores), np.mean(scores, 0), np.mean(scores, 1))


@torch.no_grad()
def chain(decoder: Path, prior: Path) -> None:
    loaded = load_prior(prior, backbone_path=CLEAN_BACKBONE)
    backbone = loaded.backbone.backbone
    segmenter = Segmenter(backbone, loaded.prior)
    network = Decoder(backbone, narrow=False, each=False)
    network.decoder.load_state_dict(read_checkpoint(decoder, device=torch.device("cpu"))["network"])
    for name, job in JOBS.items():
        found: dict[str, list[list[float]]] = {}
        for case in labelled_cases(job.evaluated_names):
            volume, labels = read_case(case)
            view = encoded(volume, backbone, segmenter.gamma(volume))
            likely = torch.cat([network.eval().likely(view.features(part)) for part in parts_of(view)])
            memories = torch.stack(
                [memory for part in parts_of(view) for memory in memories_of(backbone, view, part, likely)]
            )
            area = (likely > 0.5).flatten(2).sum(2).numpy()
            presence = (area >= 3).astype(np.float32) + 1e-6 * area
            logits = {"decoder": likely.logit(eps=1e-4).numpy()}
            for three_d, title in ((False, "memory"), (True, "memory, equation 3")):
                logits[title] = Propagation(
                    backbone,
                    features=view.features,
                    generated=lambda items, m=memories: torch.stack([m[i, o] for i, o, _ in items]),
                    presence=presence,
                    samples=1,
                    config=PropagationConfig(three_d=three_d),
                    on_decoded=lambda *_: None,
                ).run()
            for title, values in logits.items():
                scores = score(view, values.astype(np.float32), labels, case, job)
                found.setdefault(title, []).append(scores)
            result = segmenter.segment(volume, SegmentOptions())
            found.setdefault("prior", []).append(dice_of(result.labels, labels, case, job))
        for title, scores in found.items():
            print(name, title, np.mean(scores), np.mean(scores, 0))


def memories_of(backbone: Backbone, view: EncodedVolume, part: range, likely: Tensor) -> Tensor:
    """Memories `(n, organs, m, h, w)` of the masks of some slices."""
    features = view.features(part)
    masks = F.interpolate(likely[part.start : part.stop], scale_factor=4, mode="bilinear") > 0.5
    return torch.stack(
        [backbone.encode_memory(features, mask_to_logits(masks[:, [organ]])) for organ in range(ORGANS)], 1
    )


@torch.no_grad()
def encoded(volume: Any, backbone: Backbone, gamma: float) -> EncodedVolume:
    view = EncodedVolume(volume, backbone, gamma=gamma if volume.modality == "MR" else 1.0)
    view.encode(lambda *_: None)
    return view


def parts_of(view: EncodedVolume) -> list[range]:
    return [range(first, min(first + 8, len(view))) for first in range(0, len(view), 8)]


def score(view: EncodedVolume, logits: np.ndarray, labels: Any, case: Any, job: Job) -> list[float]:
    found, _ = to_volume(view.volume, [PlaneLogits(view.order, view.grid, logits)], refine=True)
    values = range(1, ORGANS + 1)
    if view.volume.modality == "CT":
        remove_fat(found, view.volume.array, values)
    stack = view.order.view(found)
    stack[:] = clean_labels(stack, values, spacing=view.order.geometry.spacing[::-1])
    return dice_of(found, labels, case, job)


def dice_of(found: np.ndarray, labels: Any, case: Any, job: Job) -> list[float]:
    numbers = {name: value for value, name in case.label_names.items()}
    return [
        float(dice(found == value, labels.array == numbers[organ]))
        for value, organ in enumerate(job.protocol.organs, start=1)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("variant")
    training.add_argument("--minutes", type=float, default=8.0)
    chaining = commands.add_parser("chain")
    chaining.add_argument("decoder", type=Path)
    chaining.add_argument("prior", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "train":
        train(arguments.variant, arguments.minutes)
    else:
        chain(arguments.decoder, arguments.prior)


if __name__ == "__main__":
    main()
