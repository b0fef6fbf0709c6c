"""Reading image files with SimpleITK, with every failure told as one sentence."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import SimpleITK as sitk

from .dicom_files import DICOM_READER, read_header, require_single_frame
from .errors import InputError
from .geometry import Geometry
from .image_formats import FORMATS_HINT, IMAGE_ENDINGS
from .itk_messages import quiet_itk, unreadable_image
from .listing import is_there
from .metaimage_files import METAIMAGE_ENDINGS, inspect_metaimage
from .nifti_files import NIFTI_ENDINGS, inspect_nifti, named_for_itk, nifti_lock, read_skewed_nifti
from .utf8_names import require_utf8

# What reads a file whose ending ITK does not know for being in capitals, or the short one of Windows.
READERS = {
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}


def require_readable(path: Path) -> None:
    """Check that a file is there, holds something, may be read and has a known ending.

    Raises:
        InputError: It does not, or its path is not UTF-8.
    """
    require_utf8(path)
    if not is_there(path):
        raise InputError(f"There is no file or folder {path}.", hint="Check the path.")
    if not path.name.lower().endswith(IMAGE_ENDINGS):
        raise InputError(f"{path.name} is not a kind of image that can be read.", hint=FORMATS_HINT)
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened ({error.strerror}).", hint="Check its permissions."
        ) from error
    if empty:
        raise InputError(f"{path} is empty (0 bytes).", hint="Copy or export the image again.")


def read_image(path: Path) -> sitk.Image:
    """Read an image file as it is stored, whatever its dimension and voxel type.

    Raises:
        InputError: The file is missing, empty, of another kind, damaged or incomplete, or multi-frame DICOM.
        OutOfMemoryError: There is too little memory for it.
    """
    require_readable(path)
    nifti = path.name.lower().endswith(NIFTI_ENDINGS)
    if nifti and (bad := inspect_nifti(path)):
        raise not_finite_error(path, bad)
    if path.name.lower().endswith(METAIMAGE_ENDINGS):
        inspect_metaimage(path)
    try:
        with nifti_lock if nifti else nullcontext(), quiet_itk(), named_for_itk(path) as name:
            # By what reads it, not by its ending: DICOM is read under other names, too.
            found = sitk.ImageFileReader.GetImageIOFromFileName(name)
            if found == DICOM_READER:
                require_single_frame(read_header(str(path)), path)
            return sitk.ReadImage(name, imageIO=found or READERS.get(path.suffix.lower(), ""))
    except RuntimeError as error:
        if nifti and "orthonormal" in str(error):
            return read_skewed_nifti(path)
        hint = "The file is damaged or not what its ending says; copy or export it again."
        raise unreadable_image(path, error, hint) from error


def not_finite_error(path: Path, voxels: int) -> InputError:
    what = "1 voxel that is" if voxels == 1 else f"{voxels} voxels that are"
    return InputError(
        f"{path} holds {what} not finite (NaN or infinite).",
        hint="Replace such values, for example by the background's value.",
    )


def geometry_of(image: sitk.Image, path: Path) -> Geometry:
    """The grid of an image that was read.

    Raises:
        InputError: Its header places the voxels nowhere.
    """
    try:
        return Geometry.from_sitk(image)
    except ValueError as error:
        raise InputError(
            f"The header of {path} does not say where its voxels lie: origin {image.GetOrigin()}, "
            f"spacing {image.GetSpacing()}.",
            hint="Export the image again.",
        ) from error
