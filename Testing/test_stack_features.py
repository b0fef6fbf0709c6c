from __future__ import annotations

import numpy as np
import torch
from cases import a_stack

from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.slices import numbers_beside
from DiffuSAMLib.stack_features import stack_features


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
