"""`diffusam segment --images`: its options, and what it tells while it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .cohort_cases import FORMATS
from .errors import FailedCasesError, InputError
from .progress import JsonProgress, Progress
from .volume_text import volume_text

if TYPE_CHECKING:
    from .cohort_table import CaseRow
    from .segmenter import SegmentOptions

# What --confidence and --preview hold when no file is named.
UNNAMED = Path()


def add_cohort_options(command: argparse.ArgumentParser) -> None:
    """The options that belong to --images, and that one."""
    cohort = command.add_argument_group(
        "a cohort",
        "With --images, every image of a folder is segmented, by several processes, and a table is written to the "
        "output folder. The same command again goes on where it was stopped. The workers of a Dask cluster need this "
        "package, and a file system on which both folders have the same path as here.",
    )
    cohort.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of image files and DICOM folders; instead of IMAGE"
    )
    cohort.add_argument(
        "--format",
        choices=FORMATS,
        help="of the label maps (default: nii.gz)",
    )
    cohort.add_argument("--dask", metavar="ADDRESS", help="scheduler of a cluster, such as tcp://host:8786")
    cohort.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes on this computer (default: by its cores and memory)",
    )
    cohort.add_argument(
        "--retries",
        type=int,
        metavar="N",
        help="how often a case is tried again when its process dies (default: 2)",
    )


def run_cohort(arguments: argparse.Namespace, options: SegmentOptions, progress: Progress) -> None:
    """Runs the command.

    Args:
        arguments: Of `diffusam segment`, with --images.
        options: How to segment.
        progress: Told of the cases.

    Raises:
        FailedCasesError: All cases have ended, and some of them could not be segmented.
    """
    for option in ("confidence", "preview"):
        if getattr(arguments, option) not in (None, UNNAMED):
            raise InputError(
                f"With --images, --{option} takes no file name.",
                hint="Its files are called like the cases and lie in the output folder.",
            )
    if arguments.report is not None:
        raise InputError("With --images, every case has a report.", hint="Leave --report out.")
    from .cohort import CohortRequest, segment_cohort
    from .cohort_table import TABLE_CSV
    from .prior_files import read_header
    from .segment_file import label_values
    from .weights import prior_path

    request = CohortRequest(
        images=arguments.images,
        output=arguments.output,
        ending=arguments.format or "nii.gz",
        prior=arguments.prior,
        device=arguments.device,
        modality=arguments.modality,
        series=arguments.series,
        confidence=arguments.confidence is not None,
        preview=arguments.preview is not None,
        options=options,
        cluster=arguments.dask,
        workers=arguments.workers,
        retries=2 if arguments.retries is None else arguments.retries,
    )
    tell = progress.case if isinstance(progress, JsonProgress) else None
    rows = segment_cohort(
        request,
        progress=progress,
        on_case=(lambda row: tell(**vars(row))) if tell else _tell_case,
    )
    table = request.output / TABLE_CSV
    failed = sum(row.status == "failed" for row in rows)
    if failed:
        raise FailedCasesError(table, cases=len(rows), failed=failed)
    if isinstance(progress, JsonProgress):
        labels = label_values(read_header(prior_path(request.prior)), options.organs)
        progress.done(output=request.output, table=table, cases=len(rows), labels=labels)
    else:
        _say(f"{len(rows)} {'case' if len(rows) == 1 else 'cases'}: {table}")


def _tell_case(row: CaseRow) -> None:
    if row.error:
        text = row.error
    elif row.reused:
        text = "finished before"
    else:
        text = ", ".join(
            f"{organ} {volume_text(volume)} ml" if volume else f"{organ} not found"
            for organ, volume in row.volumes_ml.items()
        )
    _say(f"{row.name}: {text}")


def _say(line: str) -> None:
    from tqdm import tqdm

    # Above the bar, where there is one.
    tqdm.write(line)
