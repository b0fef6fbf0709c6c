"""The options of the command line that name labelled cases."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .composed_names import composed
from .errors import InputError
from .organ_names import listed
from .splits import missing_cases_error

if TYPE_CHECKING:
    from .labelled_files import LabelledFiles


def add_data_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--images", type=Path, help="folder of images, or of DICOM folders")
    command.add_argument("--labels", type=Path, help="folder of label maps with the images' names")
    command.add_argument(
        "--label-names",
        help='1=spleen,2=right kidney,... or a JSON file {"spleen": 1, ...} (default: the segment names of '
        ".seg.nrrd files)",
    )
    command.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        help="folder with images/, labels/, dataset.json; repeatable",
    )
    command.add_argument("--split", type=Path, help="split file; takes its cases only")
    command.add_argument(
        "--modality", choices=("CT", "MR"), help="if the images do not state it, or state it wrongly"
    )


def cases_of(
    arguments: argparse.Namespace,
    only: Sequence[str] | None,
    *,
    report: Callable[[str], None] | None = None,
) -> list[LabelledFiles]:
    """The labelled cases that the options name.

    Args:
        arguments: With what `add_data_options` adds.
        only: Names of the cases to take; None takes all. Those that no --data folder has are looked for in --images.
        report: Told what matched and what did not.

    Raises:
        InputError: There are none, one of `only` is nowhere, or a folder, table or label map cannot be used.
    """
    from .label_tables import label_names_from
    from .labelled_files import find_cases, read_dataset

    if only is not None and not only:
        raise InputError(
            "The split file lists no case to take.", hint="Choose another part, or fill its list."
        )
    cases = []
    only = None if only is None else [composed(name) for name in only]
    # Not yet found; None where all cases are taken.
    wanted = only
    for folder in arguments.data:
        chosen = None
        if only is not None:
            there = {case.name for case in read_dataset(folder, modality=arguments.modality)}
            chosen = [name for name in only if name in there]
            wanted = [name for name in wanted or () if name not in there]
        # A split may take nothing of one folder.
        if chosen != []:
            cases += read_dataset(folder, only=chosen, modality=arguments.modality, report=report)
    if arguments.images or arguments.labels or arguments.label_names:
        if not (arguments.images and arguments.labels):
            raise InputError("--images and --labels belong together.", hint="Give both.")
        names = label_names_from(arguments.label_names) if arguments.label_names is not None else None
        if wanted != []:
            cases += find_cases(
                arguments.images,
                arguments.labels,
                names,
                only=wanted,
                modality=arguments.modality,
                report=report,
            )
    elif arguments.data and wanted:
        raise missing_cases_error(wanted)
    if not cases:
        raise InputError("There are no labelled cases.", hint="Give --images and --labels, or --data.")
    return cases


def organ_names(text: str | None) -> tuple[str, ...] | None:
    """The names of "spleen,liver", or of '"Kidney, left",liver'.

    Raises:
        InputError: There is none.
    """
    if text is None:
        return None
    names = tuple(filter(None, listed(text)))
    if not names:
        raise InputError("--organs names no organ.", hint="Write for example --organs spleen,liver.")
    return names
