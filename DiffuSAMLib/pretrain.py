"""Labelled cases on disk and procedural abdomens become the compact backbone's weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from .backbone_pretraining import BackbonePretraining, PairSampler, PretrainingConfig
from .backbones import Backbone
from .datasets import load_stack, read_dataset
from .errors import InputError
from .procedural import make_shapes
from .procedural_stacks import procedural_stacks
from .progress import Progress, ProgressEvent
from .splits import load_split
from .stack_pool import StackPool
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

    Raises:
        InputError: There is nothing to train on, an option is out of range, or a case cannot be used.
        OutputError: The weights cannot be written.
    """
    if output.suffix != ".safetensors":
        raise InputError(f"The backbone's file ends in .safetensors, not {output.name}.")
    if minutes <= 0 or seed < 0:
        raise InputError("The training needs more than 0 minutes and a seed of 0 or more.")
    torch.manual_seed(seed)
    backbone = Backbone("compact")
    cases = load_split(split).train
    stacks = []
    for case in [case for folder in data for case in read_dataset(folder) if case.name in cases]:
        stacks.append(load_stack(case, organs=ORGANS, size=backbone.image_size))
        if progress is not None:
            progress(ProgressEvent("read", len(stacks), len(cases)))
    real = [stack.name for stack in stacks]
    stacks += procedural_stacks(procedural, organs=ORGANS, size=backbone.image_size)
    if not stacks:
        raise InputError(
            "There is nothing to train on.", hint="Give --data with cases of the split, or --procedural."
        )
    config = PretrainingConfig(minutes=minutes, seed=seed)
    checkpoint = output.with_suffix(".training")
    training = BackbonePretraining(
        backbone,
        PairSampler(StackPool(stacks), config, shapes=make_shapes),
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
