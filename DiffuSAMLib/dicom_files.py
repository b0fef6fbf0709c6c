"""Single DICOM files: their headers, and the refusal of those of several frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .utf8_names import as_utf8
from .windows_paths import itk_path

DICOM_READER = "GDCMImageIO"


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


def tag(reader: sitk.ImageFileReader, key: str) -> str:
    value = reader.GetMetaData(key) if reader.HasMetaDataKey(key) else ""
    # Bytes of an undeclared character set come as surrogates.
    return as_utf8(value).strip(" \0")


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
