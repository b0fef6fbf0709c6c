"""What all slices of a volume tell together about the outlines in each: anatomy in three dimensions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .anatomy_network import AnatomyConfig, AnatomyNetwork
from .errors import WeightsError
from .files import atomic_path
from .resources import resource_path
from .safetensors_files import DAMAGED_HINT, read_safetensors

# Cells along each side of a slice: 5 to 7 mm each for an abdomen.
CELLS = 64
# Distance of slices for the network; volumes are resampled to it.
STEP_MM = 5.0
# Fewer slices than this are padded with resampled ones.
_FEWEST = 8
_KEY = "diffusam_anatomy"


def overview(squares: Tensor) -> Tensor:
    """A coarse look at slices: mean and standard deviation in each cell, `(2, n, 64, 64)`.

    Args:
        squares: Images `(n, s, s)` in `[0, 1]`.
    """
    mean, square = (F.adaptive_avg_pool2d(each, CELLS) for each in (squares, squares**2))
    return torch.stack([mean, (square - mean**2).clamp(min=0).sqrt()])


class Anatomy:
    """Corrects the outlines of slices by those of the whole volume.

    The paper's prior sees one slice; what follows from the others, that an organ has ended or goes on, or that there is
    only one of it, reaches it by the chain of memories alone (equation 3). Here outlines are made consistent before
    memories are generated from them.

    Args:
        network: Trained on damaged outlines.
        organs: Names of the prior's organs, in its order; those of the network are among them.

    Attributes:
        known: Places in the prior's organs of those that the network knows.
    """

    def __init__(self, network: AnatomyNetwork, organs: Sequence[str]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.known = [organs.index(organ) for organ in network.config.organs]

    def __call__(self, outlines: Tensor, image: Tensor, *, step: float) -> Tensor:
        """The outlines of the whole volume: probabilities `(n, known, 64, 64)`.

        Args:
            outlines: Probabilities `(n, known, 64, 64)` of all slices, from feet to head.
            image: `overview` of the slices.
            step: Their distance in mm.
        """
        count = len(outlines)
        resampled = (max(_FEWEST, round(count * step / STEP_MM)), CELLS, CELLS)
        logits = self.network(_along(outlines.transpose(0, 1), resampled), _along(image, resampled))
        likely = _along(logits[0], (count, CELLS, CELLS))[0].softmax(0)
        return likely[1:].transpose(0, 1).contiguous()


def _along(x: Tensor, shape: Sequence[int]) -> Tensor:
    """`(c, n, k, k)` resampled to `(1, c, *shape)`."""
    return F.interpolate(x[None], size=tuple(shape), mode="trilinear", align_corners=False)


def anatomy_path() -> Path:
    """Where the bundled network lies."""
    return resource_path("Weights", "abdomen-anatomy.safetensors")


@lru_cache(maxsize=1)
def load_anatomy(path: Path | None = None) -> AnatomyNetwork:
    """The network in a file of `save_anatomy`; None takes the bundled one.

    Raises:
        WeightsError: The file is missing, damaged, or holds something else.
    """
    path = path or anatomy_path()
    metadata, tensors = read_safetensors(path)
    try:
        config = AnatomyConfig.from_dict(json.loads(metadata[_KEY])["config"])
        network = AnatomyNetwork(config)
        network.load_state_dict({key: value.float() for key, value in tensors.items()})
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{path} does not hold an anatomy.", hint=DAMAGED_HINT) from error
    return network.eval().requires_grad_(False)


def save_anatomy(path: Path, network: AnatomyNetwork, *, training: dict[str, Any]) -> None:
    """Writes a network in half precision.

    Args:
        path: Of the safetensors file.
        network: To write.
        training: How it was trained, for the file's header.
    """
    import safetensors.torch

    tensors = {key: value.detach().half().contiguous() for key, value in network.state_dict().items()}
    header = {"schema_version": 1, "config": network.config.to_dict(), "training": training}
    with atomic_path(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors, metadata={_KEY: json.dumps(header)}))
