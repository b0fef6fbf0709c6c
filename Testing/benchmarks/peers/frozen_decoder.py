"""A plain decoder on the frozen backbone's features: what is left of DiffuSAM without memories and diffusion.

python Testing/benchmarks/peers/frozen_decoder.py A --minutes 20
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import benchmark_path  # noqa: F401
import torch
from peer import Peer, Prepared, run_peers
from protocols import Job
from slice_training import SliceRecipe, seeded, segment_slices, stack_logits, trained
from torch import Tensor, nn
from torch.nn import functional as F

from DiffuSAMLib.backbones import Backbone

WIDTH = 96
RECIPE = SliceRecipe(learning_rate=6e-4)


class FrozenFeatureDecoder(nn.Module):
    """Three feature levels to logits at stride 4, coarse to fine."""

    def __init__(self, backbone: Backbone, classes: int, width: int = WIDTH) -> None:
        super().__init__()
        # Not a child: its weights are not part of this network's.
        self._backbone = (backbone.freeze(),)
        self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in backbone.feature_channels)
        self.blocks = nn.ModuleList(_block(width) for _ in range(3))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            levels = self._backbone[0].encode_image(images).levels()
        fine, middle, coarse = (project(level) for project, level in zip(self.project, levels, strict=True))
        x = self.blocks[0](coarse)
        for block, level in zip(self.blocks[1:], (middle, fine), strict=True):
            x = block(level + F.interpolate(x, size=level.shape[-2:], mode="bilinear", align_corners=False))
        return self.head(x)


def _block(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
    return nn.Sequential(*layers)


def prepare(job: Job, *, smooth: bool = False) -> Prepared:
    loaded = job.backbone()
    organs = len(job.protocol.organs)
    seeded(job)
    network = FrozenFeatureDecoder(loaded.backbone, organs + 1)
    settings = {"backbone_sha256": loaded.sha256, "width": WIDTH}
    record = trained(job, "frozen_decoder", network, RECIPE, settings=settings)
    return Prepared(
        lambda volume, _: segment_slices(
            partial(stack_logits, network), volume, organs=organs, size=RECIPE.size, smooth=smooth
        ),
        (*job.split.train, *loaded.training_cases),
        record,
    )


SETTINGS = {"width": WIDTH, **asdict(RECIPE)}
PEERS = {
    "frozen_decoder": Peer("decoder on frozen features", prepare, SETTINGS, uses_backbone=True),
    "frozen_decoder_smooth": Peer(
        "decoder on frozen features, masks smoothed",
        partial(prepare, smooth=True),
        {**SETTINGS, "smooth": True},
        uses_backbone=True,
    ),
}

if __name__ == "__main__":
    run_peers(PEERS, __doc__)
