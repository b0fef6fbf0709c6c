"""Fixtures that several test files share: the real networks, small, with seeded random weights."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from torch import nn

from DiffuSAMLib import training, training_pictures
from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.prior import Prior, PriorConfig
from DiffuSAMLib.sam2_network import SAM2_CONFIGS

# Where the test host cannot start, the fixtures of the module skip what asks for them and say why.
pytest_plugins = [
    "refusals",
    "cohort_runs",
    "slicer_host.fixtures",
    "module_host",
    "module_training",
    "training_runs",
]


@torch.no_grad()
def fill_with_random_weights(network: nn.Module, *, seed: int) -> None:
    """Gives every parameter a say.

    Fresh networks start with encodings near zero and layer scales of 1e-6, so much of what a trained network
    does would pass through a comparison unnoticed.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        own = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
        for name, tensor in own:
            values = torch.randn(tensor.shape, generator=generator)
            if "Norm" in type(module).__name__:
                values = 0.1 * values + (name == "weight")
            elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                values *= 0.1 if name == "bias" else tensor[0].numel() ** -0.5
            tensor.copy_(values)


def random_backbone(name: str, *, image_size: int, seed: int = 0) -> Backbone:
    backbone = Backbone(name, image_size=image_size)
    fill_with_random_weights(backbone.network, seed=seed)
    return backbone.freeze()


def resized(backbone: Backbone, image_size: int) -> Backbone:
    """The same weights for slices of another size."""
    other = Backbone(backbone.name, image_size=image_size)
    other.network.load_state_dict(backbone.network.state_dict())
    return other.freeze()


def build_as_sam2_does(name: str, *overrides: str, postprocessing: bool) -> nn.Module:
    """A video predictor from sam2's own builder, that is with hydra.

    Args:
        name: As for `Backbone`, Meta's only.
        overrides: Hydra's.
        postprocessing: What sam2 switches on unless told otherwise.
    """
    from sam2.build_sam import build_sam2_video_predictor

    GlobalHydra.instance().clear()
    with initialize_config_module("sam2", version_base="1.2"):
        return build_sam2_video_predictor(
            f"configs/sam2.1/{SAM2_CONFIGS[name]}",
            device="cpu",
            apply_postprocessing=postprocessing,
            hydra_overrides_extra=list(overrides),
        )


@pytest.fixture(scope="session")
def a_compact_backbone() -> Backbone:
    """At 64 px, so that memories are 4 x 4."""
    return random_backbone("compact", image_size=64)


@pytest.fixture(scope="session")
def a_sam21_tiny_backbone() -> Backbone:
    """Meta's architecture at 128 px."""
    return random_backbone("sam2.1_tiny", image_size=128)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where weights are kept, in place of the user's folder; nobody has made it yet."""
    monkeypatch.setenv("DIFFUSAM_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def quick_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a training measures before its first iteration, and draws after its last, is of a few slices only.

    Of all, it would be most of the time of a training of four iterations. `monkeypatch.undo()` brings them back.
    """
    monkeypatch.setattr(training, "MEASURED", 6)
    monkeypatch.setattr(training_pictures, "SCATTER_SLICES", 8)


@pytest.fixture
def a_small_prior(a_compact_backbone: Backbone) -> Prior:
    torch.manual_seed(0)
    config = PriorConfig.for_backbone(
        a_compact_backbone, ("spleen", "liver"), width=(16, 32), outline_width=8
    )
    prior = Prior(config).eval()
    # As if it had learnt something: a new one generates memories of outlines as they are.
    torch.nn.init.normal_(prior.denoiser.conv_out.weight, std=0.1)
    return prior
