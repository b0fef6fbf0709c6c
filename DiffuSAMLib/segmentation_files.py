"""Writing label maps, Slicer segmentations and scalar maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import DiffuSAMError, InputError, OutputError
from .files import atomic_path
from .geometry import Geometry
from .image_files import read_image
from .itk_messages import is_system_failure, itk_message, quiet_itk
from .nifti_files import inspect_nifti
from .out_of_memory import is_out_of_memory, memory_error
from .terminology import Segment
from .utf8_names import require_utf8
from .windows_paths import itk_path

__all__ = [
    "SCALAR_ENDINGS",
    "SEGMENTATION_ENDINGS",
    "Segment",
    "require_ending",
    "require_grid",
    "write_scalar",
    "write_segmentation",
]

SCALAR_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
# How far voxels may move in a format whose axes are perpendicular, in voxels.
LARGEST_SKEW = 0.1
SEGMENTATION_ENDINGS = (".seg.nrrd", *SCALAR_ENDINGS)
SPACE_HINT = "Check the free space and the permissions of its folder."


def require_ending(path: str | Path, endings: Sequence[str]) -> None:
    """Check a file name before the work is done that would be written to it.

    Args:
        path: The file to be.
        endings: `SEGMENTATION_ENDINGS` or `SCALAR_ENDINGS`.

    Raises:
        InputError: The name has another ending.
    """
    name = Path(path).name.lower()
    wrong_kind = name.endswith(".seg.nrrd") and ".seg.nrrd" not in endings
    if wrong_kind or not any(name.endswith(ending) and name != ending for ending in endings):
        raise InputError(
            f"{Path(path).name} does not end like a file that can be written here.",
            hint=f"Choose one of {', '.join(endings)}.",
        )


def write_segmentation(
    path: str | Path, labels: np.ndarray, geometry: Geometry, segments: Sequence[Segment]
) -> None:
    """Write a label map; as `.seg.nrrd` with names, colours and terminology for 3D Slicer.

    Args:
        path: Ends in one of `SEGMENTATION_ENDINGS`.
        labels: uint8 `(z, y, x)`, 0 is background.
        geometry: Grid of the labels.
        segments: What the labels are, in the order in which Slicer lists them; a segment may be empty.

    Raises:
        InputError: The ending is unknown, or the format cannot hold the grid.
        OutputError: The file cannot be written.
        OutOfMemoryError: The computer has too little memory for it.
    """
    require_ending(path, SEGMENTATION_ENDINGS)
    require_grid(path, geometry)
    image = geometry.to_sitk(labels.astype(np.uint8, copy=False))
    if Path(path).name.lower().endswith(".seg.nrrd"):
        for key, value in slicer_fields(geometry, segments).items():
            image.SetMetaData(key, value)
    write_image(path, image)


def write_scalar(path: str | Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write a scalar map, such as the confidence.

    Args:
        path: Ends in one of `SCALAR_ENDINGS`.
        array: float32 `(z, y, x)`.
        geometry: Its grid.

    Raises:
        InputError: The ending is unknown, or the format cannot hold the grid.
        OutputError: The file cannot be written.
        OutOfMemoryError: The computer has too little memory for it.
    """
    require_ending(path, SCALAR_ENDINGS)
    require_grid(path, geometry)
    write_image(path, geometry.to_sitk(array.astype(np.float32, copy=False)))


def require_grid(path: str | Path, geometry: Geometry) -> None:
    """Refuses a format that would move the voxels of a grid.

    NIfTI as it is written here has perpendicular axes.

    Args:
        path: To be written.
        geometry: Of what is written there.

    Raises:
        InputError: The grid is sheared, and the file's ending is that of NIfTI.
    """
    if Path(path).name.lower().endswith((".nii", ".nii.gz")) and geometry.skew_mm > LARGEST_SKEW * min(
        geometry.spacing
    ):
        raise InputError(
            f"{path} cannot hold the grid of the image, whose axes are not perpendicular.",
            hint="Write .seg.nrrd, .nrrd or .mha instead.",
        )


def slicer_fields(geometry: Geometry, segments: Sequence[Segment]) -> dict[str, str]:
    """The header fields that Slicer stores for segments which share one layer."""
    z, y, x = geometry.shape
    # Slicer crops the whole layer to the extent of its first segment, so all must state the full grid.
    extent = f"0 {x - 1} 0 {y - 1} 0 {z - 1}"
    fields = {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        # Without it Slicer crops the grid to the segments when it saves the file again.
        "Segmentation_ConversionParameters": f"Reference image geometry|{slicer_geometry(geometry)}|&",
    }
    for number, segment in enumerate(segments):
        own = {
            "ID": f"Segment_{segment.value}",
            "Name": " ".join(segment.name.split()),
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{level:.6g}" for level in segment.color),
            "ColorAutoGenerated": "0",
            "LabelValue": str(segment.value),
            "Layer": "0",
            "Extent": extent,
            "Tags": f"TerminologyEntry:{segment.terminology}|",
        }
        fields |= {f"Segment{number}_{key}": value for key, value in own.items()}
    return fields


def slicer_geometry(geometry: Geometry) -> str:
    """A grid as Slicer serializes it: the voxel-to-world matrix in RAS mm, row by row, then the extent."""
    z, y, x = geometry.shape
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.matrix
    return "".join(f"{value:.15g};" for value in (*ras.ravel(), 0, x - 1, 0, y - 1, 0, z - 1))


def write_image(path: str | Path, image: sitk.Image) -> None:
    """Write an image compressed, complete or not at all.

    Raises:
        OutputError: The file cannot be written.
        OutOfMemoryError: There is too little memory to pack or check it.
    """
    require_utf8(Path(path), OutputError)
    with atomic_path(path) as temporary:
        try:
            with quiet_itk():
                sitk.WriteImage(image, itk_path(temporary), useCompression=True)
        except RuntimeError as error:
            raise _unwritable(path, error) from error
        # None of the writers notices a disk that is full for the last few kilobytes, that of NIfTI for any.
        try:
            if temporary.name.lower().endswith((".nii", ".nii.gz")):
                inspect_nifti(temporary)
            else:
                read_image(temporary)
        except InputError as error:
            raise OutputError(f"{path} could not be written completely.", hint=SPACE_HINT) from error


def _unwritable(path: str | Path, error: RuntimeError) -> DiffuSAMError:
    """What SimpleITK said of an image that it could not write, for the user."""
    if is_out_of_memory(error):
        return memory_error(f"writing {path}")
    hint = SPACE_HINT if is_system_failure(error) else "Write it in another format."
    return OutputError(f"{path} cannot be written ({itk_message(error)}).", hint=hint)
