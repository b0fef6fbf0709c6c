"""Labelled images on disk: finding them, and reading one with its labels."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .case_pairs import pair_files
from .composed_names import composed
from .errors import InputError
from .label_tables import label_table, names_in_file
from .labelmaps import LabelMap, check_same_grid, read_labelmap
from .listing import is_file
from .volumes import Volume, read_volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledFiles:
    """One case on disk: its name, image, label map, the organ name of every label value, and its modality.

    Where the modality is None, the image's file or its values tell.
    """

    name: str
    image: Path
    labels: Path
    label_names: Mapping[int, str]
    modality: str | None = None


def find_cases(
    images: Path,
    labels: Path,
    label_names: Mapping[int, str] | None,
    *,
    only: Sequence[str] | None = None,
    modality: str | None = None,
    report: Callable[[str], None] | None = None,
) -> list[LabelledFiles]:
    """Pairs images and label maps of two folders by name, as `case_pairs.pair_files` does.

    Args:
        images: Folder of images.
        labels: Folder of label maps with the images' names.
        label_names: Organ name of every label value; None takes the names in the label maps themselves.
        only: Names of the cases to take; None takes all.
        modality: Of all images; None asks each.
        report: Told in plain sentences what matched and what did not; None logs the images left out.

    Raises:
        InputError: A folder is missing or closed, no name matches, a name matches twice, a case of `only` is not
            there, or a label map has no names.
    """
    paired = pair_files(images, labels)
    only = None if only is None else [composed(name) for name in only]
    if report is not None:
        for line in paired.report(only=only):
            report(line)
    else:
        for path in paired.images_alone:
            logger.warning("Image %s has no label map of the same name; left out.", path.name)
    found = [pair for pair in paired.pairs if only is None or pair.name in only]
    missing = sorted(set(only or ()) - {pair.name for pair in found})
    if missing:
        raise InputError(f"These cases have no image with a label map: {', '.join(missing)}.")
    if not found:
        raise InputError(
            f"No image in {images} has a label map of the same name in {labels}.",
            hint="Name the label map like its image.",
        )
    return [
        LabelledFiles(
            pair.name,
            pair.image,
            pair.labels,
            dict(names_in_file(pair.labels) if label_names is None else label_names),
            modality,
        )
        for pair in found
    ]


def read_dataset(
    folder: Path,
    *,
    only: Sequence[str] | None = None,
    modality: str | None = None,
    report: Callable[[str], None] | None = None,
) -> list[LabelledFiles]:
    """The cases of a folder with `images/`, `labels/` and a `dataset.json` that holds the label table.

    Raises:
        InputError: As `find_cases`, or `dataset.json` is missing, damaged or has no labels.
    """
    table = folder / "dataset.json"
    if not is_file(table):
        raise InputError(f"There is no {table}.", hint="It holds the label table of the data set.")
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{table} cannot be read as JSON.", hint="Check the file.") from error
    names = label_table(content.get("labels") if isinstance(content, dict) else None, source=str(table))
    images, labels = folder / "images", folder / "labels"
    return find_cases(images, labels, names, only=only, modality=modality, report=report)


def read_case(case: LabelledFiles) -> tuple[Volume, LabelMap]:
    """The image of a case and its labels on the same grid.

    Raises:
        InputError: A file cannot be read, or the grids differ.
    """
    volume = read_volume(case.image, modality=case.modality)
    labels = read_labelmap(case.labels, names=dict(case.label_names))
    check_same_grid(volume.geometry, labels.geometry)
    return volume, labels
