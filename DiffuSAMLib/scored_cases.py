"""Labelled cases to be scored: reading them, and finding what is wrong before the first is segmented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk

from .errors import DiffuSAMError, InputError
from .geometry import Geometry
from .image_digest import digests_in_headers
from .image_files import geometry_of, read_image
from .label_tables import contradiction
from .labelled_files import LabelledFiles
from .labelmaps import LabelMap, check_same_grid, read_labelmap
from .organ_names import organ_key
from .splits import refuse_overlap, refuse_seen_images
from .volumes import Volume, read_volume

# More names than these are counted, so that the sentence stays one line.
LISTED_CASES = 5


@contextmanager
def naming_case(case: LabelledFiles, kind: type[DiffuSAMError] = DiffuSAMError) -> Iterator[None]:
    """Puts the case's name before the message of errors of a kind."""
    try:
        yield
    except kind as error:
        raise type(error)(f"{case.name}: {error.message}", hint=error.hint) from error


def organs_by_label(case: LabelledFiles, organs: Sequence[str]) -> dict[int, str]:
    """The organ of each label that is one of `organs`, in the spelling of these.

    Raises:
        InputError: None is.
    """
    spelling = {organ_key(organ): organ for organ in organs}
    names = {value: spelling.get(organ_key(name)) for value, name in case.label_names.items()}
    found = {value: organ for value, organ in names.items() if organ is not None}
    if not found:
        raise InputError(
            f"The labels of {case.name} name none of the prior's organs: {', '.join(organs)}.",
            hint="Check the label names.",
        )
    return found


def read_scored_case(case: LabelledFiles) -> tuple[Volume, LabelMap]:
    """The image of a case and its labels on the same grid; there may be no labelled voxel.

    Raises:
        InputError: A file cannot be read, the grids differ, or the label map contradicts the label names.
    """
    with naming_case(case):
        volume = read_volume(case.image, modality=case.modality)
        labels = _read_labels(case, volume.geometry)
        check_same_grid(volume.geometry, labels.geometry)
        if wrong := contradiction(case.labels, case.label_names, labels.names):
            raise wrong
    return volume, labels


def _read_labels(case: LabelledFiles, grid: Geometry) -> LabelMap:
    """A label map, also one without any label: a case that shows none of the organs is a control."""
    try:
        return read_labelmap(case.labels)
    except InputError:
        image = read_image(case.labels)
        if image.GetDimension() != 3 or sitk.GetArrayViewFromImage(image).any():
            raise
        blank = LabelMap(np.zeros(image.GetSize()[::-1], np.uint8), geometry_of(image, case.labels), {})
        if not _is_on(grid, blank.geometry):
            # It was not made for this image: its labels were lost.
            raise
        return blank


def _is_on(image: Geometry, label: Geometry) -> bool:
    try:
        check_same_grid(image, label)
    except InputError:
        return False
    return True


def check_scored_cases(
    cases: Sequence[LabelledFiles],
    organs: Sequence[str],
    *,
    training_cases: Collection[str] = (),
    training_images: Collection[str] = (),
    on_checked: Callable[[int], None] | None = None,
) -> None:
    """Reads every case once, so that a bad one costs no scores of those before it.

    Args:
        cases: To be scored.
        organs: To be scored; every case must have labels for one of them.
        training_cases: Names of every case that any weights in use have seen.
        training_images: What `image_digest` gives for the images that they have seen, where that is known.
        on_checked: Told how many cases were read.

    Raises:
        InputError: A case was used in training, is there twice, or cannot be scored; the message names it.
    """
    refuse_overlap(training_cases, [case.name for case in cases])
    if twice := [name for name, count in Counter(case.name for case in cases).items() if count > 1]:
        raise InputError(f"Two cases are called {twice[0]}.", hint="List it once, or give each another name.")
    digests: list[tuple[str, str]] = []
    faults: list[tuple[str, InputError]] = []
    for number, case in enumerate(cases, start=1):
        try:
            organs_by_label(case, organs)
            volume, _ = read_scored_case(case)
        except InputError as error:
            faults.append((case.name, error))
        else:
            seen = digests_in_headers(volume).intersection(training_images)
            digests += [(case.name, digest) for digest in sorted(seen)[:1]]
        if on_checked is not None:
            on_checked(number)
    refuse_seen_images(training_images, digests)
    if faults:
        (_, first), *others = faults
        raise InputError(first.message, hint=f"{first.hint} {_also([name for name, _ in others])}".strip())


def _also(names: Sequence[str]) -> str:
    """A sentence on the other cases that cannot be scored; empty if there are none."""
    if not names:
        return ""
    rest = f" and {len(names) - LISTED_CASES} more" if len(names) > LISTED_CASES else ""
    return f"Nor can these be scored: {', '.join(names[:LISTED_CASES])}{rest}."
