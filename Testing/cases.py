"""What several test files start from: small abdomens, and weights that find something in any image.

The networks are the real ones at 128 px with seeded random weights, whose object score is raised so that every
organ is "found" everywhere: masks are rich and exactly repeatable, and no test depends on how well the
bundled weights are trained.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import random_backbone

from DiffuSAMLib import catalogue
from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.content_hashes import sha256_of
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.labelled_stacks import LabelledStack
from DiffuSAMLib.prior import Prior, PriorConfig
from DiffuSAMLib.procedural import Abdomen, make_abdomen
from DiffuSAMLib.propagation import PropagationConfig
from DiffuSAMLib.resources import resource_path
from DiffuSAMLib.segmentation_files import write_scalar, write_segmentation
from DiffuSAMLib.segmenter import Segmenter, SegmentOptions
from DiffuSAMLib.terminology import segment_for
from DiffuSAMLib.volumes import Volume
from DiffuSAMLib.weights import LoadedBackbone, LoadedPrior, load_prior, save_backbone, save_prior

ORGANS = ("spleen", "right kidney", "left kidney", "liver")
LABEL_NAMES = "1=spleen,2=right kidney,3=left kidney,4=liver"
SIZE = 128
# Every organ in every slice, whatever the untrained outlines say.
EVERYWHERE = SegmentOptions(clean=False, propagation=PropagationConfig(presence=0.0))


@functools.cache
def small_abdomen(seed: int = 3, modality: Literal["CT", "MR"] = "CT") -> Abdomen:
    """10 slices of 96 x 96 pixels that hold all four organs."""
    return make_abdomen(seed, modality=modality, shape=(10, 96, 96), spacing=(3.5, 3.5, 20.0))


@functools.cache
def cropped_abdomen() -> Volume:
    """Four slices, non-square, of different spacing along all axes."""
    abdomen = small_abdomen().volume
    matrix = abdomen.geometry.matrix @ np.diag([1.0, 1.1, 1.0, 1.0])
    return Volume(abdomen.array[3:7, 8:88], Geometry((4, 80, 96), matrix), "CT", "cropped abdomen")


def write_case(folder: Path, name: str, abdomen: Abdomen) -> None:
    """`images/<name>.nii.gz` and `labels/<name>.nii.gz`."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    write_scalar(folder / "images" / f"{name}.nii.gz", abdomen.volume.array, abdomen.volume.geometry)
    segments = [segment_for(organ, value) for value, organ in abdomen.labels.names.items()]
    target = folder / "labels" / f"{name}.nii.gz"
    write_segmentation(target, abdomen.labels.array, abdomen.labels.geometry, segments)


def write_dicom(
    folder: Path, volume: Volume, *, slices: int | None = None, uid: str = "1.2.8", number: int = 1
) -> None:
    """An axial volume as DICOM files, named against the order of their positions."""
    (x, y, z), step = volume.geometry.origin, volume.geometry.spacing[2]
    array = volume.array[:slices].round().astype(np.int16)
    write_dicom_slices(
        folder,
        array,
        [(x, y, z + place * step) for place in range(len(array))],
        spacing=volume.geometry.spacing[:2],
        modality=volume.modality or "",
        uid=uid,
        number=number,
    )


def write_dicom_slices(
    folder: Path,
    array: np.ndarray,
    positions: Sequence[tuple[float, float, float]],
    *,
    spacing: tuple[float, float],
    modality: str,
    uid: str,
    number: int,
    description: str = "",
) -> None:
    """Axial slices `(n, y, x)`, int16, as the files of a series, named against their order.

    Args:
        folder: Made if it is not there.
        array: Their pixels.
        positions: Of each slice's first pixel, LPS mm.
        spacing: Along x and y, mm.
        modality: "CT", "MR" or neither.
        uid: Of the series.
        number: Of the series.
        description: Of the series; none if empty.
    """
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for place, (pixels, (x, y, z)) in enumerate(zip(array, positions, strict=True)):
        image = sitk.GetImageFromArray(pixels[None])
        image.SetSpacing((*spacing, 1.0))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1." + ("2" if modality == "CT" else "4"),
            "0008|0018": f"{uid}.{place + 1}",
            "0008|0060": modality,
            "0020|000d": "1.2.7",
            "0020|000e": uid,
            "0020|0011": str(number),
            "0020|0013": str(place + 1),
            "0020|0032": f"{x}\\{y}\\{z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        if description:
            tags["0008|103e"] = description
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{number}_{100 - place}.dcm"))
        writer.Execute(image)


def a_stack(
    name: str, *, slices: int = 20, first: int = 4, last: int = 16, organs: int = 2, side: int = 64
) -> LabelledStack:
    """Organs side by side on slices `first` to `last - 1`."""
    labels = np.zeros((slices, side, side), np.uint8)
    for organ in range(1, organs + 1):
        labels[first:last, 20:40, 10 * organ : 10 * organ + 8] = organ
    image = np.full((slices, side, side), 80, np.uint8) + 40 * labels
    return LabelledStack(name, "CT", image, labels, np.array([True, True]), (1.0, 1.0, 1.0))


