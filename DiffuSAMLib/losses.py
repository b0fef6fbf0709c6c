"""Losses on masks: what the mask decoder makes of memories, and the outlines that are drawn from features alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .backbones import Decoded


def mask_loss(decoded: Decoded, masks: Tensor) -> Tensor:
    """Cross entropy and Dice on the mask, cross entropy on presence, squared error on the estimated overlap.

    The mask is supervised before SAM2 overwrites it with -1024 where the score is negative: through that
    no gradient flows.

    Args:
        decoded: Of `b` objects.
        masks: Truth `(b, 1, s, s)` in 0 and 1.

    Returns:
        The loss of each object `(b,)`.
    """
    target = F.adaptive_avg_pool2d(masks.float(), decoded.raw_logits.shape[-1])
    present = (masks.flatten(1).amax(1) > 0).float()
    entropy = F.binary_cross_entropy_with_logits(decoded.raw_logits, target, reduction="none").mean((1, 2, 3))
    probability = decoded.raw_logits.sigmoid()
    overlap = (probability * target).sum((1, 2, 3))
    total = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    dice = (1 - (2 * overlap + 1) / (total + 1)) * present
    score = F.binary_cross_entropy_with_logits(decoded.object_score[:, 0], present, reduction="none")
    with torch.no_grad():
        hard, truth = decoded.raw_logits > 0, target > 0.5
        iou = ((hard & truth).sum((1, 2, 3)) + 1) / ((hard | truth).sum((1, 2, 3)) + 1)
    estimate = (decoded.iou[:, 0] - iou) ** 2 * present
    return 10 * entropy + dice + 0.5 * score + 0.2 * estimate


def outline_loss(
    outlines: Tensor, masks: Tensor, known: Tensor, *, total: Callable[[Tensor], Tensor] = Tensor.sum
) -> Tensor:
    """Cross entropy over organs and background, and the mean Dice of the organs, on outlines.

    Organs compete for a pixel, and small ones count as much as large ones: with a cross entropy for each organ by
    itself and one Dice for all, kidneys were hardly told from what surrounds them.

    Args:
        outlines: Logits `(b, organs, s/4, s/4)`; the background's is 0.
        masks: Truth, bool `(b, organs, s, s)`.
        known: bool `(b, organs)`; others do not count.
        total: How to add up; over more than this batch where several processes share one.
    """
    target = F.adaptive_avg_pool2d(masks.float(), outlines.shape[-1])
    counts = known[:, :, None, None]
    # What is not labelled may be there all the same, and is then background.
    logits = outlines.masked_fill(~counts, -torch.inf)
    likely = F.pad(logits, (0, 0, 0, 0, 1, 0)).log_softmax(1)
    background = 1 - (target * counts).sum(1)
    right = background * likely[:, 0] + (target * likely[:, 1:]).masked_fill(~counts, 0).sum(1)
    entropy = -total(right) / total(torch.ones_like(right))
    probability = likely[:, 1:].exp()
    dice = []
    for organ in range(outlines.shape[1]):
        # Over the whole batch: the Dice of a slice without the organ says nothing.
        rows = known[:, organ]
        found, truth = probability[rows, organ], target[rows, organ]
        dice.append((2 * total(found * truth) + 1) / (total(found + truth) + 1))
    return entropy + 1 - torch.stack(dice).mean()
