from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from DiffuSAMLib.backbones import Backbone, mask_to_logits
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.outline_decoder import compete
from DiffuSAMLib.prior import FEWEST_PIXELS, Prior, PriorConfig, outline_memory

ORGANS = torch.tensor([0, 1, 1])


@pytest.fixture
def a_regression_prior(a_small_prior: Prior) -> Prior:
    prior = Prior(replace(a_small_prior.config, kind="regression"))
    prior.load_state_dict(a_small_prior.state_dict())
    return prior.eval()


@pytest.fixture
def outlines() -> Tensor:
    """Of one organ in each of three slices."""
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))


def noise(seed: int = 0, count: int = 3) -> Tensor:
    return torch.randn(count, 32, 4, 4, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sampled(prior: Prior, outlines: Tensor, *, steps: int, seed: int = 0) -> Tensor:
    return prior.sample(outlines, ORGANS, steps=steps, noise=noise(seed))


def test_shapes_are_those_of_the_memory(a_small_prior: Prior, outlines: Tensor) -> None:
    for timestep in (999, torch.tensor([0, 500, 999])):
        clean = a_small_prior.denoise(noise(), timestep, outlines, ORGANS)
        assert clean.shape == noise().shape


def test_outlines_of_a_slice_exclude_each_other(a_small_prior: Prior, a_compact_backbone: Backbone) -> None:
    slices = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    features = a_compact_backbone.encode_image(slices)
    found = a_small_prior.outlines(features)
    assert found.shape == (3, 2, 16, 16)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found.sum(1) < 1).all()
    torch.testing.assert_close(found, compete(a_small_prior.outline_decoder(features)))


def test_an_organ_is_present_from_a_few_pixels_on(a_small_prior: Prior) -> None:
    found = torch.zeros(3, 2, 16, 16)
    found[1, 0].flatten()[: FEWEST_PIXELS - 1] = 1
    found[1, 1].flatten()[:FEWEST_PIXELS] = 1
    found[2, 0].flatten()[:100] = 1
    found[2, 1] = 0.5
    presence = a_small_prior.presence(found)
    assert (presence >= 0.5).tolist() == [[False, False], [False, True], [True, False]]
    assert presence[0].tolist() == [0, 0]
    assert presence[1, 1] < presence[2, 0] < 1


def test_a_new_prior_gives_the_memories_of_its_outlines(a_small_prior: Prior, outlines: Tensor) -> None:
    fresh = Prior(a_small_prior.config).eval()
    assert not sampled(fresh, outlines, steps=2).any()


def test_training_and_sampling_start_at_pure_noise(a_small_prior: Prior) -> None:
    scheduler = a_small_prior.scheduler
    assert scheduler.alphas_cumprod[-1] == 0
    assert scheduler.config.prediction_type == "sample"
    last = torch.tensor([999])
    assert torch.equal(scheduler.add_noise(torch.ones(1, 1), torch.zeros(1, 1), last), torch.zeros(1, 1))


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_the_same_noise_gives_the_same_latent(a_small_prior: Prior, outlines: Tensor, steps: int) -> None:
    first = sampled(a_small_prior, outlines, steps=steps)
    assert first.shape == noise().shape
    assert torch.isfinite(first).all()
    assert torch.equal(first, sampled(a_small_prior, outlines, steps=steps))
    assert not torch.allclose(first, sampled(a_small_prior, outlines, steps=steps, seed=1), atol=1e-3)


def test_samples_do_not_depend_on_their_batch(a_small_prior: Prior, outlines: Tensor) -> None:
    together = sampled(a_small_prior, outlines, steps=2)
    for row in range(3):
        part = slice(row, row + 1)
        with torch.no_grad():
            alone = a_small_prior.sample(outlines[part], ORGANS[part], steps=2, noise=noise()[part])
        assert torch.allclose(together[part], alone, atol=1e-5)


def test_organs_and_images_make_a_difference(a_small_prior: Prior, outlines: Tensor) -> None:
    same_noise = noise(count=1).expand(2, -1, -1, -1)
    with torch.no_grad():
        organs = a_small_prior.sample(outlines[[0, 0]], torch.tensor([0, 1]), steps=2, noise=same_noise)
        images = a_small_prior.sample(outlines[[0, 1]], torch.tensor([0, 0]), steps=2, noise=same_noise)
    assert not torch.allclose(organs[0], organs[1], atol=1e-3)
    assert not torch.allclose(images[0], images[1], atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_sampling_is_the_ddim_of_diffusers(a_small_prior: Prior, outlines: Tensor, steps: int) -> None:
    scheduler = a_small_prior.scheduler
    scheduler.set_timesteps(steps)
    latent = noise()
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            clean = a_small_prior.denoise(latent, timestep, outlines, ORGANS)
            latent = scheduler.step(clean, timestep, latent).prev_sample
    assert torch.allclose(sampled(a_small_prior, outlines, steps=steps), latent, atol=1e-4)


@pytest.mark.parametrize(("steps", "length"), [(1, 1000), (7, 1000), (61, 1000), (13, 20), (20, 20)])
def test_any_number_of_steps_runs_from_the_last_timestep_down(
    a_small_prior: Prior, outlines: Tensor, steps: int, length: int
) -> None:
    # 61 is one of the numbers for which diffusers' own list has a step too many.
    prior = Prior(replace(a_small_prior.config, training_steps=length)).eval()
    seen: list[int] = []
    prior.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(int(inputs[1])))
    with torch.no_grad():
        prior.sample(outlines[:1], ORGANS[:1], steps=steps, noise=noise(count=1))
    assert len(seen) == steps
    assert seen[0] == length - 1
    assert min(seen) >= 0
    strides = [earlier - later for earlier, later in pairwise(seen)]
    assert not strides or max(strides) - min(strides) <= 1


