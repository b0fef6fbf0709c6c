from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from DiffuSAMLib.backbones import Backbone, ImageFeatures
from DiffuSAMLib.outline_decoder import OutlineDecoder
from DiffuSAMLib.prior import Prior


@pytest.fixture
def a_prior_with_outlines(a_small_prior: Prior) -> Prior:
    torch.manual_seed(0)
    return Prior(replace(a_small_prior.config, outline_width=8)).eval()


@pytest.fixture
def features(a_compact_backbone: Backbone) -> ImageFeatures:
    """Of three slices."""
    slices = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return a_compact_backbone.encode_image(slices)


def noise(count: int) -> Tensor:
    return torch.randn(count, 32, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("width", [8, 24])
def test_outlines_have_a_quarter_of_the_slices_side(features: ImageFeatures, width: int) -> None:
    channels = tuple(level.shape[1] for level in features.levels())
    assert OutlineDecoder(channels, 5, width=width)(features).shape == (3, 5, 16, 16)


@torch.no_grad()
def test_an_organ_is_found_wherever_it_lies() -> None:
    """What is moved in the features moves in the outlines."""
    decoder = OutlineDecoder((4, 8, 16), 2, width=8).eval()
    levels = [torch.zeros(1, c, s, s) for c, s in ((4, 128), (8, 64), (16, 32))]
    moved = [level.clone() for level in levels]
    generator = torch.Generator().manual_seed(2)
    for level, other, step in zip(levels, moved, (4, 2, 1), strict=True):
        patch = torch.randn(1, level.shape[1], 4 * step, 4 * step, generator=generator)
        level[:, :, 12 * step : 16 * step, 12 * step : 16 * step] = patch
        other[:, :, 17 * step : 21 * step, 15 * step : 19 * step] = patch
    first, second = decoder(ImageFeatures(*levels)), decoder(ImageFeatures(*moved))
    torch.testing.assert_close(first[..., 36:76, 36:76], second[..., 56:96, 48:88], rtol=1e-3, atol=1e-4)


def test_the_condition_carries_the_outlines(a_prior_with_outlines: Prior, features: ImageFeatures) -> None:
    with torch.no_grad():
        condition = a_prior_with_outlines.condition(features)
        assert condition.shape == (3, 16 + 2 * 16, 4, 4)
        outlines = a_prior_with_outlines.outlines(condition)
        torch.testing.assert_close(outlines, a_prior_with_outlines.outline_decoder(features))
        assert a_prior_with_outlines.presence(condition).shape == (3, 2)


def test_a_memory_follows_the_outline_of_its_own_organ(
    a_prior_with_outlines: Prior, features: ImageFeatures
) -> None:
    organs = torch.tensor([1, 1, 1])
    with torch.no_grad():
        condition = a_prior_with_outlines.condition(features)

        def generated(start: int) -> Tensor:
            changed = condition.clone()
            changed[:, start : start + 16] += 3
            return a_prior_with_outlines.denoise(noise(3), 999, changed, organs)

        unchanged = a_prior_with_outlines.denoise(noise(3), 999, condition, organs)
        assert torch.equal(generated(16), unchanged)
        assert not torch.allclose(generated(32), unchanged)


def test_only_their_own_loss_teaches_outlines(a_prior_with_outlines: Prior, features: ImageFeatures) -> None:
    organs = torch.tensor([0, 1, 0])
    condition = a_prior_with_outlines.condition(features)
    a_prior_with_outlines.denoise(noise(3), 999, condition, organs).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in a_prior_with_outlines.outline_decoder.parameters())
    a_prior_with_outlines.outlines(a_prior_with_outlines.condition(features)).sum().backward()
    assert all(
        p.grad is not None and p.grad.any() for p in a_prior_with_outlines.outline_decoder.head.parameters()
    )
