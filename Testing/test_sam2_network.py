from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from conftest import build_as_sam2_does
from torch import nn

from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.sam2_network import build_network

PREDICTOR = "sam2.sam2_video_predictor.SAM2VideoPredictor"
PLAIN = (bool, int, float, str, type(None))
# Millions of parameters, as published with the SAM2.1 checkpoints.
PUBLISHED_SIZES = {
    "sam2.1_tiny": 38.9,
    "sam2.1_small": 46.0,
    "sam2.1_base_plus": 80.8,
    "sam2.1_large": 224.4,
}


def description(network: nn.Module) -> list[tuple[str, str, dict[str, Any]]]:
    """Every module with its class and all its plain settings; hydra's lists count as lists."""
    rows = []
    for name, module in network.named_modules():
        settings = {}
        for key, value in vars(module).items():
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = list(value)
            if all(isinstance(item, PLAIN) for item in (value if isinstance(value, list) else [value])):
                settings[key] = value
        rows.append((name, type(module).__qualname__, settings))
    return rows


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("sam2.1_tiny", 512),
        ("sam2.1_tiny", 1024),
        ("sam2.1_small", 1024),
        ("sam2.1_base_plus", 512),
        ("sam2.1_large", 1024),
    ],
)
def test_a_network_built_without_hydra_is_the_one_that_sam2_builds(name: str, image_size: int) -> None:
    side, attention = image_size // 16, "++model.memory_attention.layer"
    theirs = build_as_sam2_does(
        name,
        f"++model.image_size={image_size}",
        f"{attention}.self_attention.feat_sizes=[{side},{side}]",
        f"{attention}.cross_attention.feat_sizes=[{side},{side}]",
        postprocessing=False,
    )
    their_description = description(theirs)
    their_shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    del theirs
    ours = build_network(name, image_size=image_size, target=PREDICTOR)
    assert description(ours.eval()) == their_description
    assert {key: value.shape for key, value in ours.state_dict().items()} == their_shapes
    millions = sum(parameter.numel() for parameter in ours.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED_SIZES[name], abs=0.1)


def test_the_backbone_has_exactly_the_weights_of_the_video_predictor() -> None:
    backbone = build_network("sam2.1_tiny", image_size=512).state_dict()
    predictor = build_network("sam2.1_tiny", target=PREDICTOR).state_dict()
    assert {key: value.shape for key, value in backbone.items()} == {
        key: value.shape for key, value in predictor.items()
    }


def test_the_compact_backbone_has_about_four_million_parameters(a_compact_backbone: Backbone) -> None:
    assert sum(parameter.numel() for parameter in a_compact_backbone.parameters()) == pytest.approx(
        4.1e6, rel=0.05
    )


def test_building_needs_no_torchvision_and_leaves_no_hydra_behind() -> None:
    run_python("""
        import sys
        from DiffuSAMLib.backbones import Backbone
        Backbone("compact")
        assert not [name for name in sys.modules if name.split(".")[0] == "torchvision"]
        from hydra.core.global_hydra import GlobalHydra
        assert not GlobalHydra.instance().is_initialized()
    """)


def test_another_programs_hydra_stays_as_it_was() -> None:
    run_python("""
        from hydra import initialize_config_module
        from hydra.core.global_hydra import GlobalHydra
        initialize_config_module("hydra.conf", version_base="1.2")
        before = GlobalHydra.instance().hydra
        from DiffuSAMLib.sam2_network import network_config
        network_config("sam2.1_tiny")
        assert GlobalHydra.instance().hydra is before
    """)


def test_an_unknown_backbone_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match=r'no backbone "sam3".*compact, sam2.1_tiny'):
        build_network("sam3")


@pytest.mark.parametrize("image_size", [0, -32, 100, 500])
def test_an_image_size_off_the_grid_is_refused(image_size: int) -> None:
    with pytest.raises(InputError, match=f"multiple of 32, not {image_size}"):
        build_network("compact", image_size=image_size)


def test_dropout_is_off_once_frozen(a_sam21_tiny_backbone: Backbone) -> None:
    assert not any(module.training for module in a_sam21_tiny_backbone.modules())
    assert not any(parameter.requires_grad for parameter in a_sam21_tiny_backbone.parameters())
    assert a_sam21_tiny_backbone.device == torch.device("cpu")
