"""What the tests of pretraining start from: one small stack, and a recipe without augmentation."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from cases import ORGANS, small_abdomen

from DiffuSAMLib.augmentation import IntensityAugmentation, SpatialAugmentation
from DiffuSAMLib.backbone_pretraining import BackbonePretraining
from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.labelled_stacks import LabelledStack, to_stack
from DiffuSAMLib.outline_decoder import OutlineDecoder
from DiffuSAMLib.pair_sampler import PairSampler
from DiffuSAMLib.pretraining_config import PretrainingConfig
from DiffuSAMLib.stack_pool import StackPool

SIDE = 64
PLAIN = PretrainingConfig(
    minutes=1.0,
    small_size=32,
    pairs=2,
    objects=2,
    follow_every=1,
    spatial=SpatialAugmentation(rotation=0, scale=0, shift=0, elastic=0),
    intensity=IntensityAugmentation(cross_modality=0, strength=0),
)


@functools.cache
def small_stack() -> LabelledStack:
    abdomen = small_abdomen()
    names = dict(enumerate(ORGANS, start=1))
    organs = (*ORGANS, "pancreas")
    return to_stack(abdomen.volume, abdomen.labels.array, names, name="a", organs=organs, size=SIDE)


def make_training(
    stack: LabelledStack, checkpoint: Path, *, config: PretrainingConfig = PLAIN, seed: int = 0
) -> BackbonePretraining:
    torch.manual_seed(seed)
    backbone = Backbone("compact", image_size=SIDE)
    return BackbonePretraining(
        backbone,
        OutlineDecoder(backbone.feature_channels, 5, width=8),
        PairSampler(StackPool([stack]), config),
        organs=5,
        config=config,
        checkpoint=checkpoint,
    )