def finding_backbone() -> Backbone:
    backbone = random_backbone("compact", image_size=SIZE)
    with torch.no_grad():
        backbone.network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias += 100
    return backbone


def finding_prior(backbone: Backbone) -> Prior:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        prior = Prior(PriorConfig.for_backbone(backbone, ORGANS))
    with torch.no_grad():
        # Outlines everywhere, of one organ or another.
        prior.outline_decoder.head.weight *= 100
        prior.outline_decoder.head.bias += 20
        torch.nn.init.normal_(prior.denoiser.conv_out.weight, std=0.1)
    return prior.eval().requires_grad_(False)


@functools.cache
def finding_segmenter() -> Segmenter:
    backbone = finding_backbone()
    return Segmenter(backbone, finding_prior(backbone))


def taught(segmenter: Segmenter, **changes: Any) -> Segmenter:
    """The same networks with a prior that has other fields in its configuration."""
    other = copy.copy(segmenter)
    other.prior = copy.copy(segmenter.prior)
    other.prior.config = replace(segmenter.prior.config, **changes)
    return other


@dataclass(frozen=True)
class Installation:
    """A `Resources` folder with random weights in place of the bundled ones."""

    resources: Path

    @property
    def prior(self) -> Path:
        return self.resources / "Weights" / "abdomen-prior.safetensors"

    @property
    def backbone(self) -> Path:
        return self.resources / "Weights" / "compact-backbone.safetensors"

    def use(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """Lets the catalogue look here and into a cache of the test's own."""
        monkeypatch.setattr(catalogue, "resource_path", self.resources.joinpath)
        monkeypatch.setenv("DIFFUSAM_HOME", str(cache))

    def load(self) -> LoadedPrior:
        return load_prior(self.prior, backbone_path=self.backbone)


def install_random_weights(resources: Path) -> Installation:
    installation = Installation(resources)
    installation.prior.parent.mkdir(parents=True)
    backbone = finding_backbone()
    save_backbone(
        installation.backbone, backbone.network.state_dict(), {"training_cases": ["seen_by_backbone"]}
    )
    save_prior(
        installation.prior,
        finding_prior(backbone).state_dict(),
        config=PriorConfig.for_backbone(backbone, ORGANS),
        backbone=LoadedBackbone(backbone, sha256_of(installation.backbone), ()),
        title="Random",
        modalities=("CT", "MR"),
        licence="Apache-2.0",
        training={"cases": ["seen_by_prior"]},
        metrics={},
    )
    content = json.loads(resource_path("Weights", "catalogue.json").read_text(encoding="utf-8"))
    for entry in content["weights"]:
        if entry["bundled"]:
            path = installation.prior.parent / entry["filename"]
            entry |= {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (installation.prior.parent / "catalogue.json").write_text(json.dumps(content), encoding="utf-8")
    return installation


# Every axis order that a file may have, as `reordered` takes it.
AXIS_ORDERS = [
    (axes, flips)
    for axes in itertools.permutations((0, 1, 2))
    for flips in itertools.product((False, True), repeat=3)
]


def reordered(volume: Volume, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Volume:
    """The same voxels at the same places in the world, stored in another axis order.

    Args:
        volume: The original.
        axes: Which old array axis each new array axis is.
        flips: Which new array axes run backwards.
    """
    array = np.transpose(volume.array, axes)
    # Columns of the matrix belong to x, y, z: array axes in reverse.
    columns = [volume.geometry.matrix[:3, 2 - axis].copy() for axis in axes]
    matrix = np.eye(4)
    matrix[:3, 3] = volume.geometry.matrix[:3, 3]
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis)
            matrix[:3, 3] += columns[axis] * (array.shape[axis] - 1)
            columns[axis] = -columns[axis]
        matrix[:3, 2 - axis] = columns[axis]
    z, y, x = array.shape
    return Volume(np.ascontiguousarray(array), Geometry((z, y, x), matrix), volume.modality, volume.source)


def restored(array: np.ndarray, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> np.ndarray:
    """What `reordered` did to an array, undone."""
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis)
    return np.transpose(array, np.argsort(axes))


def read_array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def files_in(folder: Path) -> Mapping[str, bytes]:
    """Every file under a folder, hidden ones too, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def json_events(output: str) -> list[dict[str, Any]]:
    """The lines of `--json-progress`, checked: ASCII, and exactly one `done` or `error`, at the end."""
    assert output.isascii()
    events: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    assert [event["event"] in ("done", "error") for event in events] == [False] * (len(events) - 1) + [True]
    assert {event["event"] for event in events[:-1]} <= {"progress", "slice", "check", "losses", "validation"}
    return events
