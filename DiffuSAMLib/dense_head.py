"""A head that names the organ of every pixel, and its loss: for pretraining the backbone only."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones import ImageFeatures


class DenseHead(nn.Module):
    """Names the organ of every pixel at stride 8 from all three feature levels; thrown away after pretraining.

    It makes the features know anatomy, which is what a prior will look for in them.
    """

    def __init__(self, channels: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(sum(channels), classes, kernel_size=1)

    def forward(self, features: ImageFeatures) -> Tensor:
        """Logits `(n, classes, s/8, s/8)`."""
        size = features.middle.shape[-2:]
        coarse = F.interpolate(features.coarse, size=size, mode="bilinear", align_corners=False)
        return self.project(torch.cat((F.avg_pool2d(features.fine, 2), features.middle, coarse), dim=1))


def dense_loss(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Cross entropy of `(n, 1 + organs, h, w)` logits; organs that a case does not label count as background.

    Cases with no known organ (mere shapes) do not take part.
    """
    used = known.any(1)
    if not used.any():
        return logits.sum() * 0
    logits, known = logits[used], known[used]
    step = labels.shape[-1] // logits.shape[-1]
    target = labels[used][:, step // 2 :: step, step // 2 :: step]
    log_probability = logits.log_softmax(1)
    unlabelled = torch.cat((torch.ones_like(known[:, :1]), ~known), dim=1)[..., None, None]
    background = log_probability.masked_fill(~unlabelled, -math.inf).logsumexp(1, keepdim=True)
    merged = torch.cat((background, log_probability[:, 1:]), dim=1)
    # Small organs would drown in background and liver.
    weight = torch.full((merged.shape[1],), 2.0)
    weight[0] = 1.0
    return F.nll_loss(merged, target, weight=weight)
