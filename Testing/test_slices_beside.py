from __future__ import annotations

import numpy as np
import torch
from cases import a_stack

from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.slices_beside import numbers_beside, stack_features


def test_slices_beside_are_the_nearest_at_that_distance() -> None:
    assert numbers_beside([4, 5], count=12, spacing=3.0, reach_mm=9.0) == ([1, 2], [7, 8])
    assert numbers_beside([4], count=12, spacing=4.0, reach_mm=9.0) == ([2], [6])


def test_of_thick_slices_the_neighbours_are_beside() -> None:
    assert numbers_beside([4], count=12, spacing=30.0, reach_mm=9.0) == ([3], [5])


def test_the_ends_of_a_stack_stand_for_what_is_beyond() -> None:
    assert numbers_beside([0, 3], count=4, spacing=3.0, reach_mm=9.0) == ([0, 0], [3, 3])


def test_features_beside_are_those_of_the_slices_there(a_compact_backbone: Backbone) -> None:
    stack = a_stack("a")
    stack.slices[:] = np.random.default_rng(0).integers(0, 255, stack.slices.shape)
    below, above = numbers_beside([5, 9], count=len(stack.slices), spacing=stack.spacing[0], reach_mm=4.0)
    assert below != above
    alone = [stack_features(a_compact_backbone, stack, n, reach_mm=0) for n in ([5, 9], below, above)]
    found = stack_features(a_compact_backbone, stack, [5, 9], reach_mm=4.0)
    assert alone[0].beside is None
    assert found.beside is not None
    torch.testing.assert_close(found.fine, alone[0].fine)
    torch.testing.assert_close(found.beside.fine, torch.cat((alone[1].fine, alone[2].fine), dim=1))
    torch.testing.assert_close(found.beside.coarse, torch.cat((alone[1].coarse, alone[2].coarse), dim=1))
