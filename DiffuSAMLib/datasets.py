"""Labelled volumes as stacks of square training slices."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .errors import InputError
from .geometry import to_canonical
from .labelmaps import check_same_grid, read_labelmap
from .slices import SliceGrid
from .volumes import Volume, normalise, read_volume

logger = logging.getLogger(__name__)

IMAGE_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd")


@dataclass(frozen=True)
class LabelledFiles:
    """One case on disk: its name, image, label map and the organ name of every label value."""

    name: str
    image: Path
    labels: Path
    label_names: Mapping[int, str]


@dataclass(frozen=True)
class LabelledStack:
    """One case as slices for training.

    Attributes:
        name: The case.
        modality: "CT" or "MR".
        slices: uint8 `(n, s, s)`, normalised intensities times 255.
        labels: uint8 `(n, s, s)`, index into the organs of the training plus 1, 0 elsewhere.
        known: For every organ of the training whether this case has labels for it: bool `(organs,)`.
        procedural: Whether it was made by this program, not by a scanner.
    """

    name: str
    modality: str
    slices: np.ndarray
    labels: np.ndarray
    known: np.ndarray
    procedural: bool = False

    def images(self) -> torch.Tensor:
        """float32 `(n, s, s)` in `[0, 1]`."""
        return torch.from_numpy(self.slices).float() / 255


def case_name(path: Path) -> str:
    """The file name without its image ending."""
    for ending in IMAGE_ENDINGS:
        if path.name.endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def find_cases(
    images: Path, labels: Path, label_names: Mapping[int, str], *, only: Sequence[str] | None = None
) -> list[LabelledFiles]:
    """Pairs images and label maps of two folders by name.

    Args:
        images: Folder of images.
        labels: Folder of label maps with the images' names.
        label_names: Organ name of every label value.
        only: Names of the cases to take; None takes all.

    Raises:
        InputError: A folder is missing, no name matches, or a case of `only` is not there.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(
                f"There is no folder {folder}.", hint="Give a folder of images and one of label maps."
            )
    by_name = {case_name(path): path for path in sorted(labels.iterdir())}
    found = []
    for path in sorted(images.iterdir()):
        name = case_name(path)
        # macOS leaves hidden files beside the images that it copies.
        if path.name.startswith("."):
            continue
        if name == path.name and not path.is_dir():
            continue
        if name not in by_name:
            logger.warning("Image %s has no label map of the same name; left out.", path.name)
        elif only is None or name in only:
            found.append(LabelledFiles(name, path, by_name[name], dict(label_names)))
    missing = sorted(set(only or ()) - {case.name for case in found})
    if missing:
        raise InputError(f"These cases have no image with a label map: {', '.join(missing)}.")
    if not found:
        raise InputError(
            f"No image in {images} has a label map of the same name in {labels}.",
            hint="Name the label map like its image.",
        )
    return found


def read_dataset(folder: Path, *, only: Sequence[str] | None = None) -> list[LabelledFiles]:
    """The cases of a folder with `images/`, `labels/` and a `dataset.json` that holds the label table.

    Raises:
        InputError: As `find_cases`, or `dataset.json` is missing, damaged or has no labels.
    """
    table = folder / "dataset.json"
    if not table.is_file():
        raise InputError(f"There is no {table}.", hint="It holds the label table of the data set.")
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{table} cannot be read as JSON.", hint="Check the file.") from error
    labels = content.get("labels") if isinstance(content, dict) else None
    if (
        not isinstance(labels, dict)
        or not any(labels.values())
        or not all(type(value) is int and 0 <= value <= 255 for value in labels.values())
    ):
        raise InputError(
            f'{table} has no "labels" table of names and values.', hint='Write it as {"spleen": 1, ...}.'
        )
    names = {value: name.replace("_", " ") for name, value in labels.items() if value != 0}
    return find_cases(folder / "images", folder / "labels", names, only=only)


def to_stack(
    volume: Volume,
    labels: np.ndarray,
    label_names: Mapping[int, str],
    *,
    name: str,
    organs: Sequence[str],
    size: int,
) -> LabelledStack:
    """A volume `(z, y, x)` and its labels on the same grid as training slices of `size` pixels."""
    order = to_canonical(volume.geometry)
    grid = SliceGrid.fit(order.geometry, size)
    stack = torch.from_numpy(np.ascontiguousarray(order.apply(normalise(volume))))
    table = np.zeros(256, np.uint8)
    for value, organ in label_names.items():
        if organ in organs:
            table[value] = organs.index(organ) + 1
    squares = (grid.to_slices(stack) * 255).round().clamp(0, 255).byte().numpy()
    return LabelledStack(
        name=name,
        modality=volume.modality,
        slices=squares,
        labels=grid.labels_to_slices(table[order.apply(labels)]),
        known=np.isin(np.array(organs), list(label_names.values())),
    )


def load_stack(case: LabelledFiles, *, organs: Sequence[str], size: int) -> LabelledStack:
    """Reads one case from disk.

    Raises:
        InputError: A file cannot be read, the grids differ, or none of the organs is labelled.
    """
    volume = read_volume(case.image)
    labels = read_labelmap(case.labels, names=dict(case.label_names))
    check_same_grid(volume.geometry, labels.geometry)
    stack = to_stack(volume, labels.array, case.label_names, name=case.name, organs=organs, size=size)
    if not stack.labels.any():
        raise InputError(f"{case.labels} holds none of: {', '.join(organs)}.", hint="Check the label names.")
    return stack
