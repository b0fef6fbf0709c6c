"""Organ segmentation without prompts: frozen SAM2 and a diffusion prior over its memory (arXiv 2604.24719)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Segmenter", "load_prior", "train_prior", "__version__"]

if TYPE_CHECKING:
    from .segmenter import Segmenter
    from .train import train_prior
    from .weights import load_prior


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds; reading a version or an error class should not.
    if name == "Segmenter":
        from .segmenter import Segmenter

        return Segmenter
    if name == "load_prior":
        from .weights import load_prior

        return load_prior
    if name == "train_prior":
        from .train import train_prior

        return train_prior
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
