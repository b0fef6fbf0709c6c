from __future__ import annotations

import torch
from pretraining_cases import SIDE
from torch import Tensor

from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.dense_head import DenseHead, dense_loss


def one_hot_logits(labels: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, classes).permute(0, 3, 1, 2).float() * 20


def test_the_dense_loss_wants_the_organ_of_every_pixel() -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[0, 8:24, 8:24] = 2
    coarse = labels[:, 4::8, 4::8]
    known = torch.ones(1, 3, dtype=torch.bool)
    assert dense_loss(one_hot_logits(coarse, 4), labels, known) < 1e-3
    assert dense_loss(one_hot_logits(torch.zeros_like(coarse), 4), labels, known) > 1


def test_an_organ_that_is_not_labelled_may_be_seen_in_the_background() -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    sees_third = one_hot_logits(torch.full((1, 4, 4), 3), 4)
    assert dense_loss(sees_third, labels, torch.tensor([[True, True, False]])) < 1e-3
    assert dense_loss(sees_third, labels, torch.tensor([[True, True, True]])) > 1


def test_mere_shapes_teach_no_organs() -> None:
    logits = torch.randn(2, 4, 4, 4, requires_grad=True)
    loss = dense_loss(logits, torch.ones(2, 32, 32, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_dense_head_names_pixels_at_stride_8() -> None:
    backbone = Backbone("compact", image_size=SIDE)
    features = backbone.encode_image(torch.rand(2, 3, SIDE, SIDE))
    assert DenseHead(backbone.feature_channels, 6)(features).shape == (2, 6, SIDE // 8, SIDE // 8)
