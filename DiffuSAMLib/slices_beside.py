"""The slices some millimetres below and above a slice: what an organ's end looks like is seen from there."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .backbones import Backbone, ImageFeatures
from .datasets import LabelledStack


def numbers_beside(
    numbers: Sequence[int], *, count: int, spacing: float, reach_mm: float
) -> tuple[list[int], list[int]]:
    """For each slice of a stack the number of the one below and of the one above it.

    Args:
        numbers: Of the slices.
        count: How many the stack has; its ends stand for what is beyond.
        spacing: Distance of neighbours in mm.
        reach_mm: How far away, to the nearest slice but at least one.
    """
    step = max(1, round(reach_mm / spacing))
    return [max(0, number - step) for number in numbers], [
        min(count - 1, number + step) for number in numbers
    ]


def stack_features(
    backbone: Backbone, stack: LabelledStack, numbers: Sequence[int], *, reach_mm: float
) -> ImageFeatures:
    """What the backbone gives for slices of a stack.

    Args:
        backbone: Frozen.
        stack: Its intensities are taken as they are.
        numbers: Of the slices.
        reach_mm: How far away the slices beside them are; 0 leaves them out.
    """

    def encoded(numbers: Sequence[int]) -> ImageFeatures:
        images = stack.channels(torch.tensor(numbers), context=backbone.slice_context)
        return backbone.encode_image(images.to(backbone.device))

    if not reach_mm:
        return encoded(numbers)
    below, above = numbers_beside(
        numbers, count=len(stack.slices), spacing=stack.spacing[0], reach_mm=reach_mm
    )
    return encoded(numbers).between(encoded(below), encoded(above))
