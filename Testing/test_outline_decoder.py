from __future__ import annotations

import pytest
import torch

from DiffuSAMLib.backbones import Backbone, ImageFeatures
from DiffuSAMLib.outline_decoder import OutlineDecoder, compete


def features_of(backbone: Backbone, *, slices: int = 2) -> ImageFeatures:
    images = torch.rand(slices, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone.encode_image(images)


def test_an_outline_has_a_quarter_of_the_slice(a_compact_backbone: Backbone) -> None:
    decoder = OutlineDecoder(a_compact_backbone.feature_channels, 3, width=8).eval()
    assert decoder(features_of(a_compact_backbone)).shape == (2, 3, 16, 16)


def test_every_level_of_features_has_a_say(a_compact_backbone: Backbone) -> None:
    decoder = OutlineDecoder(a_compact_backbone.feature_channels, 1, width=8).eval()
    features = features_of(a_compact_backbone)
    before = decoder(features)
    for level in range(3):
        levels = list(features.levels())
        levels[level] = torch.zeros_like(levels[level])
        assert not torch.allclose(decoder(ImageFeatures(*levels)), before, atol=1e-3)


def test_slices_beside_count_for_nothing_until_it_is_learnt(a_compact_backbone: Backbone) -> None:
    channels = a_compact_backbone.feature_channels
    alone = OutlineDecoder(channels, 2, width=8).eval()
    decoder = OutlineDecoder(channels, 2, width=8, sees_beside=True).eval()
    missing = decoder.load_state_dict(alone.state_dict(), strict=False).missing_keys
    assert missing == [f"project_beside.{level}.weight" for level in range(3)]
    features = features_of(a_compact_backbone, slices=3)
    between = features.between(features[[0, 0, 1]], features[[1, 2, 2]])
    torch.testing.assert_close(decoder(between), alone(features))
    for projection in decoder.project_beside:
        torch.nn.init.normal_(projection.weight)
    other = features.between(features[[0, 0, 1]], features[[0, 2, 2]])
    changed = (decoder(between) - decoder(other)).abs().amax((1, 2, 3)) > 1e-4
    assert changed.tolist() == [True, False, False]


def test_what_is_to_see_slices_beside_must_get_them(a_compact_backbone: Backbone) -> None:
    decoder = OutlineDecoder(a_compact_backbone.feature_channels, 2, width=8, sees_beside=True)
    with pytest.raises(ValueError, match="the features have none"):
        decoder(features_of(a_compact_backbone))


def test_organs_and_background_share_each_pixel() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0]).view(1, 3, 1, 1)
    weights = torch.tensor([1.0, 1.0, torch.e, 1 / torch.e])
    torch.testing.assert_close(compete(logits).flatten(), weights[1:] / weights.sum())
    certain = torch.tensor([30.0, -30.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(compete(certain).flatten(), torch.tensor([1.0, 0.0]))
