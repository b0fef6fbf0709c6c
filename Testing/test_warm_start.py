from __future__ import annotations

from pathlib import Path

import pytest
import torch

from DiffuSAMLib.errors import InputError, WeightsError
from DiffuSAMLib.prior import ORGAN_WEIGHTS, Prior, PriorConfig
from DiffuSAMLib.warm_start import begin_with, earlier_prior, read_earlier
from DiffuSAMLib.weights import LoadedBackbone, load_backbone, load_prior

ABDOMEN = ("spleen", "right kidney", "left kidney", "liver")


@pytest.fixture(scope="module")
def bundled() -> LoadedBackbone:
    return load_backbone("compact")


def config_of(bundled: LoadedBackbone, *organs: str, **options: object) -> PriorConfig:
    """Of a prior that sees as far as the bundled one."""
    return PriorConfig.for_backbone(bundled.backbone, organs, **{"reach_mm": 9.0, **options})


def test_the_bundled_prior_is_begun_with_where_it_fits(bundled: LoadedBackbone) -> None:
    assert earlier_prior("auto", bundled, config_of(bundled, "pancreas")) is not None
    for other in ({"width": (32, 64)}, {"kind": "regression"}, {"training_steps": 10}):
        assert earlier_prior("auto", bundled, config_of(bundled, "pancreas", **other)) is None
    assert earlier_prior("none", bundled, config_of(bundled, "pancreas")) is None


def test_it_is_begun_with_by_a_prior_that_sees_no_slices_beside(bundled: LoadedBackbone) -> None:
    config = config_of(bundled, "pancreas", reach_mm=0.0)
    earlier = earlier_prior("auto", bundled, config)
    assert earlier is not None
    prior = Prior(config)
    begin_with(prior, earlier)
    torch.testing.assert_close(
        prior.outline_decoder.narrow[0].weight, earlier.tensors["outline_decoder.narrow.0.weight"].float()
    )


def test_it_tells_how_many_cases_it_knows_an_organ_from(bundled: LoadedBackbone) -> None:
    earlier = earlier_prior("auto", bundled, config_of(bundled, "pancreas"))
    assert earlier is not None
    assert earlier.cases_of(["pancreas", "Liver"]) == set(earlier.header.training["cases"])
    assert earlier.cases_of(["pancreas"]) == set()


def test_organs_known_by_name_are_taken_over(bundled: LoadedBackbone) -> None:
    """Whatever their order and letter case, and beside organs that are new."""
    earlier = earlier_prior("abdomen", bundled, config_of(bundled, *ABDOMEN))
    assert earlier is not None
    old = load_prior("abdomen").prior.eval()
    new = Prior(config_of(bundled, "Liver", "pancreas", "SPLEEN")).eval()
    begin_with(new, earlier)
    generator = torch.Generator().manual_seed(0)
    slices = torch.rand(2, 3, 256, 256, generator=generator)
    features = bundled.backbone.encode_image(slices)
    features = features.between(features[[1, 0]], features[[0, 0]])
    noisy = torch.randn(2, 32, 16, 16, generator=generator)
    with torch.no_grad():
        for mine, theirs in ((0, 3), (2, 0)):
            logits = [
                prior.outline_decoder(features)[:, organ] for prior, organ in ((new, mine), (old, theirs))
            ]
            torch.testing.assert_close(*logits)
            outlines = logits[0].sigmoid()
            generated = [
                prior.denoise(noisy, 999, outlines, torch.full((2,), organ))
                for prior, organ in ((new, mine), (old, theirs))
            ]
            torch.testing.assert_close(*generated)


def test_the_same_organs_give_the_same_prior(bundled: LoadedBackbone) -> None:
    earlier = earlier_prior("abdomen", bundled, config_of(bundled, *ABDOMEN))
    assert earlier is not None
    same = Prior(config_of(bundled, *ABDOMEN))
    begin_with(same, earlier)
    for name, value in load_prior("abdomen").prior.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], value)


def test_a_new_organ_begins_with_weights_of_its_own(bundled: LoadedBackbone) -> None:
    config = config_of(bundled, "pancreas")
    earlier = earlier_prior("auto", bundled, config)
    assert earlier is not None
    prior = Prior(config)
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    begin_with(prior, earlier)
    for name, value in prior.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(ORGAN_WEIGHTS), name


def test_of_a_prior_of_another_shape_what_fits_is_taken(bundled: LoadedBackbone) -> None:
    config = config_of(bundled, *reversed(ABDOMEN), width=(32, 64), outline_width=16)
    earlier = earlier_prior("abdomen", bundled, config)
    assert earlier is not None
    prior = Prior(config)
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    begin_with(prior, earlier)
    after = prior.state_dict()
    assert torch.equal(after["latent_deviation"], earlier.tensors["latent_deviation"].float())
    assert torch.equal(
        after["outline_decoder.head.bias"], earlier.tensors["outline_decoder.head.bias"].flip(0).float()
    )
    for name in ("outline_decoder.head.weight", "denoiser.class_embedding.weight"):
        assert torch.equal(after[name], before[name])


def test_a_prior_of_other_weights_of_the_backbone_is_begun_with_on_request(bundled: LoadedBackbone) -> None:
    other = LoadedBackbone(bundled.backbone, "0" * 64, ())
    assert earlier_prior("auto", other, config_of(bundled, "pancreas")) is None
    assert earlier_prior("abdomen", other, config_of(bundled, "pancreas")) is not None


def test_a_prior_of_another_backbone_is_refused(bundled: LoadedBackbone, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"made for the backbone compact, not sam2\.1_tiny"):
        read_earlier("abdomen", "sam2.1_tiny")
    with pytest.raises(WeightsError):
        earlier_prior(str(tmp_path / "missing.safetensors"), bundled, config_of(bundled, "pancreas"))
