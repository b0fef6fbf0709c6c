"""Where the organs are in a slice, from the backbone's features alone, coarse to fine."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from .backbones import ImageFeatures

GROUPS = 8


class OutlineDecoder(nn.Module):
    """Convolutions over the three levels of features, the coarser ones added to the finer.

    What it sees around a pixel is limited, and it is not told where in the image that is: three volumes are too few to
    learn from places where organs may lie, and what organs look like it need not learn twice.

    Args:
        channels: Of the backbone's fine, middle and coarse features.
        organs: How many.
        width: Channels at the fine level; twice and four times as many at the coarser ones.
    """

    def __init__(self, channels: tuple[int, int, int], organs: int, *, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.project = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(channels, widths, strict=True))
        self.blocks = nn.ModuleList(_block(w) for w in widths)
        self.narrow = nn.ModuleList(nn.Conv2d(coarser, finer, 1) for finer, coarser in pairwise(widths))
        self.head = nn.Conv2d(width, organs, 1)

    def forward(self, features: ImageFeatures) -> Tensor:
        """Logits `(n, organs, s/4, s/4)`; the background's is 0, see `compete`."""
        levels = [project(level) for project, level in zip(self.project, features.levels(), strict=True)]
        x = self.blocks[2](levels[2])
        for finer in (1, 0):
            coarser = F.interpolate(
                self.narrow[finer](x), size=levels[finer].shape[-2:], mode="bilinear", align_corners=False
            )
            x = self.blocks[finer](levels[finer] + coarser)
        return self.head(x)


def compete(logits: Tensor) -> Tensor:
    """Probabilities `(n, organs, h, w)` of organs of which at most one can be at a pixel.

    Args:
        logits: `(n, organs, h, w)`; the background's is 0.
    """
    return F.pad(logits, (0, 0, 0, 0, 1, 0)).softmax(1)[:, 1:]


def _block(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(GROUPS, width), nn.SiLU()]
    return nn.Sequential(*layers)
