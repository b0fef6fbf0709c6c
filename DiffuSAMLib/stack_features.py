"""The image features of slices of a training stack, and of the slices some millimetres below and above them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .backbones import Backbone, ImageFeatures
from .labelled_stacks import LabelledStack
from .slices import numbers_beside


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
