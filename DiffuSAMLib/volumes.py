"""Image volumes: reading them from files and DICOM folders, and bringing their intensities to [0, 1]."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from .dicom_series import choose_series, list_series, read_series
from .errors import InputError
from .geometry import Geometry
from .image_files import geometry_of, not_finite_error, read_image
from .image_formats import FORMATS_HINT
from .listing import is_folder
from .out_of_memory import telling_memory
from .reading_warnings import kept_warnings

log = logging.getLogger(__name__)

Modality = Literal["CT", "MR"]

CT_WINDOW_HU = (-125.0, 275.0)
MR_PERCENTILES = (0.5, 99.5)
# Percentiles of a larger volume are taken from this many voxels drawn with a fixed seed.
SAMPLE_VOXELS = 4_000_000


@dataclass(frozen=True, eq=False)
class Volume:
    """One scalar image.

    Args:
        array: float32 `(z, y, x)`; HU for CT, arbitrary units for MR.
        geometry: Its grid.
        modality: `CT` or `MR`.
        source: The path it was read from, or another name for it.
        series_uid: Of the DICOM series it was read from; None if it was none or has no UID.
        warnings: What was odd about the files, as sentences.
    """

    array: np.ndarray
    geometry: Geometry
    modality: Modality
    source: str
    series_uid: str | None = None
    warnings: tuple[str, ...] = ()


def read_volume(path: str | Path, *, modality: str | None = None, series: str | int | None = None) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file, or one series of a DICOM folder.

    Args:
        path: File or folder.
        modality: `CT` or `MR`; by default what the DICOM header says, or else a guess from the values.
        series: For a DICOM folder with several series: UID, place in the list, from 1, or part of the
            description; by default the one with the most slices.

    Raises:
        InputError: The image is missing, damaged, or not one finite scalar volume; the message says why.
        OutOfMemoryError: There is too little memory for it.
    """
    path = Path(path)
    given = parse_modality(modality)
    chosen = None
    with kept_warnings() as warnings:
        if is_folder(path):
            chosen = choose_series(list_series(path), series)
            image = read_series(chosen)
        elif series is not None:
            raise InputError(
                f"A series was chosen, but {path} is not a DICOM folder.", hint="Leave the series out."
            )
        else:
            image = read_image(path)
    if path.name.lower().endswith(".dcm") and image.GetDimension() == 3 and image.GetDepth() == 1:
        raise InputError(f"{path} is a single DICOM slice.", hint="Give the folder that holds the series.")
    image = as_scalar_volume(image, path)
    with telling_memory(str(path)):
        # A view, so that a long scan is copied once and not twice.
        array = sitk.GetArrayViewFromImage(image).astype(np.float32)
        require_contrast(array, path)
    if given is None and chosen is not None and chosen.modality:
        given = parse_dicom_modality(chosen.modality, path)
    if given is None:
        given = guess_modality(array)
        if chosen is not None:
            warnings.append(f"The DICOM series in {path} does not say its modality; it is taken for {given}.")
            log.warning("%s", warnings[-1])
    return Volume(
        array,
        geometry_of(image, path),
        given,
        str(path),
        series_uid=chosen.uid or None if chosen is not None else None,
        warnings=tuple(warnings),
    )


def parse_modality(text: str | None) -> Modality | None:
    if text is None:
        return None
    modalities: dict[str, Modality] = {"CT": "CT", "MR": "MR", "MRI": "MR"}
    if text.upper() not in modalities:
        raise InputError(f"'{text}' is not a modality.", hint="Choose CT or MR.")
    return modalities[text.upper()]


def parse_dicom_modality(text: str, path: Path) -> Modality:
    if text not in {"CT", "MR"}:
        raise InputError(
            f"{path} holds images of modality {text}, where CT or MR is expected.",
            hint="Choose another series, or state the modality to use it all the same.",
        )
    return "CT" if text == "CT" else "MR"


def as_scalar_volume(image: sitk.Image, path: Path) -> sitk.Image:
    """The image as three dimensions of single real numbers.

    Raises:
        InputError: It is flat, a time series, in colour or complex.
    """
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[..., 0]
    size = " x ".join(str(n) for n in image.GetSize())
    if image.GetDimension() < 3:
        raise InputError(
            f"{path} is a flat image of {size} pixels, where a volume is expected.", hint=FORMATS_HINT
        )
    if image.GetDimension() > 3:
        raise InputError(
            f"{path} has {image.GetDimension()} dimensions ({size}), where one volume is expected.",
            hint="Split the time points or channels, and give one of them.",
        )
    components = image.GetNumberOfComponentsPerPixel()
    if components > 1:
        raise InputError(
            f"{path} holds {components} values a voxel (colour or vectors), not one.",
            hint="Give a greyscale CT or MR volume.",
        )
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path} holds complex numbers, not grey values.", hint="Give the magnitude image.")
    return image


def require_contrast(array: np.ndarray, path: Path) -> None:
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise not_finite_error(path, int(array.size - np.isfinite(array).sum()))
    if low == high:
        raise InputError(
            f"{path} shows nothing: every voxel has the value {low:g}.",
            hint="Check that the right image was exported.",
        )


def guess_modality(array: np.ndarray) -> Modality:
    """Tell CT in Hounsfield units from MR by the values alone.

    CT reaches -100 HU (fat, air), and of what is denser than -200 HU at least half lies in the range
    of soft tissue up to 400 HU; phase images, which are negative too, spread more evenly.

    Args:
        array: Any shape.
    """
    sample = sample_voxels(array)
    if float(array.min()) > -100:
        return "MR"
    body = sample[sample > -200]
    soft = float(np.mean(body <= 400)) if body.size else 0.0
    return "CT" if soft >= 0.5 else "MR"


def sample_voxels(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    if flat.size <= SAMPLE_VOXELS:
        return flat
    return flat[np.random.default_rng(0).integers(0, flat.size, SAMPLE_VOXELS)]


def normalise(volume: Volume) -> np.ndarray:
    """Intensities as float32 `(z, y, x)` in [0, 1], by the window of `intensity_window`."""
    return scale_intensity(volume.array, *intensity_window(volume))


def intensity_window(volume: Volume) -> tuple[float, float]:
    """The intensities that become 0 and 1.

    CT: -125 to 275 HU. MR: the 0.5 to 99.5 percentiles of the foreground, that is of the voxels above
    a tenth of the way from the floor to the mean, so that however much air is in view the tissue
    keeps its contrast. Both are monotonic; MR does not depend on the scale or offset of the values.
    """
    return CT_WINDOW_HU if volume.modality == "CT" else mr_window(volume.array)


def scale_intensity(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Any part of a volume as float32 in [0, 1]; all 0 where the window is empty."""
    scaled = np.clip(array.astype(np.float32), low, high)
    if high <= low:
        return np.zeros_like(scaled)
    return np.clip((scaled - np.float32(low)) / np.float32(high - low), 0, 1)


def mr_window(array: np.ndarray) -> tuple[float, float]:
    sample = sample_voxels(array).astype(np.float64)
    # A single absurd voxel must not move the mean.
    floor, ceiling = np.percentile(sample, [0.1, 99.9])
    threshold = floor + 0.1 * (float(np.clip(sample, floor, ceiling).mean()) - floor)
    foreground = sample[sample > threshold]
    if foreground.size:
        low, high = np.percentile(foreground, MR_PERCENTILES)
        if high > low:
            return float(low), float(high)
    return float(sample.min()), float(sample.max())
