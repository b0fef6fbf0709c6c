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
        sees_beside: Whether it sees the features of the slices below and above, too. To begin with they count for
            nothing: weights of a decoder that did not see them can be gone on from.
    """

    def __init__(
        self, channels: tuple[int, int, int], organs: int, *, width: int, sees_beside: bool = False
    ) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.project = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(channels, widths, strict=True))
        self.project_beside = nn.ModuleList(
            _begun_with_zeros(nn.Conv2d(2 * c, w, 1, bias=False))
            for c, w in zip(channels, widths, strict=True)
            if sees_beside
        )
        self.blocks = nn.ModuleList(_block(w) for w in widths)
        self.narrow = nn.ModuleList(nn.Conv2d(coarser, finer, 1) for finer, coarser in pairwise(widths))
        self.head = nn.Conv2d(width, organs, 1)

    def forward(self, features: ImageFeatures) -> Tensor:
        """Logits `(n, organs, s/4, s/4)`; the background's is 0, see `compete`.

        Args:
            features: With the slices beside them, where the decoder sees these; else these are ignored.

        Raises:
            ValueError: It sees the slices beside, and there are none.
        """
        levels = [project(level) for project, level in zip(self.project, features.levels(), strict=True)]
        if self.project_beside:
            if features.beside is None:
                raise ValueError("This decoder sees the slices beside, and the features have none.")
            pairs = zip(levels, self.project_beside, features.beside.levels(), strict=True)
            levels = [level + project(other) for level, project, other in pairs]
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


def _begun_with_zeros(convolution: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(convolution.weight)
    return convolution
