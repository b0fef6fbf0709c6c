"""Label maps: whole numbers on a grid, with names where the file tells them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .geometry import Geometry
from .image_files import geometry_of, read_image
from .image_formats import FORMATS_HINT
from .utf8_names import as_utf8

# Labels are bytes, 0 the background.
MOST_SEGMENTS = 255


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Labels of a volume.

    Args:
        array: uint8 `(z, y, x)`; 0 is background.
        geometry: Its grid.
        names: Name of each label value that has one.
        overlap: Voxels that several segments of the file shared.
    """

    array: np.ndarray
    geometry: Geometry
    names: dict[int, str]
    overlap: int = 0


@dataclass(frozen=True)
class StoredSegment:
    """One segment of a `.seg.nrrd` file: where its voxels are, and its name."""

    name: str
    value: int
    layer: int


def read_labelmap(path: str | Path, names: Mapping[int, str] | None = None) -> LabelMap:
    """Read a label map or a Slicer segmentation.

    A `.seg.nrrd` of one layer keeps its label values. In one of several layers values repeat, so the
    segments are numbered 1, 2, ... in the order of the file; where they overlap the later layer wins.

    Args:
        path: NIfTI, NRRD (also `.seg.nrrd`) or MetaImage file.
        names: Names by label value; they come before those of the file.

    Raises:
        InputError: The file cannot be read, holds other than whole numbers from 0 to 255, or no label.
        OutOfMemoryError: The computer has too little memory for it.
    """
    path = Path(path)
    image, segments = _read(path)
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[..., 0]
    dimension, layers = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if dimension != 3 or (layers > 1 and not segments):
        raise InputError(
            f"{path} is not a single label map: {dimension} dimensions and {layers} values a voxel.",
            hint="Give one three-dimensional label map with one whole number a voxel.",
        )
    stored = require_labels(sitk.GetArrayFromImage(image), path)
    overlap = 0
    if layers > 1:
        array = flatten_layers(stored, segments)
        overlap = int(((stored > 0).sum(-1) > 1).sum())
    else:
        array = stored
    if not array.any():
        raise InputError(
            f"{path} holds no label: every voxel is 0.", hint="Check that the labels were saved."
        )
    own_names = names_by_label(segments, layers=layers)
    return LabelMap(array, geometry_of(image, path), {**own_names, **(names or {})}, overlap)


def read_label_names(path: Path) -> dict[int, str]:
    """The names that `read_labelmap` gives to the labels of a file; no voxel need have one.

    Raises:
        InputError: The file cannot be read.
        OutOfMemoryError: The computer has too little memory for it.
    """
    image, segments = _read(path)
    return names_by_label(segments, layers=image.GetNumberOfComponentsPerPixel())


def _read(path: Path) -> tuple[sitk.Image, list[StoredSegment]]:
    if path.is_dir():
        raise InputError(f"{path} is a folder, where a label map file is expected.", hint=FORMATS_HINT)
    image = read_image(path)
    return image, stored_segments(image, path)


def names_by_label(segments: list[StoredSegment], *, layers: int) -> dict[int, str]:
    """The name of each label value, as the segments of a file of one or several layers are numbered."""
    if layers > 1:
        return {number: segment.name for number, segment in enumerate(segments, 1)}
    return {segment.value: segment.name for segment in segments}


def stored_segments(image: sitk.Image, path: Path) -> list[StoredSegment]:
    """The segments a `.seg.nrrd` header tells of, in its order.

    Raises:
        InputError: A label value or layer is not a number that the file can hold.
    """
    numbers = sorted(
        int(match[1]) for key in image.GetMetaDataKeys() if (match := re.fullmatch(r"Segment(\d+)_ID", key))
    )

    def field(number: int, key: str, default: str) -> str:
        full = f"Segment{number}_{key}"
        return as_utf8(image.GetMetaData(full)) if image.HasMetaDataKey(full) else default

    try:
        segments = [
            StoredSegment(
                field(number, "Name", f"Segment_{number + 1}"),
                int(field(number, "LabelValue", "1")),
                int(field(number, "Layer", str(number))),
            )
            for number in numbers
        ]
    except ValueError:
        segments = []
    if len(segments) > MOST_SEGMENTS or any(segment.value > MOST_SEGMENTS for segment in segments):
        raise InputError(
            f"{path} holds more than {MOST_SEGMENTS} segments.", hint="Leave those out that are not needed."
        )
    layers = range(image.GetNumberOfComponentsPerPixel())
    if len(segments) == len(numbers) and all(
        segment.layer in layers and segment.value >= 1 for segment in segments
    ):
        return segments
    raise InputError(
        f"The segment list in the header of {path} does not fit its voxels.",
        hint="Save it again in 3D Slicer.",
    )


def require_labels(array: np.ndarray, path: Path) -> np.ndarray:
    if np.iscomplexobj(array) or not np.isfinite(array).all() or not np.array_equal(array, np.round(array)):
        raise InputError(
            f"{path} holds values that are not whole numbers, where labels are expected.",
            hint="Give the label map, not the image.",
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise InputError(
            f"{path} holds values from {low} to {high}, where labels from 0 to 255 are expected.",
            hint="Give the label map, not the image.",
        )
    return array.astype(np.uint8)


def flatten_layers(layers: np.ndarray, segments: list[StoredSegment]) -> np.ndarray:
    """Merge `(z, y, x, layer)` into one `(z, y, x)` with segment n of the list as label n, from 1."""
    flat = np.zeros(layers.shape[:3], np.uint8)
    for place, segment in sorted(enumerate(segments, 1), key=lambda entry: entry[1].layer):
        flat[layers[..., segment.layer] == segment.value] = place
    return flat


def check_same_grid(image: Geometry, label: Geometry) -> None:
    """Check that a label map lies on its image's grid: to a tenth of a voxel at every corner.

    Raises:
        InputError: It does not; the message states both grids.
    """
    if image.shape == label.shape:
        z, y, x = (n - 1 for n in image.shape)
        corners = np.array([(i, j, k, 1) for i in (0, x) for j in (0, y) for k in (0, z)]).T
        distance = np.linalg.norm(((image.matrix - label.matrix) @ corners)[:3], axis=0).max()
        if distance <= 0.1 * min(image.spacing):
            return
    raise InputError(
        f"The labels lie on another grid than the image: {label}, where the image has {image}.",
        hint="Resample the labels to the image with nearest-neighbour interpolation.",
    )
