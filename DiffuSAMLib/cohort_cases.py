"""The cases of a cohort: which images a folder holds, where their results go, and which are finished."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .content_hashes import content_sha256
from .errors import InputError
from .files import remove
from .image_formats import FORMATS_HINT, IMAGE_ENDINGS
from .listing import is_folder, list_folder
from .printable_text import printable

FORMATS = ("nii.gz", "nrrd", "seg.nrrd", "mha")
# A DICOM file is a slice of a case, which is the folder.
CASE_ENDINGS = tuple(ending for ending in IMAGE_ENDINGS if ending != ".dcm")
# Slicer's segmentations lie beside the images that were segmented by hand, and are never images.
SEGMENTATION_ENDING = ".seg.nrrd"
REPORT_ENDING = ".report.json"
# How many files of a folder without images are looked into for DICOM.
FILES_LOOKED_INTO = 10


@dataclass(frozen=True)
class CohortCase:
    """One image of a cohort.

    Attributes:
        name: Of the file without its ending, or of the DICOM folder; its results are called so.
        image: NIfTI, NRRD or MetaImage file, or DICOM folder.
    """

    name: str
    image: Path


@dataclass(frozen=True)
class CaseFiles:
    """Where the results of a case lie; the report is written last, so where it is, the others are complete."""

    output: Path
    report: Path
    confidence: Path
    preview: Path

    @classmethod
    def of(cls, case: CohortCase, folder: Path, ending: str) -> CaseFiles:
        """The files of a case in a folder; `ending` is one of `FORMATS`."""
        return cls(
            output=folder / f"{case.name}.{ending}",
            report=folder / f"{case.name}{REPORT_ENDING}",
            confidence=folder / f"{case.name}.confidence.nii.gz",
            preview=folder / f"{case.name}.preview.png",
        )

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file, the report first: once it has gone, the case counts as unfinished."""
        return self.report, self.output, self.confidence, self.preview

    def remove(self) -> None:
        """Remove what there is of an earlier result, its label map too where that was of another format."""
        for path in (*self.all, *self._label_map_of_report()):
            remove(path)

    def _label_map_of_report(self) -> list[Path]:
        """The label map that belongs to the report; others of the name, such as corrected ones, are not a cohort's."""
        report = _read_report(self.report)
        try:
            ending = report["cohort"]["settings"]["format"]
        except (LookupError, TypeError):
            return []
        case = self.report.name.removesuffix(REPORT_ENDING)
        return [self.report.with_name(f"{case}.{ending}")] if ending in FORMATS else []


def list_cases(folder: Path, *, leave_out: Path) -> list[CohortCase]:
    """The images of a folder, sorted by name: files by their ending, and folders, which hold DICOM.

    Hidden files, `.seg.nrrd` files and files of other kinds are passed over.

    Args:
        folder: Where the images lie.
        leave_out: A folder that is not a case, that of the results.

    Raises:
        InputError: There is no such folder, it holds no image, it is itself a DICOM folder, or two images would
            have results of the same name.
    """
    if not is_folder(folder):
        raise InputError(
            f"There is no folder {folder}.", hint="Give --images the folder that holds the images."
        )
    entries = list_folder(folder)
    cases = []
    for path in entries:
        if path.name.startswith(".") or path == leave_out:
            continue
        name = path.name if path.is_dir() else _without_ending(path.name)
        if name:
            # A name whose bytes are no text could be neither printed nor written into the table.
            cases.append(CohortCase(printable(name), path))
    if not cases:
        if any(path.name.lower().endswith(".dcm") for path in entries) or _begins_with_dicom(entries):
            raise InputError(
                f"{folder} holds the DICOM files of one image, where a folder of images is expected.",
                hint="Give the folder above it, or leave out --images to segment this one.",
            )
        raise InputError(f"The folder {folder} holds no images.", hint=FORMATS_HINT)
    _require_different_names(cases)
    return cases


def _begins_with_dicom(entries: Sequence[Path]) -> bool:
    """Whether one of the first files is DICOM by its content, whatever its name."""
    for path in [path for path in entries if path.is_file()][:FILES_LOOKED_INTO]:
        try:
            with path.open("rb") as file:
                start = file.read(132)
        except OSError:
            continue
        if start[128:] == b"DICM":
            return True
    return False


def _without_ending(name: str) -> str | None:
    """The name of an image file without its ending; None for a file that is no image."""
    lower = name.lower()
    if lower.endswith(SEGMENTATION_ENDING):
        return None
    ending = next((ending for ending in CASE_ENDINGS if lower.endswith(ending)), None)
    return None if ending is None else name[: -len(ending)]


def _require_different_names(cases: Sequence[CohortCase]) -> None:
    seen: dict[str, CohortCase] = {}
    for case in cases:
        # Not even different in case: on Windows and macOS, "A" and "a" are one file.
        files = [path.name.casefold() for path in CaseFiles.of(case, Path(), FORMATS[0]).all]
        for file in files:
            if file in seen:
                raise InputError(
                    f"{seen[file].image.name} and {case.image.name} would have results of the same name.",
                    hint="Rename one of them.",
                )
        seen |= dict.fromkeys(files, case)


def finished_report(
    case: CohortCase, files: CaseFiles, settings: dict[str, Any], wanted: Sequence[Path]
) -> dict[str, Any] | None:
    """The report of a case that an earlier run has finished with the same settings; None where it must be done.

    A case is finished when all `wanted` files are there, and its report names the same settings and an image
    of the same content (sha256, so that copying images or touching them costs nothing but reading them).

    Raises:
        InputError: The image cannot be read.
    """
    if not all(path.is_file() for path in (files.report, *wanted)):
        return None
    report = _read_report(files.report)
    try:
        same_settings = report["cohort"]["settings"] == settings
        sha256 = report["inputs"][0]["sha256"]
        findings(report)
        float(report["cohort"]["seconds"])
    except (LookupError, TypeError, ValueError):
        return None
    # The image last: reading it takes longest.
    return report if same_settings and content_sha256(case.image) == sha256 else None


def _read_report(path: Path) -> Any:
    """What a report holds; None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class CaseFindings:
    """What the table says of a case that is done.

    Attributes:
        modality: "CT" or "MR", as it was segmented.
        volumes_ml: Volume of each organ in ml.
        warnings: What was odd about the image, as sentences.
    """

    modality: str
    volumes_ml: Mapping[str, float]
    warnings: tuple[str, ...]


def findings(report: dict[str, Any]) -> CaseFindings:
    """What the report of a case says for the table."""
    image = report["inputs"][0]
    return CaseFindings(
        str(image["modality"]),
        {str(organ["name"]): float(organ["volume_ml"]) for organ in report["organs"]},
        # The first cohorts told none.
        tuple(str(warning) for warning in image.get("warnings", ())),
    )
