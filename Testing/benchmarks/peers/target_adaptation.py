"""What adapting peers share: target images without labels, and training on pseudo-labels of which some do not count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import benchmark_path  # noqa: F401
import numpy as np
import torch
from common import RUNS, labelled_cases
from protocols import Job
from slice_training import CONTEXT, ExtraLoss, SliceRecipe, SliceTraining, with_labels
from torch import Tensor
from unet import SIZE, FeatureUNet, unet_recipe
from units import fingerprint

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.labelled_stacks import LabelledStack, to_stack
from DiffuSAMLib.volumes import read_volume

# The source network is the one with the strongest augmentation; adapting takes a quarter of its time.
SOURCE = unet_recipe("slaug")
ADAPTING_PART = 0.25
ADAPTING = SliceRecipe(learning_rate=3e-4, size=SIZE)
# Iterations. Adapting is some dozens of them: with as many as a training's, the rate would never rise.
WARMUP = 4


def target_stacks(job: Job) -> list[LabelledStack]:
    """Images of the target cases that are not scored, without any label.

    Raises:
        InputError: The protocol has no such cases.
    """
    if not job.unlabelled_names:
        raise InputError(
            f"{job.protocol.name} has no target cases to adapt to besides those that are scored."
        )
    stacks = []
    for case in labelled_cases(job.unlabelled_names):
        volume = read_volume(case.image, modality=case.modality)
        nothing = np.zeros(volume.geometry.shape, np.uint8)
        organs = job.protocol.organs
        stacks.append(to_stack(volume, nothing, {}, name=case.name, organs=organs, size=SOURCE.size))
    return stacks


def images_of(stack: LabelledStack, numbers: Tensor) -> Tensor:
    return stack.channels(numbers, context=CONTEXT)


def pseudo_labelled(stack: LabelledStack, labels: np.ndarray, kept: np.ndarray, organs: int) -> LabelledStack:
    """A stack with pseudo-labels `(n, s, s)`; where `kept` is False they do not count."""
    return with_labels(stack, np.where(kept, labels, organs + 1).astype(np.uint8), organs + 1)


def train_on_pseudo_labels(
    job: Job,
    name: str,
    network: FeatureUNet,
    stacks: Sequence[LabelledStack],
    *,
    part: float = 1.0,
    extra_loss: ExtraLoss | None = None,
) -> dict[str, object]:
    """Trains the network further, for `part` of the time for adapting. Returns a record."""
    config = replace(ADAPTING.config(job.minutes * ADAPTING_PART * part, job.draw), warmup=WARMUP)
    checkpoint = checkpoint_path(job, name)
    return SliceTraining(network, stacks, config, checkpoint, ignored=True, extra_loss=extra_loss).run()


def checkpoint_path(job: Job, name: str) -> Path:
    content = {
        "train": job.split.train,
        "target": job.unlabelled_names,
        "minutes": job.minutes,
        "backbone": job.backbone_file.name,
    }
    return RUNS / "peers" / f"{name}_draw{job.draw}_{fingerprint(content)[:16]}.training"


@torch.no_grad()
def probabilities(network: FeatureUNet, images: Tensor) -> Tensor:
    return network(images).softmax(1)
