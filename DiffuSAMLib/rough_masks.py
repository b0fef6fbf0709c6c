"""Masks as an imperfect prediction draws them, for pretraining a decoder that looks at the image too."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Standard deviations of the coarse displacements and of the shift, as parts of the image's side.
WARP = 0.012
SHIFT = 0.008
# Smallest and largest detail that survives, as parts of the image's side.
DETAIL = (1 / 64, 1 / 14)
# Part of a neighbourhood that must be inside for its middle to be: less grows a mask, more shrinks it.
THRESHOLD = (0.2, 0.75)
# How many lose a piece, and the least that stays: the decoder is to complete what it sees the rest of.
CUT_SHARE = 0.3
LEAST_LEFT = 0.45
# Dice of the roughest masks: with less, nobody could tell what was meant.
LEAST_DICE = 0.4


def rough_masks(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Masks warped, moved, grown or shrunk, without their details, and some without a piece.

    Args:
        masks: `(b, 1, s, s)`, 0 or 1.
        generator: Decides.

    Returns:
        The same shape, 0 or 1; a mask that would not be known again stays as it is.
    """
    size = masks.shape[-1]
    count = len(masks)
    matrix = torch.eye(2, 3).repeat(count, 1, 1)
    matrix[:, :, 2] = torch.randn(count, 2, generator=generator).clamp(-3, 3) * 2 * SHIFT
    grid = F.affine_grid(matrix, [count, 1, size, size], align_corners=False)
    coarse = torch.randn(count, 2, 6, 6, generator=generator) * 2 * WARP
    warp = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    moved = F.grid_sample(masks, grid + warp.permute(0, 2, 3, 1), align_corners=False)
    low, high = THRESHOLD
    threshold = low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
    details = DETAIL[0] + (DETAIL[1] - DETAIL[0]) * torch.rand(count, generator=generator)
    in_blocks = torch.rand(count, generator=generator) < 0.5
    rough = [
        _blocks(mask[None], max(1, round(size * float(detail))))
        if blocky
        else _blurred(mask[None], max(1, round(size * float(detail) / 2)))
        for mask, detail, blocky in zip(moved, details, in_blocks, strict=True)
    ]
    found = (torch.cat(rough) > threshold).to(masks.dtype)
    for row in (torch.rand(count, generator=generator) < CUT_SHARE).nonzero()[:, 0].tolist():
        found[row] = _cut(found[row], generator)
    kept = 2 * (found * masks).sum((1, 2, 3))
    unknown = kept < LEAST_DICE * (found.sum((1, 2, 3)) + masks.sum((1, 2, 3)))
    found[unknown] = masks[unknown]
    return found


def _cut(mask: Tensor, generator: torch.Generator) -> Tensor:
    """A mask `(1, s, s)` up to a straight line through it."""
    angle, left = torch.rand(2, generator=generator).tolist()
    y, x = torch.meshgrid(*(torch.arange(side) for side in mask.shape[-2:]), indexing="ij")
    along = x * math.cos(2 * math.pi * angle) + y * math.sin(2 * math.pi * angle)
    inside = along[mask[0] > 0]
    if not inside.numel():
        return mask
    return mask * (along <= inside.quantile(LEAST_LEFT + (1 - LEAST_LEFT) * left))


def _blocks(mask: Tensor, side: int) -> Tensor:
    """What a grid of positions `side` pixels apart can tell."""
    size = mask.shape[-1]
    pooled = F.avg_pool2d(mask, side, ceil_mode=True, count_include_pad=False)
    return F.interpolate(pooled, size=(size, size), mode="bilinear", align_corners=False)


def _blurred(mask: Tensor, reach: int) -> Tensor:
    return F.avg_pool2d(mask, 2 * reach + 1, stride=1, padding=reach)
