"""NIfTI files: whether they are complete and finite, which SimpleITK does not tell, and axes that it refuses."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, cast

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .files import CHUNK_BYTES
from .image_formats import FORMATS_HINT
from .incomplete_files import require_bytes, telling_damage
from .itk_messages import quiet_itk, unreadable_image
from .reading_warnings import warn
from .windows_paths import itk_path

log = logging.getLogger(__name__)

NIFTI_ENDINGS = (".nii", ".nii.gz")
# Slicer and ITK make slightly skewed NIfTI axes perpendicular; beyond this angle anatomy would visibly shift.
LARGEST_SKEW_DEGREES = 1.0
# NIfTI's codes of the voxel types that can hold NaN.
FLOAT_TYPES = {16: "f4", 64: "f8"}
# A setting of the whole process lets ITK read sheared axes as if they were perpendicular: one NIfTI at a time, then.
nifti_lock = threading.Lock()


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


@contextmanager
def named_for_itk(path: Path) -> Iterator[str]:
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
    warn(log, f"The axes of {path} are {skew:.2f} degrees off perpendicular; they were straightened.")
    switch = "ITK_NIFTI_SFORM_PERMISSIVE"
    with nifti_lock:
        before = os.environ.get(switch)
        os.environ[switch] = "ON"
        try:
            with quiet_itk(), named_for_itk(path) as name:
                return sitk.ReadImage(name)
        except RuntimeError as error:
            hint = "Resample it to a grid with perpendicular axes first."
            raise unreadable_image(path, error, hint) from error
        finally:
            if before is None:
                del os.environ[switch]
            else:
                os.environ[switch] = before
