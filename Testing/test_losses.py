from __future__ import annotations

from dataclasses import replace

import torch

from DiffuSAMLib.backbones import Decoded
from DiffuSAMLib.losses import mask_loss, outline_loss


def square() -> torch.Tensor:
    """A mask `(1, 1, 32, 32)` with a square whose edges lie on the decoder's pixels."""
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    return mask


def decoded(mask: torch.Tensor, *, sure: float = 20.0, score: float = 20.0, iou: float = 1.0) -> Decoded:
    """What a decoder says that finds a mask given at `s`, at `s / 4`."""
    coarse = torch.nn.functional.avg_pool2d(mask, 4)
    return Decoded(
        raw_logits=(coarse * 2 - 1) * sure,
        object_score=torch.full((len(mask), 1), score),
        iou=torch.full((len(mask), 1), iou),
        pointer=torch.zeros(len(mask), 8),
    )


def test_a_perfect_answer_costs_nothing() -> None:
    assert mask_loss(decoded(square()), square()) < 1e-3


def test_an_absent_object_that_is_not_found_costs_nothing() -> None:
    nothing = torch.zeros(1, 1, 32, 32)
    assert mask_loss(decoded(nothing, score=-20.0, iou=0.3), nothing) < 1e-3


def test_every_mistake_costs() -> None:
    perfect = decoded(square())
    mistakes = {
        "a shifted mask": decoded(square().roll(8, dims=3)),
        "an unsure mask": decoded(square(), sure=0.5),
        "absence of what is there": replace(perfect, object_score=torch.full((1, 1), -5.0)),
        "a wrong estimate of the overlap": replace(perfect, iou=torch.zeros(1, 1)),
    }
    for what, answer in mistakes.items():
        assert mask_loss(answer, square()) > 0.1, what
    present = decoded(torch.zeros(1, 1, 32, 32), score=5.0)
    assert mask_loss(present, torch.zeros(1, 1, 32, 32)) > 0.1


def test_a_further_miss_costs_no_less() -> None:
    costs = [float(mask_loss(decoded(square().roll(shift, dims=3)), square())) for shift in (0, 4, 8, 12)]
    assert costs == sorted(costs)


def test_the_mask_learns_also_where_the_object_is_scored_absent() -> None:
    """SAM2 overwrites such masks with -1024, through which no gradient flows."""
    answer = decoded(square(), sure=0.1, score=-5.0)
    answer.raw_logits.requires_grad_()
    mask_loss(answer, square()).backward()
    gradient = answer.raw_logits.grad
    assert gradient is not None
    assert (gradient[..., 3:5, 3:5] < 0).all()
    assert (gradient[..., 0, 0] > 0).all()


def test_the_mean_is_taken_over_objects() -> None:
    good, bad = decoded(square()), decoded(square().roll(8, dims=3))
    both = Decoded(
        *(
            torch.cat((getattr(good, key), getattr(bad, key)))
            for key in ("raw_logits", "object_score", "iou", "pointer")
        )
    )
    expected = torch.cat((mask_loss(good, square()), mask_loss(bad, square())))
    torch.testing.assert_close(mask_loss(both, square().repeat(2, 1, 1, 1)), expected)


def test_outlines_cost_by_how_wrong_they_are_where_the_organ_is_known() -> None:
    masks = torch.cat((square(), square().roll(8, dims=3)), dim=1) > 0
    # The background's logit is 0.
    right = torch.nn.functional.avg_pool2d(masks.float(), 4) * 40 - 20
    both = torch.tensor([[True, True]])
    assert outline_loss(right, masks, both) < 1e-2
    wrong = right.clone()
    wrong[:, 1] = right[:, 1].roll(2, dims=2)
    assert outline_loss(wrong, masks, both) > 0.5
    assert outline_loss(wrong, masks, torch.tensor([[True, False]])) < 1e-2
