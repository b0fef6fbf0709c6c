"""The command line: `diffusam segment | train | evaluate | demo | models | pretrain-backbone`."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__
from .data_options import add_data_options, cases_of, organ_names
from .errors import DiffuSAMError, InputError
from .interrupts import EXIT_INTERRUPTED, EXIT_TERMINATED, Terminated, terminated_as_interrupt
from .models_command import add_models_options
from .progress import JsonProgress, Progress, TerminalProgress
from .train_command import add_train_options

if TYPE_CHECKING:
    from .cohort_table import CaseRow
    from .segmenter import SegmentOptions

# What --confidence and --preview hold when no file is named.
UNNAMED = Path()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 when the result is complete, 2 for bad input, 130 when interrupted, 143 when terminated.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the console has no letters for must not end a command; Windows' pipes have few.
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(message)s")
    as_json = JsonProgress(sys.stdout) if getattr(arguments, "json_progress", False) else None
    try:
        with ExitStack() as stack:
            stack.enter_context(terminated_as_interrupt())
            progress: Progress = as_json or stack.enter_context(TerminalProgress())
            arguments.run(arguments, progress)
    except DiffuSAMError as error:
        if as_json is not None:
            as_json.error(error)
        print(f"diffusam: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        if as_json is not None:
            as_json.error(error)
        print("diffusam: interrupted.", file=sys.stderr)
        return EXIT_TERMINATED if isinstance(error, Terminated) else EXIT_INTERRUPTED
    except Exception as error:
        # A fault of this program: the parent process gets its last line, a person the traceback.
        if as_json is not None:
            as_json.error(error)
        raise
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'diffusam: {message}. Run "{self.prog} --help" to see the options.\n')


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="diffusam", description="Segments organs in CT and MR without prompts. Not for clinical use."
    )
    parser.add_argument("--version", action="version", version=f"DiffuSAM Segment {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is going on")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_segment(commands)
    add_train_options(commands.add_parser("train", help="train a prior on labelled volumes"))
    _add_evaluate(commands)
    _add_demo(commands)
    add_models_options(commands.add_parser("models", help="list, download, import, export or remove weights"))
    _add_pretrain(commands)
    return parser


def _add_segment(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("segment", help="segment one image, or a folder of images")
    command.add_argument(
        "image", type=Path, nargs="?", metavar="IMAGE", help="NIfTI, NRRD or MHA file, or DICOM folder"
    )
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=".nii.gz, .nrrd, .mha or .seg.nrrd; with --images, a folder",
    )
    command.add_argument(
        "--modality", choices=("CT", "MR"), help="if the file does not state it, or states it wrongly"
    )
    command.add_argument("--series", help="of a DICOM folder: number, UID or part of the description")
    for option, what in (("--confidence", "the confidence map"), ("--preview", "a picture (PNG)")):
        command.add_argument(
            option,
            type=Path,
            nargs="?",
            const=UNNAMED,
            metavar="FILE",
            help=f"write {what} here; with --images, for each case, and without a file name",
        )
    command.add_argument("--report", type=Path, help="write a JSON report here")
    command.add_argument(
        "--json-progress", action="store_true", help="one JSON object a line on standard output"
    )
    _add_inference_options(command)
    _add_cohort_options(command)
    command.set_defaults(run=_segment)


def _add_cohort_options(command: argparse.ArgumentParser) -> None:
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
        choices=("nii.gz", "nrrd", "seg.nrrd", "mha"),
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


def _add_inference_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--prior", default="abdomen", help="name or file of the prior (default: abdomen)")
    command.add_argument("--organs", help="names separated by commas (default: all the prior knows)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    command.add_argument("--steps", type=int, default=2, help="diffusion sampling steps (default: 2)")
    command.add_argument("--samples", type=int, default=1, help="chains averaged (default: 1)")
    command.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    command.add_argument(
        "--no-3d", action="store_true", help="decode every slice by itself (the paper's ablation)"
    )
    command.add_argument(
        "--axial-only", action="store_true", help="leave out the other planes of a prior that knows three"
    )
    command.add_argument(
        "--no-regions",
        action="store_true",
        help="in a modality that the prior has not learnt from, let organs lie anywhere",
    )
    command.add_argument(
        "--no-smooth", action="store_true", help="do not let masks spread to the edges of the image's tissues"
    )
    command.add_argument(
        "--no-refine",
        action="store_true",
        help="leave outlines as coarse as the network draws them, and fat in organs",
    )
    command.add_argument("--no-clean", action="store_true", help="keep small pieces and holes")


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("evaluate", help="score a prior on labelled cases it has not seen")
    add_data_options(command)
    command.add_argument(
        "--part", choices=("development", "test"), default="development", help="of the split"
    )
    command.add_argument("--report", type=Path, help="write the scores as JSON here")
    command.add_argument("--json-progress", action="store_true")
    _add_inference_options(command)
    command.set_defaults(run=_evaluate)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("demo", help="segment the procedural abdomen, end to end, without network")
    command.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder (default: demo)")
    command.set_defaults(run=_demo)


def _add_pretrain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("pretrain-backbone", help="pretrain the compact backbone")
    command.add_argument("--data", type=Path, action="append", default=[], help="as for train; repeatable")
    command.add_argument("--split", type=Path, required=True, help="split file; takes its training cases")
    command.add_argument("-o", "--output", type=Path, required=True, help="weights file (.safetensors)")
    command.add_argument(
        "--procedural", type=int, default=36, help="procedural abdomens to add (default: 36)"
    )
    command.add_argument("--minutes", type=float, default=60)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="any other setting, such as intensity.strength=0.7; repeatable",
    )
    command.add_argument(
        "--start", metavar="WEIGHTS", help='weights file to continue from, or "compact" for the bundled ones'
    )
    command.add_argument(
        "--outlines", metavar="PRIOR", help="name or file of a prior whose outlines are continued with"
    )
    command.set_defaults(run=_pretrain)


def _segment(arguments: argparse.Namespace, progress: Progress) -> None:
    if (arguments.image is None) == (arguments.images is None):
        raise InputError(
            "Both an IMAGE and --images are given." if arguments.image else "No image is given.",
            hint="Give one IMAGE, or a folder of them with --images.",
        )
    if arguments.images is not None:
        _segment_cohort(arguments, progress)
        return
    for option in ("format", "dask", "workers", "retries"):
        if getattr(arguments, option) is not None:
            raise InputError(f"--{option} belongs to --images.", hint="Leave it out for one image.")
    for option in ("confidence", "preview"):
        if getattr(arguments, option) is UNNAMED:
            raise InputError(f"--{option} names no file.", hint="Say where to write it.")
    from .segment_file import SegmentRequest, segment_file

    request = SegmentRequest(
        image=arguments.image,
        output=arguments.output,
        prior=arguments.prior,
        device=arguments.device,
        modality=arguments.modality,
        series=arguments.series,
        confidence=arguments.confidence,
        report=arguments.report,
        preview=arguments.preview,
        options=_segment_options(arguments),
    )
    if isinstance(progress, JsonProgress):
        from .organ_names import chosen_organs
        from .prior_files import read_header
        from .weights import prior_path

        known = [label.name for label in read_header(prior_path(request.prior)).labels]
        names = chosen_organs(known, request.options.organs)
        report = segment_file(
            request,
            progress=progress,
            on_decoded=lambda number, organ, _: progress.slice(slice=number, organ=names[organ]),
        )
        progress.done(output=request.output, organs=report.organs)
    else:
        report = segment_file(request, progress=progress)
        for organ in report.organs:
            print(f"{organ.name}: {organ.volume_ml:.0f} ml" if organ.present else f"{organ.name}: not found")


def _segment_cohort(arguments: argparse.Namespace, progress: Progress) -> None:
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
        options=_segment_options(arguments),
        cluster=arguments.dask,
        workers=arguments.workers,
        retries=2 if arguments.retries is None else arguments.retries,
    )
    tell = progress.case if isinstance(progress, JsonProgress) else None
    rows = segment_cohort(
        request,
        progress=progress,
        on_case=(lambda row: tell(**vars(row))) if tell else _print_case,
    )
    table = request.output / TABLE_CSV
    failed = sum(row.status == "failed" for row in rows)
    if failed:
        raise InputError(
            f"{failed} of {len(rows)} cases could not be segmented.", hint=f"The table {table} says why."
        )
    if isinstance(progress, JsonProgress):
        progress.done(output=request.output, table=table, cases=len(rows))
    else:
        print(f"{len(rows)} cases: {table}")


def _print_case(row: CaseRow) -> None:
    from tqdm import tqdm

    if row.error:
        text = row.error
    elif row.reused:
        text = "finished before"
    else:
        text = ", ".join(f"{organ} {volume:.0f} ml" for organ, volume in row.volumes_ml.items())
    # Above the bar, where there is one.
    tqdm.write(f"{row.name}: {text}")


def _evaluate(arguments: argparse.Namespace, progress: Progress) -> None:
    from .devices import choose_device
    from .evaluation import evaluate
    from .files import require_writable
    from .splits import load_split
    from .weights import load_prior

    if arguments.report is not None:
        require_writable(arguments.report)
    only = getattr(load_split(arguments.split), arguments.part) if arguments.split else None
    evaluation = evaluate(
        load_prior(arguments.prior),
        cases_of(arguments, only),
        options=_segment_options(arguments),
        device=choose_device(arguments.device),
        progress=progress,
    )
    if not isinstance(progress, JsonProgress):
        # First, so that a report that cannot be written costs no scores.
        print(evaluation.table())
    if arguments.report is not None:
        evaluation.write(arguments.report)
    if isinstance(progress, JsonProgress):
        progress.done(mean_dice=evaluation.mean(), report=arguments.report)


def _demo(arguments: argparse.Namespace, progress: Progress) -> None:
    from .demo import run_demo

    print(run_demo(arguments.output, progress=progress))


def _pretrain(arguments: argparse.Namespace, progress: Progress) -> None:
    from .config_json import settings_of
    from .pretrain import pretrain_backbone

    pretrain_backbone(
        arguments.data,
        arguments.split,
        arguments.output,
        procedural=arguments.procedural,
        settings={**settings_of(arguments.set), "minutes": arguments.minutes, "seed": arguments.seed},
        start=arguments.start,
        outlines=arguments.outlines,
        progress=progress,
    )
    print(arguments.output)


def _segment_options(arguments: argparse.Namespace) -> SegmentOptions:
    from .propagation import PropagationConfig
    from .segmenter import SegmentOptions

    return SegmentOptions(
        organs=organ_names(arguments.organs),
        steps=arguments.steps,
        samples=arguments.samples,
        seed=arguments.seed,
        regions=not arguments.no_regions,
        smooth=not arguments.no_smooth,
        refine=not arguments.no_refine,
        clean=not arguments.no_clean,
        axial_only=arguments.axial_only,
        propagation=PropagationConfig(three_d=not arguments.no_3d),
    )


if __name__ == "__main__":
    sys.exit(main())
