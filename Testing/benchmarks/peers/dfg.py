"""Feature guidance in the manner of DFG (arXiv 2505.08527): a source UNet adapts to unlabelled target images.

    python Testing/benchmarks/peers/dfg.py B --minutes 20

Half of the time the network's features on the target are drawn to the class prototypes of the source, on pixels of which
it is sure. Then its masks are shown to the frozen backbone (their memory, decoded on the same slice), in the place of
the box prompts that DFG searches for MedSAM; pixels on which both agree are pseudo-labels for the other half.
"""

from __future__ import annotations

from dataclasses import asdict

import benchmark_path  # noqa: F401
import numpy as np
import torch
from peer import Peer, Prepared, run_peers
from protocols import Job
from slice_training import resized, segment_slices, stack_logits
from target_adaptation import (
    ADAPTING,
    ADAPTING_PART,
    SOURCE,
    WARMUP,
    images_of,
    probabilities,
    pseudo_labelled,
    target_stacks,
    train_on_pseudo_labels,
)
from torch import Tensor
from torch.nn import functional as F
from unet import FeatureUNet, trained_unet

from DiffuSAMLib.backbones import Backbone, Memory, mask_to_logits
from DiffuSAMLib.labelled_stacks import LabelledStack, load_stack
from DiffuSAMLib.slice_sampler import Batch

SURE = 0.9
TEMPERATURE = 0.1
CHUNK = 4
# Prototypes are means over so many pixels that every fourth slice is enough.
PROTOTYPE_STEP = 4


@torch.no_grad()
def prototypes(network: FeatureUNet, stacks: list[LabelledStack], classes: int) -> Tensor:
    """Mean unit feature of each class on labelled stacks `(classes, c)`; all that adapting keeps of the source."""
    sums: Tensor | float = 0.0
    for stack in stacks:
        for numbers in torch.arange(0, len(stack.slices), PROTOTYPE_STEP).split(CHUNK):
            features = F.normalize(network.features(images_of(stack, numbers)), dim=1)
            truth = F.one_hot(torch.from_numpy(stack.labels)[numbers].long(), classes).float()
            sums = sums + torch.einsum("nchw,nhwk->kc", features, truth)
    assert isinstance(sums, Tensor)
    return F.normalize(sums, dim=1)


@torch.no_grad()
def sure_labels(network: FeatureUNet, stack: LabelledStack, organs: int) -> LabelledStack:
    """The stack with the network's own labels where it is sure."""
    labels, kept = [], []
    for numbers in torch.arange(len(stack.slices)).split(CHUNK):
        best, found = probabilities(network, images_of(stack, numbers)).max(1)
        labels.append(found.byte().numpy())
        kept.append((best > SURE).numpy())
    return pseudo_labelled(stack, np.concatenate(labels), np.concatenate(kept), organs)


@torch.no_grad()
def agreed_labels(
    network: FeatureUNet, backbone: Backbone, stack: LabelledStack, organs: int
) -> LabelledStack:
    """The stack with labels on which the network and the frozen backbone agree."""
    labels, kept = [], []
    for numbers in torch.arange(len(stack.slices)).split(CHUNK):
        images = images_of(stack, numbers)
        own = probabilities(network, images).argmax(1)
        masks = own[:, None] == torch.arange(1, organs + 1)[:, None, None]
        shown = masks.flatten(2).any(2)
        refined = torch.full(masks.shape, -10.0)
        if shown.any():
            rows = shown.nonzero()[:, 0]
            features = backbone.encode_image(resized(images, backbone.image_size))[rows]
            memory = backbone.encode_memory(features, mask_to_logits(masks[shown][:, None]))
            decoded = backbone.decode(features, [Memory(memory)])
            refined[shown] = resized(decoded.raw_logits, masks.shape[-1])[:, 0]
        best, winner = refined.max(1)
        theirs = torch.where(best > 0, winner + 1, 0)
        labels.append(own.byte().numpy())
        kept.append((own == theirs).numpy())
    return pseudo_labelled(stack, np.concatenate(labels), np.concatenate(kept), organs)


def prepare(job: Job) -> Prepared:
    names = job.protocol.organs
    organs = len(names)
    loaded = job.backbone()
    targets = target_stacks(job)
    network, source = trained_unet(job, SOURCE)
    stacks = [load_stack(case, organs=names, size=SOURCE.size) for case in job.training_cases()]
    centres = prototypes(network, stacks, organs + 1)

    def alignment(batch: Batch, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        features = F.normalize(network.features(batch.images), dim=1)
        similarity = torch.einsum("nchw,kc->nkhw", features, centres) / TEMPERATURE
        loss = F.cross_entropy(similarity, target, reduction="none") * counted
        return loss.sum() / counted.sum().clamp(min=1)

    sure = [sure_labels(network, stack, organs) for stack in targets]
    aligning = train_on_pseudo_labels(job, "dfg_align", network, sure, part=0.5, extra_loss=alignment)
    agreed = [agreed_labels(network, loaded.backbone, stack, organs) for stack in targets]
    adapting = train_on_pseudo_labels(job, "dfg_adapt", network, agreed, part=0.5)
    return Prepared(
        lambda volume, _: segment_slices(
            lambda s: stack_logits(network, s), volume, organs=organs, size=SOURCE.size
        ),
        (*job.split.train, *job.unlabelled_names, *loaded.training_cases),
        {"source": source, "aligning": aligning, "adapting": adapting, "unlabelled": job.unlabelled_names},
    )


SETTINGS = {
    "source": asdict(SOURCE),
    "adapting": asdict(ADAPTING),
    "adapting_part": ADAPTING_PART,
    "adapting_warmup": WARMUP,
    "sure": SURE,
    "temperature": TEMPERATURE,
}
PEERS = {"dfg": Peer("feature guidance (DFG)", prepare, SETTINGS, uses_backbone=True)}

if __name__ == "__main__":
    run_peers(PEERS, __doc__)
