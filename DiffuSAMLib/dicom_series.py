"""DICOM folders: the series they hold, the choice of one, and its volume."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .dicom_files import read_header, require_single_frame, tag
from .errors import DiffuSAMError, InputError
from .itk_messages import itk_message, quiet_itk
from .listing import list_folder
from .out_of_memory import is_out_of_memory, memory_error
from .reading_warnings import warn
from .utf8_names import require_utf8
from .windows_paths import itk_path

log = logging.getLogger(__name__)

# Objects that travel with images and hold none.
NOT_IMAGES = frozenset({"SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO", "REG", "DOC", "FID"})
# SOP classes of CT and MR images, the enhanced ones too; stated in the first bytes of a file.
CT_OR_MR_CLASS = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.[24](?![0-9])")
# The element (0002,0002) of a DICOMDIR, which holds no image but names the classes of others.
OF_A_DIRECTORY = re.compile(rb"\x02\x00\x02\x00UI..1\.2\.840\.10008\.1\.3\.10(?![0-9.])", re.DOTALL)
SPACING_TOLERANCE = 0.01
# In slice distances: a wider gap is a missing slice.
LARGEST_GAP = 1.5
PARALLEL_TOLERANCE = 1e-3
LARGEST_TILT_DEGREES = 1.0


@dataclass(frozen=True)
class DicomSeries:
    """The files of one series of a folder, sorted along the slice normal.

    Its number is the one that DICOM gives it; None where it gives none.
    """

    uid: str
    number: int | None
    description: str
    modality: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        number = "no series number" if self.number is None else f"series number {self.number}"
        modality, files = self.modality or "no modality", f"{len(self.files)} files"
        return ", ".join((self.label, number, modality, files, self.uid or "no UID"))

    @property
    def label(self) -> str:
        """What a message calls it; anonymised files may lack both description and UID."""
        return self.description or self.uid or Path(self.files[0]).parent.name


def list_series(folder: Path) -> list[DicomSeries]:
    """The image series directly in a folder, in the order of their series numbers.

    Raises:
        InputError: The folder cannot be listed or holds no DICOM images, or a name is not UTF-8.
    """
    require_utf8(folder)
    names = [entry.name for entry in list_folder(folder)]
    if not names:
        raise InputError(f"The folder {folder} is empty.", hint="Give the folder that holds the DICOM files.")
    found = []
    listed = set()
    with quiet_itk():
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(itk_path(folder)):
            # In the folder by its own name, not by the one that ITK was given.
            files = [
                folder / Path(file).name
                for file in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(itk_path(folder), uid)
            ]
            for file in files:
                require_utf8(file)
            listed |= {file.name for file in files}
            try:
                reader = read_header(str(files[0]))
            except RuntimeError:
                continue
            modality = tag(reader, "0008|0060")
            if modality in NOT_IMAGES:
                continue
            number = tag(reader, "0020|0011")
            found.append(
                DicomSeries(
                    uid,
                    int(number) if re.fullmatch("[+-]?[0-9]{1,12}", number) else None,
                    tag(reader, "0008|103e"),
                    modality,
                    tuple(map(str, files)),
                )
            )
    require_undamaged(folder, sorted(set(names) - listed))
    if not found:
        raise InputError(
            f"The folder {folder} holds no readable DICOM images.",
            hint="Give the folder that directly holds the .dcm files of the series.",
        )
    return sorted(found, key=lambda series: (series.number or 0, series.uid))


def require_undamaged(folder: Path, unlisted: list[str]) -> None:
    """GDCM passes over a file that it cannot parse, which would silently leave a slice out.

    Raises:
        InputError: One of the files that it did not list is a CT or MR image by its first bytes.
    """
    for name in unlisted:
        file = folder / name
        if not file.is_file():
            continue
        try:
            with file.open("rb") as stream:
                start = stream.read(1024)
        except OSError as error:
            raise InputError(
                f"{file} cannot be opened ({error.strerror}).", hint="Check its permissions."
            ) from error
        of_images = CT_OR_MR_CLASS.search(start) and not OF_A_DIRECTORY.search(start)
        if start[128:132] == b"DICM" and of_images:
            raise InputError(
                f"The DICOM file {file} is damaged or incomplete.", hint="Copy or export the series again."
            )


def choose_series(found: list[DicomSeries], wanted: str | int | None) -> DicomSeries:
    """Choose one series.

    Args:
        found: What `list_series` gave.
        wanted: A series UID, a 1-based place in `found`, or a part of the description (any case);
            `None` takes the series with the most files.

    Raises:
        InputError: Nothing, or more than one series, matches, or the place is the series number of another.
    """
    listing = "; ".join(f"{place}: {series}" for place, series in enumerate(found, 1))
    if wanted is None:
        chosen = max(found, key=lambda series: len(series.files))
        if len(found) > 1:
            warn(
                log,
                f"The folder holds {len(found)} series: {listing}. Using {chosen}; --series chooses another.",
            )
        return chosen
    text = str(wanted).strip()
    matches = [series for series in found if series.uid == text]
    if not matches and text.isdecimal() and 1 <= int(text) <= len(found):
        matches = [found[int(text) - 1]]
        if any(series.number == int(text) and series is not matches[0] for series in found):
            raise InputError(
                f"'{text}' is the place in the list of one series and the series number of another.",
                hint=f"Give the UID or the description from: {listing}.",
            )
    if not matches and text:
        matches = [series for series in found if text.casefold() in series.description.casefold()]
    if len(matches) != 1:
        fact = "No series matches" if not matches else f"{len(matches)} series match"
        raise InputError(
            f"{fact} '{text}'.", hint=f"Choose a place in the list, UID or description from: {listing}."
        )
    return matches[0]


def read_series(series: DicomSeries) -> sitk.Image:
    """Read a series as a float32 volume, its slices spread evenly from the first to the last.

    Slice distances that differ by more than 1 % are told as a warning, which says how far that puts slices
    off: the first and the last keep their place. A gap as of a missing slice is refused.

    Raises:
        InputError: The files are damaged, multi-frame, of different sizes, not parallel, tilted against
            their normal, several share one position, or one is missing.
        OutOfMemoryError: There is too little memory for it.
    """
    try:
        with quiet_itk():
            headers = [read_header(file) for file in series.files]
            for file, header in zip(series.files, headers, strict=True):
                require_single_frame(header, Path(file))
            components = headers[0].GetNumberOfComponents()
            if components == 1 and len(headers) == 1:
                return sitk.ReadImage(itk_path(Path(series.files[0])), sitk.sitkFloat32)
    except RuntimeError as error:
        raise unreadable(series, error) from error
    if components != 1:
        raise InputError(
            f"The DICOM series '{series.label}' holds {components} values a pixel (colour?), not one.",
            hint="Give a greyscale CT or MR series.",
        )
    grid = even_grid(series, headers)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([itk_path(Path(file)) for file in series.files])
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        with quiet_itk():
            image = reader.Execute()
    except RuntimeError as error:
        raise unreadable(series, error) from error
    image.SetOrigin(grid[:, 3].tolist())
    spacing = np.linalg.norm(grid[:, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((grid[:, :3] / spacing).ravel().tolist())
    return image


def unreadable(series: DicomSeries, error: RuntimeError) -> DiffuSAMError:
    if is_out_of_memory(error):
        return memory_error(f"the DICOM series '{series.label}'")
    return InputError(
        f"The DICOM series '{series.label}' cannot be read: {itk_message(error)}.",
        hint="A file of it is damaged or incomplete; export the series again.",
    )


def even_grid(series: DicomSeries, headers: list[sitk.ImageFileReader]) -> np.ndarray:
    """The `(3, 4)` voxel-to-world matrix of a series of slices, in LPS mm.

    Raises:
        InputError: The slices form no regular stack.
    """
    name = f"The DICOM series '{series.label}'"
    sizes = {header.GetSize()[:2] for header in headers}
    if len(sizes) > 1:
        raise InputError(
            f"{name} mixes images of different sizes.", hint="Choose another series, or export it alone."
        )
    directions = np.array([header.GetDirection() for header in headers]).reshape(-1, 3, 3)
    if np.abs(directions - directions[0]).max() > PARALLEL_TOLERANCE:
        raise InputError(
            f"{name} holds slices that are not parallel (a localizer?).", hint="Choose another series."
        )
    origins = np.array([header.GetOrigin() for header in headers])
    steps = np.diff(origins, axis=0)
    distances = np.linalg.norm(steps, axis=1)
    # The lower of the middle two, which a missing slice among three or four does not widen.
    median = float(np.quantile(distances, 0.5, method="lower"))
    across = directions[0][:, 2]
    # Sorted here: files that share positions come in the order of their numbers, such as time point by time point.
    if np.diff(np.sort(origins @ across)).min() <= SPACING_TOLERANCE * median:
        raise InputError(
            f"{name} holds several images at one position (time points or echoes?).",
            hint="Split it, and give one volume.",
        )
    span = origins[-1] - origins[0]
    along = float(span @ across)
    # A series sorted against the normal is turned by reversing the normal, not the files.
    across = across if along > 0 else -across
    tilt = float(np.degrees(np.arccos(np.clip(abs(along) / np.linalg.norm(span), 0, 1))))
    if tilt > LARGEST_TILT_DEGREES:
        raise InputError(
            f"{name} was acquired with a gantry tilt of {tilt:.1f} degrees.",
            hint="Import it in 3D Slicer, harden its acquisition transform and save it as NIfTI or NRRD.",
        )
    widest = int(distances.argmax())
    if distances[widest] > LARGEST_GAP * median:
        before, after = (Path(file).name for file in series.files[widest : widest + 2])
        raise InputError(
            f"{name} lacks slices: a gap of {distances[widest]:.3g} mm lies between its slices {widest + 1} and "
            f"{widest + 2} ({before} and {after}), where others are {median:.3g} mm apart.",
            hint="Export the series again with all its slices, or choose another series.",
        )
    worst = int(np.abs(distances - median).argmax())
    if abs(distances[worst] - median) > SPACING_TOLERANCE * median:
        heights = (origins - origins[0]) @ across
        off = float(np.abs(heights - np.linspace(0, heights[-1], len(heights))).max())
        warn(
            log,
            f"{name} has uneven slice distances: {distances[worst]:.3g} mm between slices {worst + 1} and "
            f"{worst + 2}, else {median:.3g} mm; spread evenly, slices are off by up to {off:.2g} mm.",
        )
    x, y = headers[0].GetSpacing()[:2]
    z = abs(along) / len(steps)
    return np.column_stack([directions[0][:, 0] * x, directions[0][:, 1] * y, across * z, origins[0]])