@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_steps_out_of_range_are_refused(
    a_small_prior: Prior, a_regression_prior: Prior, outlines: Tensor, steps: int
) -> None:
    for prior in (a_small_prior, a_regression_prior):
        with pytest.raises(InputError, match=f"must be 1 to 1000, not {steps}"):
            sampled(prior, outlines, steps=steps)


def test_regression_ignores_noise_and_steps(a_regression_prior: Prior, outlines: Tensor) -> None:
    first = sampled(a_regression_prior, outlines, steps=2)
    assert torch.equal(first, sampled(a_regression_prior, outlines, steps=50, seed=1))


def test_latents_are_the_inverse_of_memories(a_small_prior: Prior, a_compact_backbone: Backbone) -> None:
    a_small_prior.latent_deviation.copy_(torch.rand(32, 1, 1) + 0.1)
    features = a_compact_backbone.encode_image(torch.rand(2, 3, 64, 64))
    masks = torch.zeros(2, 1, 64, 64)
    masks[:, :, 10:40, 20:50] = 1
    outlined = outline_memory(a_compact_backbone, features, torch.zeros(2, 16, 16))
    memory = a_compact_backbone.encode_memory(features, mask_to_logits(masks))
    latent = a_small_prior.to_latent(memory, outlined)
    assert torch.allclose(a_small_prior.to_memory(latent, outlined), memory, atol=1e-5)
    assert (a_small_prior.to_latent(outlined, outlined) == 0).all()
    assert latent.abs().max() > 0.1


def test_outlines_are_remembered_like_masks(a_compact_backbone: Backbone) -> None:
    features = a_compact_backbone.encode_image(torch.rand(2, 3, 64, 64))
    outlines = torch.zeros(2, 16, 16)
    outlines[0, 4:8, 4:12] = 1
    masks = torch.nn.functional.interpolate(outlines[:, None], scale_factor=4, mode="bilinear") > 0.5
    expected = a_compact_backbone.encode_memory(
        features, mask_to_logits(masks), object_score=torch.ones(2, 1)
    )
    found = outline_memory(a_compact_backbone, features, outlines)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_configuration_survives_json(a_small_prior: Prior) -> None:
    config = a_small_prior.config
    values = {
        key: list(value) if isinstance(value, tuple) else value for key, value in config.to_dict().items()
    }
    assert PriorConfig.from_dict(values) == config


def test_any_number_of_labels_has_its_embedding(a_compact_backbone: Backbone) -> None:
    names = tuple(f"organ {number}" for number in range(30))
    config = PriorConfig.for_backbone(a_compact_backbone, names, width=(16, 32), outline_width=8)
    assert Prior(config).denoiser.class_embedding.num_embeddings == 30


def test_metas_backbones_get_a_wider_prior(
    a_compact_backbone: Backbone, a_sam21_tiny_backbone: Backbone
) -> None:
    compact = PriorConfig.for_backbone(a_compact_backbone, ("liver",))
    tiny = PriorConfig.for_backbone(a_sam21_tiny_backbone, ("liver",))
    assert (compact.memory_channels, tiny.memory_channels) == (32, 64)
    assert tiny.width[0] > compact.width[0]
    assert tiny.feature_channels == (32, 64, 256)


def test_two_slices_can_be_learnt_by_heart(a_small_prior: Prior, a_compact_backbone: Backbone) -> None:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        features = a_compact_backbone.encode_image(torch.rand(2, 3, 64, 64, generator=generator))
        masks = torch.zeros(2, 1, 64, 64)
        masks[0, :, :32, :32] = masks[1, :, 20:60, 30:60] = 1
        outlines = torch.nn.functional.avg_pool2d(masks.roll(8, 3), 4)[:, 0]
        outlined = outline_memory(a_compact_backbone, features, outlines)
        memory = a_compact_backbone.encode_memory(features, mask_to_logits(masks))
        a_small_prior.latent_deviation.copy_((memory - outlined).std((0, 2, 3))[:, None, None])
        latent = a_small_prior.to_latent(memory, outlined)
    organs, scheduler = torch.tensor([0, 1]), a_small_prior.train().scheduler
    optimizer = torch.optim.Adam(a_small_prior.parameters(), lr=3e-3)
    losses = []
    for _ in range(45):
        timestep = torch.randint(0, 1000, (2,), generator=generator)
        noisy = scheduler.add_noise(latent, torch.randn(latent.shape, generator=generator), timestep)
        clean = a_small_prior.denoise(noisy, timestep, outlines, organs)
        loss = (clean - latent).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    a_small_prior.eval()
    with torch.no_grad():
        found = a_small_prior.sample(outlines, organs, steps=2, noise=noise(count=2))
    assert (found - latent).square().mean() < 0.2 * latent.square().mean()
