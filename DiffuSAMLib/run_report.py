"""The record of a run: what went in, what made it, how long it took and what came out."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .files import atomic_path
from .json_values import to_json_value

SCHEMA_VERSION = 1
REPORTED_PACKAGES = ("torch", "sam2", "diffusers", "numpy", "SimpleITK")


@dataclass(frozen=True)
class InputRecord:
    """The image that was read.

    Attributes:
        path: File or DICOM folder.
        sha256: Hex digest of the content.
        modality: `CT` or `MR`.
        shape: Voxels `(z, y, x)`.
        matrix: 4 x 4, voxel index (x, y, z, 1) to world LPS in mm.
        series_uid: UID of the DICOM series that was read; None where it was none or has no UID.
        warnings: What was odd about the image, or strange to the prior, as sentences.
    """

    path: Path
    sha256: str
    modality: str
    shape: tuple[int, int, int]
    matrix: list[list[float]]
    series_uid: str | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class WeightsRecord:
    """A prior or backbone: its name and the sha256 of its file as a hex digest."""

    name: str
    sha256: str


@dataclass(frozen=True)
class OrganRecord:
    """What was found of one organ.

    Attributes:
        name: Organ name.
        value: Its number in the label map.
        voxels: Number of voxels.
        volume_ml: Volume in ml.
        present: Whether any voxel was found.
        mean_confidence: Mean confidence over its voxels, 0 to 1; None when absent or not computed.
    """

    name: str
    value: int
    voxels: int
    volume_ml: float
    present: bool
    mean_confidence: float | None


@dataclass(frozen=True)
class RunReport:
    """Everything needed to understand or repeat a run.

    Attributes:
        program_version: Version of this program.
        inputs: The images that were read.
        prior: The diffusion prior.
        backbone: The frozen backbone.
        seed: Seed of the sampling.
        device: Device the networks ran on, such as `cpu` or `cuda:0`.
        options: Options of the run, by name.
        timings: Seconds per stage.
        organs: What was found.
        peak_memory_mb: Highest resident memory of the process in MB; None where the system does not tell.
        cuda_peak_memory_mb: Highest GPU memory held by tensors in MB; None without CUDA.
        versions: Versions of Python and of the packages that decide the result.
    """

    program_version: str
    inputs: Sequence[InputRecord]
    prior: WeightsRecord
    backbone: WeightsRecord
    seed: int
    device: str
    options: Mapping[str, Any]
    timings: Mapping[str, float]
    organs: Sequence[OrganRecord]
    peak_memory_mb: float | None
    cuda_peak_memory_mb: float | None = None
    versions: Mapping[str, str | None] = field(default_factory=lambda: package_versions())

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values, with its `schema_version` first."""
        return {"schema_version": SCHEMA_VERSION, **to_json_value(self)}

    def write(self, path: Path) -> None:
        """Write the report as an indented JSON file that appears only when complete.

        Raises:
            OutputError: The file cannot be written.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(
                json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n", encoding="ascii"
            )


def organ_records(
    labels: np.ndarray,
    values: Mapping[str, int],
    *,
    voxel_volume_ml: float,
    confidence_levels: np.ndarray | None = None,
) -> list[OrganRecord]:
    """Count what was found of each organ.

    Args:
        labels: Labels `(z, y, x)`, uint8.
        values: Organ name to label number.
        voxel_volume_ml: Volume of a voxel in ml.
        confidence_levels: Confidence `(z, y, x)` times 255, uint8.

    Returns:
        One record per organ, in the order of `values`.
    """
    records = []
    for name, value in values.items():
        # Organ by organ: counting all at once would make a copy of eight bytes a voxel.
        mask = labels == value
        voxels = int(np.count_nonzero(mask))
        mean = None
        if confidence_levels is not None and voxels:
            mean = float(confidence_levels[mask].mean(dtype=np.float64)) / 255
        records.append(OrganRecord(name, value, voxels, voxels * voxel_volume_ml, voxels > 0, mean))
    return records


def package_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide the result; None for one that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions
