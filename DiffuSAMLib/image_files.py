"""Reading image files with SimpleITK, with every failure told as one sentence."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import re
import shutil
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, cast

import numpy as np
import SimpleITK as sitk

from .errors import DiffuSAMError, InputError
from .files import CHUNK_BYTES, sha256_of
from .geometry import Geometry
from .incomplete_files import require_bytes, telling_damage
from .itk_messages import itk_message, quiet_itk
from .listing import is_there
from .metaimage_files import METAIMAGE_ENDINGS, inspect_metaimage
from .out_of_memory import is_out_of_memory, memory_error
from .reading_warnings import warn
from .utf8_names import require_utf8
from .windows_paths import itk_path

log = logging.getLogger(__name__)

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
FORMATS_HINT = "Give a NIfTI (.nii, .nii.gz), NRRD or MetaImage (.mha, .mhd) file, or a DICOM folder."
# Slicer and ITK make slightly skewed NIfTI axes perpendicular; beyond this angle anatomy would visibly shift.
LARGEST_SKEW_DEGREES = 1.0
DICOM_READER = "GDCMImageIO"
NIFTI_ENDINGS = (".nii", ".nii.gz")
# What reads a file whose ending ITK does not know for being in capitals, or the short one of Windows.
READERS = {
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
# Formats of two files: the voxels lie beside the header.
DETACHED_HEADERS = (".mhd", ".nhdr")
# NIfTI's codes of the voxel types that can hold NaN.
FLOAT_TYPES = {16: "f4", 64: "f8"}
# A setting of the whole process lets ITK read sheared axes as if they were perpendicular: one NIfTI at a time, then.
_nifti_lock = threading.Lock()


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
        with _nifti_lock if nifti else nullcontext(), quiet_itk(), _named_for_itk(path) as name:
            # By what reads it, not by its ending: DICOM is read under other names, too.
            found = sitk.ImageFileReader.GetImageIOFromFileName(name)
            if found == DICOM_READER:
                require_single_frame(read_header(str(path)), path)
            return sitk.ReadImage(name, imageIO=found or READERS.get(path.suffix.lower(), ""))
    except RuntimeError as error:
        if nifti and "orthonormal" in str(error):
            return read_skewed_nifti(path)
        hint = "The file is damaged or not what its ending says; copy or export it again."
        raise _unreadable(path, error, hint) from error


@contextmanager
def _named_for_itk(path: Path) -> Iterator[str]:
    """A name by which ITK can read a file for as long as the block lasts.

    ITK's reader of NIfTI goes by the ending, and takes none of both capitals and small letters: that of a link is.
    """
    name, lower = itk_path(path), path.name.lower()
    if not lower.endswith(NIFTI_ENDINGS) or name.endswith((*NIFTI_ENDINGS, *map(str.upper, NIFTI_ENDINGS))):
        yield name
        return
    with TemporaryDirectory() as folder:
        link = Path(folder) / f"image{'.nii.gz' if lower.endswith('.gz') else '.nii'}"
        try:
            link.symlink_to(path.absolute())
        except OSError:
            # Windows lets few people make links.
            shutil.copyfile(path, link)
        yield itk_path(link)


def _unreadable(path: Path, error: RuntimeError, hint: str) -> DiffuSAMError:
    """What SimpleITK said of a file that it could not read, for the user."""
    if is_out_of_memory(error):
        return memory_error(str(path))
    return InputError(f"{path} cannot be read as an image: {itk_message(error)}.", hint=hint)


def read_header(file: str) -> sitk.ImageFileReader:
    """A reader that has read the header of one DICOM file.

    Raises:
        RuntimeError: SimpleITK cannot read it.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO(DICOM_READER)
    reader.SetFileName(itk_path(Path(file)))
    reader.ReadImageInformation()
    return reader


def require_single_frame(header: sitk.ImageFileReader, path: Path) -> None:
    """Refuse multi-frame DICOM, such as enhanced CT and MR.

    SimpleITK tells neither the place nor the rescaling of its frames: it stacks them as they are stored, with
    one spacing, so that time points, another order or slopes of their own would give a wrong volume unnoticed.

    Raises:
        InputError: The file holds several frames.
    """
    frames = int(np.prod(header.GetSize()[2:]))
    if frames > 1:
        raise InputError(
            f"{path} is multi-frame DICOM: one file of {frames} frames, whose positions cannot be checked.",
            hint="Convert it to NIfTI (for example with dcm2niix), export it as DICOM of one slice a file, or "
            "load it in 3D Slicer and save it as NRRD.",
        )


@dataclass(frozen=True)
class NiftiHeader:
    """What is needed of a NIfTI header besides what SimpleITK tells.

    Args:
        data_start: Place of the first voxel in the uncompressed file.
        data_end: Size in bytes of the complete uncompressed file.
        data_type: Of the voxels where they are floating-point numbers.
        sform: `(3, 3)` part of the voxel-to-world matrix (RAS mm), zero where there is none.
    """

    data_start: int
    data_end: int
    data_type: np.dtype | None
    sform: np.ndarray


def parse_nifti_header(start: bytes) -> NiftiHeader | None:
    """Parse the first 540 bytes of a NIfTI-1 or NIfTI-2 file; `None` where they are neither."""
    for order in "<>":
        if len(start) >= 348 and struct.unpack_from(f"{order}i", start)[0] == 348:
            dim = struct.unpack_from(f"{order}8h", start, 40)
            kind, bits = struct.unpack_from(f"{order}2h", start, 70)
            offset = struct.unpack_from(f"{order}f", start, 108)[0]
            rows = struct.unpack_from(f"{order}12f", start, 280)
        elif len(start) >= 540 and struct.unpack_from(f"{order}i", start)[0] == 540:
            dim = struct.unpack_from(f"{order}8q", start, 16)
            kind, bits = struct.unpack_from(f"{order}2h", start, 12)
            offset = struct.unpack_from(f"{order}q", start, 168)[0]
            rows = struct.unpack_from(f"{order}12d", start, 400)
        else:
            continue
        if not 1 <= dim[0] <= 7 or not 0 <= offset < 2**31:
            return None
        voxels = 1
        for size in dim[1 : dim[0] + 1]:
            voxels *= max(int(size), 1)
        data_type = np.dtype(f"{order}{FLOAT_TYPES[kind]}") if kind in FLOAT_TYPES else None
        return NiftiHeader(
            int(offset), int(offset) + voxels * bits // 8, data_type, np.reshape(rows, (3, 4))[:, :3]
        )
    return None


def open_nifti(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb"))


def inspect_nifti(path: Path) -> int:
    """Look for what SimpleITK fills with zeros without a word: a missing end, and NaN.

    Returns:
        The number of voxels that are not finite.

    Raises:
        InputError: The file is no NIfTI, ends early or is damaged.
    """
    size = bad = 0
    with telling_damage(path), open_nifti(path) as file:
        header = parse_nifti_header(file.read(540))
        file.seek(header.data_start if header else 0)
        size = file.tell()
        while chunk := file.read(CHUNK_BYTES):
            size += len(chunk)
            if header and header.data_type and len(chunk) % header.data_type.itemsize == 0:
                bad += int((~np.isfinite(np.frombuffer(chunk, header.data_type))).sum())
    if header is None:
        raise InputError(f"{path} has no NIfTI header, though its name ends so.", hint=FORMATS_HINT)
    require_bytes(path, size, header.data_end)
    return bad


def not_finite_error(path: Path, voxels: int) -> InputError:
    what = "1 voxel that is" if voxels == 1 else f"{voxels} voxels that are"
    return InputError(
        f"{path} holds {what} not finite (NaN or infinite).",
        hint="Replace such values, for example by that of the background.",
    )


def read_skewed_nifti(path: Path) -> sitk.Image:
    """Read a NIfTI whose axes are not quite perpendicular, making them so as Slicer does.

    Raises:
        InputError: The axes are farther from perpendicular than rounding explains.
    """
    with open_nifti(path) as file:
        header = parse_nifti_header(file.read(540))
    columns = np.zeros((3, 3)) if header is None else header.sform
    lengths = np.linalg.norm(columns, axis=0)
    skew = 90.0
    if lengths.all():
        unit = columns / lengths
        skew = float(np.degrees(np.arcsin(np.abs(unit.T @ unit - np.eye(3)).max().clip(0, 1))))
    if skew > LARGEST_SKEW_DEGREES:
        raise InputError(
            f"The axes of {path} are {skew:.1f} degrees away from perpendicular (a sheared NIfTI sform).",
            hint="Resample it to a grid with perpendicular axes first.",
        )
    warn(log, f"The axes of {path} are {skew:.2f} degrees off perpendicular; they were made so.")
    switch = "ITK_NIFTI_SFORM_PERMISSIVE"
    with _nifti_lock:
        before = os.environ.get(switch)
        os.environ[switch] = "ON"
        try:
            with quiet_itk(), _named_for_itk(path) as name:
                return sitk.ReadImage(name)
        except RuntimeError as error:
            hint = "Resample it to a grid with perpendicular axes first."
            raise _unreadable(path, error, hint) from error
        finally:
            if before is None:
                del os.environ[switch]
            else:
                os.environ[switch] = before


def geometry_of(image: sitk.Image, path: Path) -> Geometry:
    """The grid of an image that was read.

    Raises:
        InputError: Its header places the voxels nowhere.
    """
    try:
        return Geometry.from_sitk(image)
    except ValueError as error:
        raise InputError(
            f"The header of {path} gives its voxels no usable place: origin {image.GetOrigin()}, "
            f"spacing {image.GetSpacing()}.",
            hint="Export the image again.",
        ) from error


def content_sha256(path: Path) -> str:
    """As `sha256_of`, with the voxels of formats whose header is a file of its own.

    Raises:
        InputError: A file cannot be read.
    """
    own = sha256_of(path)
    if path.suffix.lower() not in DETACHED_HEADERS or path.is_dir():
        return own
    others = [
        file
        for file in path.parent.iterdir()
        if file.is_file() and file != path and file.name.split(".")[0] == path.name.split(".")[0]
    ]
    named = _named_data_file(path)
    others += [named] if named is not None and named not in others else []
    return hashlib.sha256("\n".join([own, *sorted(map(sha256_of, others))]).encode("ascii")).hexdigest()


def _named_data_file(header: Path) -> Path | None:
    """The file that a detached header says its voxels are in."""
    text = header.read_bytes()[:CHUNK_BYTES].decode("latin-1")
    match = re.search(
        r"^(?:ElementDataFile\s*=|data ?file:)\s*(\S.*?)\s*$", text, re.MULTILINE | re.IGNORECASE
    )
    file = header.parent / match[1] if match else header
    return file if file != header and file.is_file() else None
