"""Denoised pseudo-labels in the manner of DPL (arXiv 2109.09735): a source UNet adapts to unlabelled target images.

    python Testing/benchmarks/peers/dpl.py B --minutes 20

Pseudo-labels are the mean of several passes with dropout. A pixel counts where those agree, and where its features lie
nearest to the prototype of its own class, computed on the sure pixels of its slices.
"""

from __future__ import annotations

from dataclasses import asdict

import benchmark_path  # noqa: F401
import numpy as np
import torch
from peer import Peer, Prepared, run_peers
from protocols import Job
from slice_training import segment_slices, stack_logits
from target_adaptation import (
    ADAPTING,
    ADAPTING_PART,
    SOURCE,
    WARMUP,
    images_of,
    pseudo_labelled,
    target_stacks,
    train_on_pseudo_labels,
)
from torch import Tensor
from unet import FeatureUNet, trained_unet

from DiffuSAMLib.labelled_stacks import LabelledStack

PASSES = 4
UNCERTAINTY = 0.05
CHUNK = 4


def denoise(probability: Tensor, deviation: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Pseudo-labels `(n, h, w)` and which of them to keep.

    Args:
        probability: Mean over the passes `(n, classes, h, w)`.
        deviation: Standard deviation over the passes, alike.
        features: `(n, c, h, w)`.
    """
    labels = probability.argmax(1)
    sure = deviation.gather(1, labels[:, None])[:, 0] < UNCERTAINTY
    distances = torch.full_like(probability, float("inf"))
    for value in range(probability.shape[1]):
        chosen = sure & (labels == value)
        if chosen.any():
            weight = (probability[:, value] * chosen)[:, None]
            prototype = (features * weight).sum((0, 2, 3)) / weight.sum()
            distances[:, value] = ((features - prototype[:, None, None]) ** 2).sum(1).sqrt()
    return labels, sure & (distances.argmin(1) == labels)


@torch.no_grad()
def pseudo_labels(network: FeatureUNet, stack: LabelledStack, organs: int) -> LabelledStack:
    """The stack with the network's denoised pseudo-labels."""
    labels, kept = [], []
    for numbers in torch.arange(len(stack.slices)).split(CHUNK):
        images = images_of(stack, numbers)
        network.train()
        passes = torch.stack([network(images).softmax(1) for _ in range(PASSES)])
        network.eval()
        found, counts = denoise(passes.mean(0), passes.std(0), network.features(images))
        labels.append(found.byte().numpy())
        kept.append(counts.numpy())
    return pseudo_labelled(stack, np.concatenate(labels), np.concatenate(kept), organs)


def prepare(job: Job) -> Prepared:
    organs = len(job.protocol.organs)
    targets = target_stacks(job)
    network, source = trained_unet(job, SOURCE)
    torch.manual_seed(job.draw)
    stacks = [pseudo_labels(network, stack, organs) for stack in targets]
    record = train_on_pseudo_labels(job, "dpl", network, stacks)
    return Prepared(
        lambda volume, _: segment_slices(
            lambda s: stack_logits(network, s), volume, organs=organs, size=SOURCE.size
        ),
        (*job.split.train, *job.unlabelled_names),
        {"source": source, "adapting": record, "unlabelled": job.unlabelled_names},
    )


SETTINGS = {
    "source": asdict(SOURCE),
    "adapting": asdict(ADAPTING),
    "adapting_part": ADAPTING_PART,
    "adapting_warmup": WARMUP,
    "passes": PASSES,
    "uncertainty": UNCERTAINTY,
}
PEERS = {"dpl": Peer("denoised pseudo-labels (DPL)", prepare, SETTINGS)}

if __name__ == "__main__":
    run_peers(PEERS, __doc__)
