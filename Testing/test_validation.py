from __future__ import annotations

import numpy as np
import torch
from cases import a_stack

from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.held_out import HeldOut
from DiffuSAMLib.prior import Prior
from DiffuSAMLib.validation import Validation


def test_a_prediction_is_the_same_each_time_and_scored_by_organ(
    a_compact_backbone: Backbone, a_small_prior: Prior
) -> None:
    validation = Validation(HeldOut(a_stack("a"), (1, 5, 9, 12, 14), None), a_compact_backbone)
    with torch.no_grad():
        a_small_prior.outline_decoder.head.weight *= 100
    before = torch.random.get_rng_state()
    first, again = validation.predict(a_small_prior), validation.predict(a_small_prior)
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (5, *validation.truth.shape[1:])
    assert validation.dice(validation.truth) == [1, 1]
    assert validation.dice(np.zeros_like(validation.truth)) == [0, 0]


def test_an_organ_that_is_not_labelled_has_no_score(a_compact_backbone: Backbone) -> None:
    stack = a_stack("a", organs=1)
    validation = Validation(HeldOut(stack, (5,), None), a_compact_backbone)
    assert validation.dice(validation.truth) == [1, None]
