from __future__ import annotations

import numpy as np
import torch
from cases import a_stack

from DiffuSAMLib.augmentation import IntensityAugmentation, SpatialAugmentation
from DiffuSAMLib.labelled_stacks import LabelledStack
from DiffuSAMLib.recipe import TrainingConfig
from DiffuSAMLib.slice_sampler import SliceSampler
from DiffuSAMLib.stack_pool import StackPool

STILL = TrainingConfig(
    spatial=SpatialAugmentation(0.0, 0.0, 0.0, 0.0),
    intensity=IntensityAugmentation(cross_modality=0.0, strength=0.0),
)
MOVED = TrainingConfig(intensity=IntensityAugmentation(cross_modality=0.0, strength=0.0))


def numbered() -> LabelledStack:
    """Slices as bright as their number."""
    stack = a_stack("a")
    stack.slices[:] = 10 * np.arange(len(stack.slices))[:, None, None]
    return stack


def sampler_of(stack: LabelledStack, config: TrainingConfig, reach_mm: float) -> SliceSampler:
    return SliceSampler(StackPool([stack]), config, context=0, reach_mm=reach_mm)


def test_slices_beside_are_drawn_with_a_slice() -> None:
    stack = numbered()
    step = round(6 / stack.spacing[0])
    batch = sampler_of(stack, STILL, 6.0).draw(6)
    assert batch.below is not None
    assert batch.above is not None
    own, below, above = (
        (255 * images.amax((1, 2, 3)) / 10).round() for images in (batch.images, batch.below, batch.above)
    )
    assert below.tolist() == (own - step).clamp(min=0).tolist()
    assert above.tolist() == (own + step).clamp(max=len(stack.slices) - 1).tolist()


def test_slices_beside_are_moved_like_the_slice() -> None:
    stack = a_stack("a")
    stack.slices[:] = stack.slices[len(stack.slices) // 2]
    batch = sampler_of(stack, MOVED, 6.0).draw(4)
    assert batch.below is not None
    torch.testing.assert_close(batch.below, batch.images, atol=0.02, rtol=0)


def test_with_a_reach_the_same_slices_and_masks_are_drawn() -> None:
    with_reach, without = (sampler_of(a_stack("a"), STILL, reach).draw(4) for reach in (6.0, 0.0))
    assert without.below is None
    assert torch.equal(with_reach.masks, without.masks)
    torch.testing.assert_close(with_reach.images, without.images, atol=0.02, rtol=0)
