"""A prior on disk: one safetensors file whose readable JSON header holds all that inference needs.

Headers are read with the standard library alone, so that priors can be listed before torch is installed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import WeightsError
from .files import atomic_path, make_folder
from .json_values import to_json_value
from .safetensors_files import (
    DAMAGED_HINT,
    load_tensors,
    metadata_of,
    read_content,
    read_table,
    split_content,
)

if TYPE_CHECKING:
    from torch import Tensor

HEADER_KEY = "diffusam_prior"
SCHEMA_VERSION = 2


def _of_another_network(content: dict[str, Any]) -> dict[str, Any]:
    """Those priors read the image with a UNet, and generated memories without outlines to begin from."""
    raise WeightsError(
        f"The prior {content.get('name')} was made by an earlier DiffuSAM Segment, for a network that no longer exists.",
        hint="Train it again, with the same cases.",
    )


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _of_another_network}
"""For each older schema version, what turns its header into one of the next version, or refuses it."""

_MODALITIES = ("CT", "MR")
# Side of a slice in pixels.
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class PriorLabel:
    """One organ that a prior segments.

    Args:
        name: Name, for example "right kidney".
        value: Its number in our label maps, 1 to 255.
        color: Red, green and blue, 0 to 255.
        code: SNOMED CT code, empty if there is none.
        meaning: SNOMED CT meaning, empty if there is none.
    """

    name: str
    value: int
    color: tuple[int, int, int]
    code: str = ""
    meaning: str = ""

    def __post_init__(self) -> None:
        _require(bool(self.name.strip()), "a label has no name")
        _require(1 <= self.value <= 255, f"the value of {self.name} is not 1 to 255")
        is_color = len(self.color) == 3 and all(0 <= part <= 255 for part in self.color)
        _require(is_color, f"the color of {self.name} is not three numbers from 0 to 255")


@dataclass(frozen=True)
class BackboneReference:
    """The backbone that a prior was made for; it fits no other.

    Args:
        name: Name in the catalogue of weights.
        weights_sha256: Hash of the backbone's weights file, hexadecimal.
        image_size: Side of its square slices in pixels.
        memory_shape: Shape `(c, h, w)` of its memories.
    """

    name: str
    weights_sha256: str
    image_size: int
    memory_shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        _require(bool(self.name), "the backbone has no name")
        _require(
            1 <= self.image_size <= LARGEST_SIDE, f"the backbone's image size is not 1 to {LARGEST_SIDE}"
        )
        is_shape = len(self.memory_shape) == 3 and all(side > 0 for side in self.memory_shape)
        _require(is_shape, "the memory shape is not three positive numbers")


@dataclass(frozen=True)
class PriorHeader:
    """What a prior is: everything but its tensors.

    Args:
        name: Short name.
        title: Name for people.
        labels: Its organs, in the order of the network's classes.
        modalities: "CT", "MR" or both.
        backbone: The backbone it was made for.
        config: Configuration of the prior's network.
        preprocessing: How images become slices.
        training: Record of the training.
        licence: Licence of the weights.
        metrics: Measured figures.
        created: Date and time, ISO 8601.
        tensors_sha256: Hash of the tensors with their names, types and shapes; `write_prior` fills it in.

    Raises:
        WeightsError: A value is not possible.
    """

    name: str
    title: str
    labels: tuple[PriorLabel, ...]
    modalities: tuple[str, ...]
    backbone: BackboneReference
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    training: dict[str, Any]
    licence: str
    metrics: dict[str, Any]
    created: str
    tensors_sha256: str = ""

    def __post_init__(self) -> None:
        _require(bool(self.name), "the prior has no name")
        _require(bool(self.labels), "there are no labels")
        names, values = ([getattr(label, key) for label in self.labels] for key in ("name", "value"))
        _require(len(set(names)) == len(names), "a label name is there twice")
        _require(len(set(values)) == len(values), "a label value is there twice")
        is_known = bool(self.modalities) and set(self.modalities) <= set(_MODALITIES)
        _require(is_known, f"the modalities are not among {', '.join(_MODALITIES)}")

    def to_json(self) -> str:
        """The header as indented JSON; numbers that are not finite become null."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **to_json_value(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> PriorHeader:
        """Read a header, also one of an older schema.

        Raises:
            WeightsError: It is not a header, or one of a newer schema.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _malformed("it is not JSON") from error
        fields = _upgraded(content)
        backbone, training = _field(fields, "backbone", dict), _field(fields, "training", dict)
        for key in ("cases", "image_digests"):
            _list({key: [], **training}, key, str)
        labels = _list(fields, "labels", dict)
        return cls(
            name=_field(fields, "name", str),
            title=_field(fields, "title", str),
            labels=tuple(
                PriorLabel(
                    name=_field(label, "name", str),
                    value=_field(label, "value", int),
                    color=_triple(label, "color"),
                    code=_field(label, "code", str),
                    meaning=_field(label, "meaning", str),
                )
                for label in labels
            ),
            modalities=tuple(_list(fields, "modalities", str)),
            backbone=BackboneReference(
                name=_field(backbone, "name", str),
                weights_sha256=_field(backbone, "weights_sha256", str),
                image_size=_field(backbone, "image_size", int),
                memory_shape=_triple(backbone, "memory_shape"),
            ),
            config=_field(fields, "config", dict),
            preprocessing=_field(fields, "preprocessing", dict),
            training=training,
            licence=_field(fields, "licence", str),
            metrics=_field(fields, "metrics", dict),
            created=_field(fields, "created", str),
            tensors_sha256=_field(fields, "tensors_sha256", str),
        )


def write_prior(path: Path, header: PriorHeader, tensors: Mapping[str, Tensor]) -> PriorHeader:
    """Write a prior; the file appears only when it is complete.

    Args:
        path: File to write, ending in ``.safetensors``.
        header: What the prior is.
        tensors: Its tensors, stored in the types they have, from any device.

    Returns:
        The header as written, with the hash of the tensors.

    Raises:
        OutputError: The file cannot be written.
    """
    import safetensors.torch

    # Cloned, because the format refuses tensors that share memory.
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    table, data = split_content(safetensors.torch.save(plain))
    written = dataclasses.replace(header, tensors_sha256=_tensors_sha256(table, data))
    content = safetensors.torch.save(plain, metadata={HEADER_KEY: written.to_json()})
    make_folder(path.parent, to_write=path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return written


def read_header(path: Path) -> PriorHeader:
    """Read what a prior is, without its tensors; their hash is not checked.

    Raises:
        WeightsError: The file is missing, not readable, incomplete, pickled, not a prior, or too new.
    """
    return _header(path, read_table(path))


def read_prior(path: Path) -> tuple[PriorHeader, dict[str, Tensor]]:
    """Read a prior and check its tensors against the hash in its header.

    Returns:
        The header, and the tensors on the CPU in the types they were stored in.

    Raises:
        WeightsError: As `read_header`, or the tensors are not those that were written.
    """
    content = read_content(path)
    return _verified_header(path, content), load_tensors(path, content)


def verify_prior(path: Path) -> PriorHeader:
    """Check a prior as `read_prior` does, without torch and without making its tensors.

    Raises:
        WeightsError: As `read_prior`.
    """
    return _verified_header(path, read_content(path))


def _tensors_sha256(table: dict[str, Any], data: memoryview) -> str:
    """Hash of what the tensors are and hold, independent of the metadata."""
    tensors = {name: entry for name, entry in table.items() if name != "__metadata__"}
    digest = hashlib.sha256(json.dumps(tensors, sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()


def _header(path: Path, table: dict[str, Any]) -> PriorHeader:
    text = metadata_of(table).get(HEADER_KEY)
    if text is None:
        raise WeightsError(f"{path} is a safetensors file, but not a DiffuSAM prior.")
    try:
        return PriorHeader.from_json(text)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error.message}", hint=error.hint) from error


def _verified_header(path: Path, content: bytes) -> PriorHeader:
    table, data = split_content(content)
    header = _header(path, table)
    if _tensors_sha256(table, data) != header.tensors_sha256:
        raise WeightsError(f"{path} was changed after it was made: its hash differs.", hint=DAMAGED_HINT)
    return header


def _upgraded(content: Any) -> dict[str, Any]:
    """The header in the present schema."""
    if not isinstance(content, dict):
        raise _malformed("it is not a JSON object")
    version = _field(content, "schema_version", int)
    if version > SCHEMA_VERSION:
        raise WeightsError("The prior was made by a newer DiffuSAM Segment.", hint="Update DiffuSAM Segment.")
    while version < SCHEMA_VERSION:
        if version not in UPGRADES:
            raise _malformed(f"there is no schema version {version}")
        content = UPGRADES[version](content)
        version += 1
    return content


def _field(content: dict[str, Any], key: str, kind: type) -> Any:
    value = content.get(key)
    # A bool is an int to Python, but not to JSON.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _malformed(f"{key} is missing or of the wrong type")
    return value


def _list(content: dict[str, Any], key: str, kind: type) -> list[Any]:
    values = _field(content, key, list)
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise _malformed(f"{key} holds a value of the wrong type")
    return values


def _triple(content: dict[str, Any], key: str) -> tuple[int, int, int]:
    values = _list(content, key, int)
    if len(values) != 3:
        raise _malformed(f"{key} is not three numbers")
    return values[0], values[1], values[2]


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _malformed(otherwise)


def _malformed(reason: str) -> WeightsError:
    return WeightsError(f"The prior's header cannot be used: {reason}.")
