"""The network that sees all outlines of a volume at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Levels of an overview: mean brightness and deviation within a cell.
OVERVIEW_CHANNELS = 2
# Cells are taken together by so many in each direction of a slice before the first convolution: 6 mm are 12 then.
_TOGETHER = 2


@dataclass(frozen=True)
class AnatomyConfig:
    """The shape of an anatomy network.

    Attributes:
        organs: Names of the organs whose outlines it knows, in order.
        width: Channels at each resolution, the finest first; multiples of 8.
    """

    organs: tuple[str, ...]
    width: tuple[int, ...] = (16, 32, 48, 64)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AnatomyConfig:
        return cls(organs=tuple(values["organs"]), width=tuple(values["width"]))


class AnatomyNetwork(nn.Module):
    """Tells from the outlines of all slices, and a coarse look at the image, where organs are.

    A UNet whose convolutions are divided into one within slices and one across them.
    """

    def __init__(self, config: AnatomyConfig) -> None:
        super().__init__()
        self.config = config
        organs, width = len(config.organs), config.width
        inputs = (organs + OVERVIEW_CHANNELS) * _TOGETHER**2
        self.down = nn.ModuleList(_block(*pair) for pair in zip((inputs, *width), width, strict=False))
        self.up = nn.ModuleList(_block(fine + coarse, fine) for fine, coarse in pairwise(width))
        self.change = nn.Conv3d(width[0], (organs + 1) * _TOGETHER**2, 1)
        # A new network changes nothing.
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)  # type: ignore[arg-type]
        self.trust = nn.Parameter(torch.tensor(0.5))

    def forward(self, outlines: Tensor, overview: Tensor) -> Tensor:
        """Logits `(b, 1 + organs, n, k, k)`, the background first.

        Args:
            outlines: Probabilities `(b, organs, n, k, k)`; `k` is even, and `n` at least 2 to the number of halvings.
            overview: `(b, 2, n, k, k)`, mean and deviation of the image in each cell.
        """
        x = _together(torch.cat([outlines * 2 - 1, overview], dim=1))
        levels: list[Tensor] = []
        for block in self.down:
            x = block(F.avg_pool3d(x, 2, ceil_mode=True) if levels else x)
            levels.append(x)
        for block, finer in zip(reversed(self.up), reversed(levels[:-1]), strict=True):
            x = F.interpolate(x, size=finer.shape[2:], mode="trilinear", align_corners=False)
            x = block(torch.cat([x, finer], dim=1))
        nothing = (1 - outlines.sum(1, keepdim=True)).clamp(0, 1)
        given = torch.cat([nothing, outlines], dim=1).clamp(0.02, 0.98).log()
        return _apart(self.change(x)) + self.trust * given


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: Sequence[nn.Module] = [
        layer
        for entering in (inputs, outputs)
        for layer in (
            nn.Conv3d(entering, outputs, (1, 3, 3), padding=(0, 1, 1)),
            nn.Conv3d(outputs, outputs, (3, 1, 1), padding=(1, 0, 0)),
            nn.GroupNorm(8, outputs),
            nn.SiLU(),
        )
    ]
    return nn.Sequential(*layers)


def _together(x: Tensor) -> Tensor:
    """`(b, c, n, k, k)` to `(b, 4c, n, k/2, k/2)`."""
    slices = F.pixel_unshuffle(x.transpose(1, 2).flatten(0, 1), _TOGETHER)
    return slices.unflatten(0, (len(x), -1)).transpose(1, 2).contiguous()


def _apart(x: Tensor) -> Tensor:
    """The inverse of `_together`."""
    slices = F.pixel_shuffle(x.transpose(1, 2).flatten(0, 1), _TOGETHER)
    return slices.unflatten(0, (len(x), -1)).transpose(1, 2)
