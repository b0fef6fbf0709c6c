"""Backbones and priors from and to files."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import __version__
from .backbones import Backbone
from .catalogue import locate
from .content_hashes import sha256_of
from .errors import WeightsError
from .files import atomic_path, make_folder
from .out_of_memory import is_out_of_memory, memory_error
from .prior import Prior, PriorConfig
from .prior_files import BackboneReference, PriorHeader, PriorLabel, read_prior, write_prior
from .safetensors_files import read_safetensors
from .terminology import segment_for
from .volumes import CT_WINDOW_HU, MR_PERCENTILES

BACKBONE_KEY = "diffusam_backbone"
# How this version makes slices of images; a prior that was trained on others would find nothing in them.
PREPROCESSING = {
    "ct_window_hu": list(CT_WINDOW_HU),
    "mr_percentiles": list(MR_PERCENTILES),
    "orientation": "axial, LPS",
}
# The image size at which a backbone is used unless told otherwise; the paper's for Meta's checkpoints.
DEFAULT_IMAGE_SIZE = {"compact": 256}
PAPER_IMAGE_SIZE = 512


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone with its origin.

    Attributes:
        backbone: Frozen.
        sha256: Of its weights file.
        training_cases: Names of the cases that its weights have seen, where that is known.
    """

    backbone: Backbone
    sha256: str
    training_cases: tuple[str, ...]


@dataclass(frozen=True)
class LoadedPrior:
    """A prior, its header, its file's hash and the backbone it was made for."""

    prior: Prior
    header: PriorHeader
    sha256: str
    backbone: LoadedBackbone

    @property
    def training_cases(self) -> tuple[str, ...]:
        """Every case that the prior's or the backbone's weights have seen."""
        return (*self.header.training.get("cases", ()), *self.backbone.training_cases)


def load_backbone(name: str, *, image_size: int | None = None, path: Path | None = None) -> LoadedBackbone:
    """A backbone with its weights.

    Args:
        name: "compact", "sam2.1_tiny", "sam2.1_small", "sam2.1_base_plus" or "sam2.1_large".
        image_size: Side of the slices; None takes 256 for compact, 512 for Meta's.
        path: Weights file; None takes the catalogue's.

    Raises:
        WeightsError: The file is missing, damaged, pickled in an unsafe way, or belongs to another network.
        InputError: There is no network for this image size, or sam2 is missing.
        OutOfMemoryError: The computer has too little memory for it.
    """
    path = path or locate(name)
    if image_size is None:
        image_size = DEFAULT_IMAGE_SIZE.get(name, PAPER_IMAGE_SIZE)
    backbone = Backbone(name, image_size=image_size)
    cases: tuple[str, ...] = ()
    if path.suffix == ".safetensors":
        metadata, tensors = read_safetensors(path)
        cases = _training_cases(path, metadata)
    else:
        tensors = _read_checkpoint(path)
    try:
        backbone.network.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=True)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise memory_error(str(path)) from error
        raise WeightsError(
            f"{path} does not hold the weights of {name}: its tensors have other names or shapes.",
            hint="Download or import it again.",
        ) from error
    return LoadedBackbone(backbone.freeze(), sha256_of(path), cases)


def _training_cases(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """From the record that `save_backbone` leaves; files made by others have none."""
    try:
        return tuple(json.loads(metadata.get(BACKBONE_KEY, "{}")).get("training_cases", ()))
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"The training record in {path} is damaged.", hint="Download it again.") from error


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Meta's layout: a torch file with the state dict under "model"."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"There is no file {path}.") from error
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror or error}).", hint="Check its permissions and its disk."
        ) from error
    except Exception as error:  # torch raises a different class for every kind of damage
        if is_out_of_memory(error):
            raise memory_error(str(path)) from error
        raise WeightsError(
            f"{path} is not a SAM2.1 checkpoint, or it is damaged.", hint="Download it again."
        ) from error
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise WeightsError(f'{path} is not a SAM2.1 checkpoint: it has no "model" weights.')
    return tensors


