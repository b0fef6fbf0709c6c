"""How a square slice is turned, moved and resized a little before a network sees it once more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit, logit
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Pose:
    """A similarity transform of squares.

    Attributes:
        up, left: How far what is shown moves, as a part of the square's side.
        smaller: By what factor it shrinks.
        degrees: By how much it turns, counterclockwise.
    """

    up: float = 0.0
    left: float = 0.0
    smaller: float = 1.0
    degrees: float = 0.0

    def shown(self, squares: Tensor) -> Tensor:
        """Slices `(n, s, s)` in this pose, 0 where they do not reach."""
        return squares if self == UPRIGHT else _warped(squares[:, None], self._matrix())[:, 0]

    def undone(self, logits: np.ndarray, *, nothing: float) -> np.ndarray:
        """Masks of slices in this pose as they lie in the slices themselves.

        Args:
            logits: `(n, organs, k, k)`, float16.
            nothing: What stands for no organ, and where the slices in this pose do not reach.
        """
        if self == UPRIGHT:
            return logits
        above = torch.from_numpy(logits.astype(np.float32) - nothing)
        upright = _warped(above, torch.linalg.inv(self._matrix()))
        return (upright.numpy() + nothing).astype(np.float16)

    def _matrix(self) -> Tensor:
        """3 x 3, from positions in the pose to ones in the square, which is -1 to 1 across."""
        angle = math.radians(self.degrees)
        cosine, sine = self.smaller * math.cos(angle), self.smaller * math.sin(angle)
        return torch.tensor(
            [[cosine, -sine, 2 * self.left], [sine, cosine, 2 * self.up], [0.0, 0.0, 1.0]],
            dtype=torch.float64,
        )


UPRIGHT = Pose()
# No more than what augmentation shows in training. Five would bring half a point more in five times the time.
THREE_POSES = (UPRIGHT, Pose(0.03, 0.04, 1.06, 5.0), Pose(-0.03, -0.04, 0.95, -5.0))


def mean_of_poses(logits: Sequence[np.ndarray], *, nothing: float) -> np.ndarray:
    """The mean probability of masks `(n, organs, k, k)`, as logits, float16.

    Args:
        logits: Of each pose, undone.
        nothing: What stands for no organ, and does so in the mean.
    """
    if len(logits) == 1:
        return logits[0]
    probability = sum(expit(each.astype(np.float32)) for each in logits) / len(logits)
    return logit(probability).clip(nothing, -nothing).astype(np.float16)


def _warped(maps: Tensor, matrix: Tensor) -> Tensor:
    """Maps `(n, c, k, k)` at the positions that the matrix gives, 0 outside."""
    grid = F.affine_grid(
        matrix[:2].float().expand(len(maps), -1, -1), [len(maps), 1, *maps.shape[-2:]], align_corners=False
    )
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
