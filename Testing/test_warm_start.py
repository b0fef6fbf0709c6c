from __future__ import annotations

from pathlib import Path

import pytest
import torch

from DiffuSAMLib.errors import InputError, WeightsError
from DiffuSAMLib.prior import ORGAN_WEIGHTS, Prior, PriorConfig
from DiffuSAMLib.warm_start import begin_with, earlier_prior
from DiffuSAMLib.weights import LoadedBackbone, load_backbone, load_prior

ABDOMEN = ("spleen", "right kidney", "left kidney", "liver")


@pytest.fixture(scope="module")
def bundled() -> LoadedBackbone:
    return load_backbone("compact")


def config_of(bundled: LoadedBackbone, *organs: str, **options: object) -> PriorConfig:
    return PriorConfig.for_backbone(bundled.backbone, organs, **options)


def test_the_bundled_prior_is_begun_with_where_it_fits(bundled: LoadedBackbone) -> None:
    assert earlier_prior("auto", bundled, config_of(bundled, "pancreas")) is not None
    for other in ({"width": (16, 32)}, {"kind": "regression"}, {"training_steps": 10}):
        assert earlier_prior("auto", bundled, config_of(bundled, "pancreas", **other)) is None
    assert earlier_prior("none", bundled, config_of(bundled, "pancreas")) is None


def test_organs_known_by_name_are_taken_over(bundled: LoadedBackbone) -> None:
    """Whatever their order, and beside organs that are new."""
    earlier = earlier_prior("abdomen", bundled, config_of(bundled, *ABDOMEN))
    assert earlier is not None
    old = load_prior("abdomen").prior.eval()
    new = Prior(config_of(bundled, "liver", "pancreas", "spleen")).eval()
    begin_with(new, earlier)
    generator = torch.Generator().manual_seed(0)
    condition = torch.randn(2, 80, 16, 16, generator=generator)
    noisy = torch.randn(2, 32, 16, 16, generator=generator)
    with torch.no_grad():
        for mine, theirs in ((0, 3), (2, 0)):
            torch.testing.assert_close(new.outlines(condition)[:, mine], old.outlines(condition)[:, theirs])
            generated = [
                prior.denoise(noisy, 999, condition, torch.full((2,), organ))
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
    config = config_of(bundled, *reversed(ABDOMEN), width=(16, 32), condition_width=(80, 128))
    earlier = earlier_prior("abdomen", bundled, config)
    assert earlier is not None
    prior = Prior(config)
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    begin_with(prior, earlier)
    after = prior.state_dict()
    assert torch.equal(after["project.weight"], earlier.tensors["project.weight"].float())
    assert torch.equal(
        after["outline_head.weight"][:16], earlier.tensors["outline_head.weight"][-16:].float()
    )
    embedding = "denoiser.class_embedding.weight"
    assert torch.equal(after[embedding], before[embedding])


def test_a_prior_of_another_backbone_is_refused(bundled: LoadedBackbone, tmp_path: Path) -> None:
    other = LoadedBackbone(bundled.backbone, "0" * 64, ())
    assert earlier_prior("auto", other, config_of(bundled, "pancreas")) is None
    with pytest.raises(InputError, match="made for another backbone"):
        earlier_prior("abdomen", other, config_of(bundled, "pancreas"))
    with pytest.raises(WeightsError):
        earlier_prior(str(tmp_path / "missing.safetensors"), bundled, config_of(bundled, "pancreas"))