def save_backbone(path: Path, network: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Writes backbone weights in half precision, with a record of their training.

    Args:
        path: Ends in `.safetensors`.
        network: State of `Backbone.network`.
        record: JSON values; "training_cases" lists the cases that were seen.

    Raises:
        OutputError: The file cannot be written.
    """
    import safetensors.torch

    tensors = {key: value.detach().cpu().half().contiguous() for key, value in network.items()}
    content = safetensors.torch.save(tensors, metadata={BACKBONE_KEY: json.dumps(record)})
    make_folder(path.parent, to_write=path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def prior_path(name: str | Path) -> Path:
    """The file of a prior, from its path or its name in the catalogue.

    Raises:
        WeightsError: The name is unknown, or its file missing or damaged.
    """
    looks_like_path = isinstance(name, Path) or "/" in name or "\\" in name or name.endswith(".safetensors")
    return Path(name) if looks_like_path else locate(str(name))


def load_prior(name: str | Path = "abdomen", *, backbone_path: Path | None = None) -> LoadedPrior:
    """A prior with its backbone.

    Args:
        name: A name of the catalogue, or the path of a prior file.
        backbone_path: Weights of its backbone; None takes the catalogue's.

    Raises:
        WeightsError: A file is missing or damaged, or the prior was made for other backbone weights.
        InputError: sam2 is missing.
        OutOfMemoryError: The computer has too little memory for them.
    """
    path = prior_path(name)
    header, tensors = read_prior(path)
    backbone = load_backbone(header.backbone.name, image_size=header.backbone.image_size, path=backbone_path)
    if backbone.sha256 != header.backbone.weights_sha256:
        raise WeightsError(
            f"The prior {header.name} was made for other weights of the backbone {header.backbone.name}.",
            hint="Use the backbone weights it was trained with, or train the prior again.",
        )
    try:
        config = PriorConfig.from_dict(header.config)
        prior = Prior(config)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{path} describes a network that this version cannot build.", hint="Download or train it again."
        ) from error
    if header.preprocessing != PREPROCESSING:
        raise WeightsError(
            f"{path} was trained on images prepared in another way than this version does.",
            hint="Update DiffuSAM Segment, or train it again.",
        )
    network = backbone.backbone
    fits = (config.memory_channels, header.backbone.memory_shape, config.feature_channels) == (
        network.memory_shape[0],
        network.memory_shape,
        network.feature_channels,
    )
    if not fits or config.organs != tuple(label.name for label in header.labels):
        raise WeightsError(
            f"The header of {path} contradicts itself: its network, labels and backbone do not belong together.",
            hint="Download or train it again.",
        )
    try:
        prior.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=True)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise memory_error(str(path)) from error
        raise WeightsError(
            f"{path} is not a prior of this version: its tensors have other names or shapes.",
            hint="Download, import or train it again.",
        ) from error
    return LoadedPrior(prior, header, sha256_of(path), backbone)


def save_prior(
    path: Path,
    state: Mapping[str, Tensor],
    *,
    config: PriorConfig,
    backbone: LoadedBackbone,
    title: str,
    modalities: Sequence[str],
    licence: str,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> PriorHeader:
    """Writes a prior in half precision with everything that inference needs.

    Args:
        path: Ends in `.safetensors`; its stem becomes the prior's name.
        state: State of the `Prior`.
        config: Its shape.
        backbone: What it was trained with.
        title: Name for people.
        modalities: "CT", "MR" or both.
        licence: Licence of the weights.
        training: Record of the training; "cases" lists the cases that were seen.
        metrics: Measured figures.
    """
    segments = [segment_for(organ, value) for value, organ in enumerate(config.organs, start=1)]
    labels = []
    for segment in segments:
        red, green, blue = (round(255 * part) for part in segment.color)
        scheme_code_meaning = segment.terminology.split("~")[2].split("^")
        code, meaning = scheme_code_meaning[1], scheme_code_meaning[2]
        labels.append(PriorLabel(segment.name, segment.value, (red, green, blue), code, meaning))
    header = PriorHeader(
        name=path.name.removesuffix(".safetensors"),
        title=title,
        labels=tuple(labels),
        modalities=tuple(modalities),
        backbone=BackboneReference(
            name=backbone.backbone.name,
            weights_sha256=backbone.sha256,
            image_size=backbone.backbone.image_size,
            memory_shape=backbone.backbone.memory_shape,
        ),
        config=config.to_dict(),
        preprocessing=PREPROCESSING,
        training={"program_version": __version__, **training},
        licence=licence,
        metrics=dict(metrics),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
    return write_prior(path, header, {key: value.half() for key, value in state.items()})
