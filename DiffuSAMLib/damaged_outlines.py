"""Outlines as they come of slices that know nothing of one another, made of true ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# In the logits of outlines: what is as good as certain.
_SURE = 4.0


def damage_outlines(parts: Tensor, image: Tensor, generator: torch.Generator) -> Tensor:
    """Probabilities `(organs, n, k, k)` as a decoder that sees single slices might give them.

    Organs are drawn where they lie in neighbouring slices though they have ended, leak into what is as bright, are missed
    in parts or as a whole, and appear elsewhere; some volumes are hardly damaged.

    Args:
        parts: The true organs' part of each cell, 0 to 1, `(organs, n, k, k)`.
        image: Mean brightness of each cell, `(n, k, k)`.
        generator: Decides.
    """
    dice = _Dice(generator)
    severity = dice.uniform(0, 1.2)
    damaged = torch.stack([_damaged(part, image, severity, dice) for part in parts])
    return damaged / damaged.sum(0, keepdim=True).clamp(min=1)


class _Dice:
    """Random numbers and fields of one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def field(self, shape: Sequence[int], cells: Sequence[float]) -> Tensor:
        return random_field(shape, cells, self.generator)


def random_field(shape: Sequence[int], cells: Sequence[float], generator: torch.Generator) -> Tensor:
    """A smooth random field `(n, k, k)` of deviation 1.

    Args:
        shape: `(n, k, k)`.
        cells: Distance of its knots along each axis, in cells.
        generator: Decides.
    """
    knots = [max(2, round(count / step) + 2) for count, step in zip(shape, cells, strict=True)]
    coarse = torch.randn(1, 1, *knots, generator=generator)
    fine = F.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]
    return fine / (fine.std() + 1e-6)


def _damaged(part: Tensor, image: Tensor, severity: float, dice: _Dice) -> Tensor:
    drawn = _drawn_on(part, dice) if dice.chance(0.45 * severity) else part
    if dice.chance(0.3 * severity):
        drawn = torch.maximum(drawn, _shifted_along(part, dice))
    logits = (drawn - 0.5) * 2 * _SURE
    near, around = _blurred(drawn, 5), _blurred(_blurred(drawn, 9), 9)
    edge = dice.field(part.shape, [dice.uniform(1, 6), dice.uniform(2, 6), dice.uniform(2, 6)])
    logits = logits + dice.uniform(0, 6) * min(1, 0.2 + severity) * edge * 4 * near * (1 - near)
    changes: Sequence[tuple[float, Callable[[], Tensor]]] = (
        (0.5, lambda: torch.maximum(logits, _leak(part, image, around, dice))),
        (0.4, lambda: logits - 2 * _SURE * _missed(part.shape, dice)),
        (0.08, lambda: logits - dice.uniform(2, 8)),
        (0.3, lambda: torch.maximum(logits, _elsewhere(part.shape, dice))),
    )
    for probability, changed in changes:
        if dice.chance(probability * severity):
            logits = changed()
    # Some slices are surer than others.
    logits = logits + dice.uniform(0, 1.2) * torch.randn(len(part), 1, 1, generator=dice.generator)
    return (logits * dice.uniform(0.5, 2)).sigmoid()


def _drawn_on(part: Tensor, dice: _Dice) -> Tensor:
    """Goes on beyond an end or both as it was a few slices before."""
    drawn = part.clone()
    present = part.sum((1, 2)).gt(0.5).nonzero()[:, 0].tolist()
    if not present:
        return drawn
    first, last = present[0], present[-1]
    for end, inwards in ((first, 1), (last, -1)):
        if dice.chance(0.6):
            source = end + inwards * min(int(dice.uniform(0, 4)), last - first)
            for step in range(1, 1 + int(dice.uniform(1, 8))):
                place = end - inwards * step
                if 0 <= place < len(part):
                    drawn[place] = torch.maximum(drawn[place], part[source])
    return drawn


def _shifted_along(part: Tensor, dice: _Dice) -> Tensor:
    """In some slices what lies a few slices off."""
    distance = int(dice.uniform(1, 7)) * (1 if dice.chance(0.5) else -1)
    shifted = torch.roll(part, distance, 0)
    shifted[slice(0, distance) if distance > 0 else slice(distance, None)] = 0
    where = dice.field(part.shape, (4, *part.shape[1:])) > dice.uniform(-0.5, 1)
    return shifted * where


def _leak(part: Tensor, image: Tensor, around: Tensor, dice: _Dice) -> Tensor:
    """Logits of patches nearby, most of them as bright as the organ, and undecided ones of all that is around."""
    cells = [dice.uniform(1, 8), dice.uniform(4, 14), dice.uniform(4, 14)]
    patches = (dice.field(part.shape, cells) > dice.uniform(0, 1.5)).float()
    if dice.chance(0.6):
        brightness = (image * part).sum() / (part.sum() + 1e-3)
        patches = patches * ((image - brightness).abs() < dice.uniform(0.03, 0.2))
    near = around > dice.uniform(0.001, 0.2)
    undecided = torch.where(around > 0.001, 0.0, -2 * _SURE)
    return torch.where(near, (_within_slices(patches, 3) * 2 - 1) * _SURE, undecided)


def _missed(shape: Sequence[int], dice: _Dice) -> Tensor:
    """Where nothing is found, 0 to 1."""
    field = dice.field(shape, [dice.uniform(1, 6), dice.uniform(4, 20), dice.uniform(4, 20)])
    return ((field - dice.uniform(0.3, 1.5)) * 4).sigmoid()


def _elsewhere(shape: Sequence[int], dice: _Dice) -> Tensor:
    """Logits of a few ellipsoids anywhere."""
    logits = torch.full(tuple(shape), -2 * _SURE)
    axes = [torch.arange(count, dtype=torch.float32) for count in shape]
    for _ in range(int(dice.uniform(1, 4))):
        squares = []
        for axis, low, high, radius in zip(axes, (0, 0.15, 0.15), (1, 0.85, 0.85), (5, 7, 7), strict=True):
            centre = dice.uniform(low, high) * len(axis)
            squares.append(((axis - centre) / dice.uniform(1.2, radius)) ** 2)
        distance = (squares[0][:, None, None] + squares[1][:, None] + squares[2]).sqrt()
        logits = torch.maximum(logits, ((1 - distance) * 2 * _SURE).clamp(-2 * _SURE, _SURE))
    return logits


def _blurred(x: Tensor, width: int) -> Tensor:
    """Means over `width` cells within slices and 3 slices."""
    blurred = _within_slices(x, width)[None, None]
    return F.avg_pool3d(blurred, (3, 1, 1), stride=1, padding=(1, 0, 0))[0, 0]


def _within_slices(x: Tensor, width: int) -> Tensor:
    half = width // 2
    return F.avg_pool2d(F.avg_pool2d(x[:, None], (width, 1), 1, (half, 0)), (1, width), 1, (0, half))[:, 0]
