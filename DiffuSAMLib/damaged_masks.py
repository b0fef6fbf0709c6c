"""Masks as an imperfect prediction draws them, for pretraining the backbone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def damage_masks(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Masks `(b, 1, s, s)` grown, shrunk and shifted: what a memory of an imperfect prediction looks like."""
    size = masks.shape[-1]
    reach = max(1, size // 40)
    kernel = 2 * reach + 1
    blurred = F.avg_pool2d(masks.float(), kernel, stride=1, padding=reach)
    threshold = torch.rand(len(masks), 1, 1, 1, generator=generator) * 0.8 + 0.1
    shift = (torch.randn(len(masks), 2, generator=generator) * 0.01).clamp(-0.04, 0.04)
    matrix = torch.eye(2, 3).repeat(len(masks), 1, 1)
    matrix[:, :, 2] = shift * 2
    moved = F.grid_sample(
        (blurred > threshold).float(),
        F.affine_grid(matrix, list(masks.shape), align_corners=False),
        align_corners=False,
    )
    return (moved > 0.5).float()
