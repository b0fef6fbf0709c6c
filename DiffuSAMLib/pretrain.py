"""Labelled cases on disk and procedural abdomens become the compact backbone's weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from .backbone_pretraining import BackbonePretraining, PairSampler, PretrainingConfig
from .backbones import Backbone
from .datasets import LabelledStack, load_stack, read_dataset, to_stack
from .procedural import make_abdomen, make_shapes
from .progress import Progress, ProgressEvent
from .splits import load_split
from .weights import save_backbone

logger = logging.getLogger(__name__)

# Every organ that BTCV labels: the more anatomy the features know, the better a prior can find its own.
ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "liver",
    "gallbladder",
    "esophagus",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
# Procedural abdomens for training start here; the demo and the tests use smaller seeds.
FIRST_SEED = 1000


def pretrain_backbone(
    data: Sequence[Path],
    split: Path,
    output: Path,
    *,
    procedural: int,
    minutes: float,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Pretrains the compact backbone and writes its weights.

    An interrupted run resumes from `<output>.training`, which is deleted at the end.

    Args:
        data: Folders with `images/`, `labels/` and `dataset.json`; none trains on procedural abdomens only.
        split: Split file; only its training cases are read.
        output: Weights file, ends in `.safetensors`.
        procedural: Number of procedural abdomens to add.
        minutes: Time to train.
        seed: Of weights, sampling and augmentation.
        progress: Called as cases are read.
    """
    torch.manual_seed(seed)
    backbone = Backbone("compact")
    cases = load_split(split).train
    stacks = []
    for folder in data:
        here = {path.name.split(".")[0] for path in (folder / "images").iterdir()}
        for case in read_dataset(folder, only=[case for case in cases if case in here]):
            stacks.append(load_stack(case, organs=ORGANS, size=backbone.image_size))
            if progress is not None:
                progress(ProgressEvent("read", len(stacks), len(cases)))
    real = [stack.name for stack in stacks]
    stacks += [procedural_stack(FIRST_SEED + number, backbone.image_size) for number in range(procedural)]
    config = PretrainingConfig(minutes=minutes, seed=seed)
    checkpoint = output.with_suffix(".training")
    training = BackbonePretraining(
        backbone,
        PairSampler(stacks, config, shapes=make_shapes),
        organs=len(ORGANS),
        config=config,
        checkpoint=checkpoint,
    )
    averaged = training.run()
    prefix = "network."
    record = {
        "name": "compact",
        "training_cases": real,
        "procedural_abdomens": procedural,
        "recipe": asdict(config),
        "steps": training.steps,
        "licence": "Research, non-commercial" if real else "Apache-2.0",
    }
    network = {
        name.removeprefix(prefix): value for name, value in averaged.items() if name.startswith(prefix)
    }
    save_backbone(output, network, record)
    checkpoint.unlink()


def procedural_stack(seed: int, size: int) -> LabelledStack:
    """A procedural abdomen as training slices: CT and MR in turn, every third with tissues of random brightness."""
    modality: Literal["CT", "MR"] = "CT" if seed % 2 else "MR"
    pixel = float(np.random.default_rng(seed).uniform(1.7, 2.2))
    abdomen = make_abdomen(
        seed,
        modality=modality,
        shape=(48, 192, 192),
        spacing=(pixel, pixel, 5.0),
        appearance="random" if seed % 3 == 0 else "natural",
    )
    labels = abdomen.labels
    stack = to_stack(
        abdomen.volume, labels.array, labels.names, name=f"procedural_{seed}", organs=ORGANS, size=size
    )
    return replace(stack, modality=modality)
