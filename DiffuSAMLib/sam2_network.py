"""Builds sam2's network from its YAML, without hydra's global state and without torchvision."""

from __future__ import annotations

import importlib
import importlib.util
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from .errors import InputError
from .resources import resource_path

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

SAM2_CONFIGS = {
    "sam2.1_tiny": "sam2.1_hiera_t.yaml",
    "sam2.1_small": "sam2.1_hiera_s.yaml",
    "sam2.1_base_plus": "sam2.1_hiera_b+.yaml",
    "sam2.1_large": "sam2.1_hiera_l.yaml",
}
# Sides of slices in pixels are multiples of it.
SIDE_STEP = 32


def _import_sam2() -> Path:
    """Imports sam2 and undoes the global hydra state that the import leaves.

    `sam2/__init__.py` initialises hydra for the whole process, after which any other hydra program in it fails.

    Returns:
        The folder of the package.

    Raises:
        InputError: sam2 is not installed.
    """
    spec = importlib.util.find_spec("sam2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "The Python package sam2 is not installed.",
            hint="Install it with: pip install --no-deps --no-build-isolation sam2==1.1.0",
        )
    from hydra.core.global_hydra import GlobalHydra

    initialised_by_others = GlobalHydra.instance().is_initialized()
    importlib.import_module("sam2")
    if not initialised_by_others:
        GlobalHydra.instance().clear()
    return Path(spec.submodule_search_locations[0])


class _Loader(yaml.SafeLoader):
    """Reads numbers like `1e-6` as OmegaConf does; plain YAML 1.1 takes them for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _instantiate(node: Any) -> Any:
    """Turns a YAML tree with `_target_` entries into objects, innermost first."""
    if isinstance(node, list):
        return [_instantiate(item) for item in node]
    if not isinstance(node, dict):
        return node
    arguments = {key: _instantiate(value) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return arguments
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**arguments)


# What is swapped is the whole process's: a second thread would take the first one's substitute for the original.
_swapping = threading.Lock()


@contextmanager
def _without_cuda() -> Iterator[None]:
    """Within the block PyTorch says that there is no GPU of NVIDIA's.

    Where one is listed, sam2 computes on it while it builds a network, whatever device that is for: a GPU that is full or
    unusable would fail what is to run on the processor. What it computes follows the network's input at the first use.
    """
    with _swapping:
        is_available = torch.cuda.is_available
        torch.cuda.is_available = lambda: False
        try:
            yield
        finally:
            torch.cuda.is_available = is_available


def network_config(name: str, *, image_size: int | None = None) -> dict[str, Any]:
    """The YAML tree of a backbone.

    Args:
        name: "compact" or one of `SAM2_CONFIGS`.
        image_size: Side of the square input in pixels; None keeps the file's own.

    Raises:
        InputError: The name is unknown, or the size is not a multiple of 32.
    """
    package = _import_sam2()
    if name == "compact":
        path = resource_path("Backbones", "compact.yaml")
    elif name in SAM2_CONFIGS:
        path = package / "configs" / "sam2.1" / SAM2_CONFIGS[name]
    else:
        raise InputError(
            f'There is no backbone "{name}".', hint=f"Choose one of: compact, {', '.join(SAM2_CONFIGS)}."
        )
    config: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)["model"]
    if image_size is not None:
        if image_size % SIDE_STEP or image_size <= 0:
            raise InputError(f"The image size must be a multiple of {SIDE_STEP}, not {image_size}.")
        config["image_size"] = image_size
        grid = [image_size // 16, image_size // 16]
        for attention in ("self_attention", "cross_attention"):
            config["memory_attention"]["layer"][attention]["feat_sizes"] = grid
    return config


def build_network(name: str, *, image_size: int | None = None, target: str | None = None) -> SAM2Base:
    """Builds a SAM2 network with fresh weights.

    Args:
        name: "compact" or one of `SAM2_CONFIGS`.
        image_size: Side of the square input in pixels; None keeps the configuration's own.
        target: Dotted class to build instead of `SAM2Base`, for example sam2's own video predictor.

    Raises:
        InputError: As `network_config`.
    """
    config = network_config(name, image_size=image_size)
    if target is not None:
        config["_target_"] = target
    with _without_cuda():
        return _instantiate(config)
