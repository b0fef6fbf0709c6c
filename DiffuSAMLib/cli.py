"""The command line: `diffusam segment | train | evaluate | demo | models | pretrain-backbone`."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

from . import __version__
from .cohort_command import UNNAMED, add_cohort_options, run_cohort
from .data_options import add_data_options, cases_of, organ_names
from .errors import DiffuSAMError, InputError
from .interrupts import EXIT_INTERRUPTED, EXIT_TERMINATED, Terminated, terminated_as_interrupt
from .lasting_stream import LastingStream
from .models_command import add_models_options
from .out_of_memory import telling_memory
from .progress import JsonProgress, Progress, TerminalProgress
from .train_command import add_train_options
from .volume_text import volume_text

if TYPE_CHECKING:
    from .run_report import RunReport
    from .segmenter import SegmentOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 when the result is complete, 2 when the command could not be done, 130 when interrupted, 143 when terminated.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the console has no letters for must not end a command; Windows' pipes have few.
            stream.reconfigure(errors="backslashreplace")
    with ExitStack() as stack:
        if isinstance(sys.stdout, io.TextIOWrapper):
            stack.enter_context(_lasting_output(sys.stdout))
        return _run(sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> int:
    as_json = JsonProgress(sys.stdout) if any(map(_asks_for_json, argv)) else None
    try:
        arguments = _parser().parse_args(argv)
        logging.basicConfig(
            level=logging.INFO if arguments.verbose else logging.WARNING, format="%(message)s"
        )
        with ExitStack() as stack:
            stack.enter_context(terminated_as_interrupt())
            progress: Progress = as_json or stack.enter_context(TerminalProgress())
            # Most steps say more exactly what they had no room for.
            with telling_memory("this command"):
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


@contextmanager
def _lasting_output(stream: TextIO) -> Iterator[None]:
    """Prints to a stream, all of it by the end of the block; what nobody reads any more is dropped."""
    output = LastingStream(stream)
    with redirect_stdout(cast(TextIO, output)):
        try:
            yield
        finally:
            output.flush()


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}.", hint=f'Run "{self.prog} --help" to see the options.')


def _asks_for_json(argument: str) -> bool:
    """Whether it is `--json-progress`, by itself or shortened; also known of a command that cannot be parsed."""
    return len(argument) > len("--") and "--json-progress".startswith(argument)


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
    command.add_argument(
        "--series", help="of a DICOM folder: place in the list, from 1, UID or part of the description"
    )
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
    add_cohort_options(command)
    command.set_defaults(run=_segment)


def _add_inference_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--prior", default="abdomen", help="name or file of the prior (default: abdomen)")
    command.add_argument(
        "--organs",
        help="names separated by commas, in double quotes if one has a comma (default: all the prior knows)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    command.add_argument("--steps", type=int, default=2, help="diffusion sampling steps (default: 2)")
    command.add_argument(
        "--samples", type=int, default=1, help="results from different noise to average (default: 1)"
    )
    command.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    command.add_argument(
        "--no-3d",
        action="store_true",
        help="leave out what joins the slices: equation 3, smoothing across them, how bright organs are in all of "
        "them, and the regions of organs",
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
        "--no-appearance",
        action="store_true",
        help="with a prior of few cases, do not ask how bright the organs are in this scan",
    )
    command.add_argument(
        "--no-poses",
        action="store_true",
        help="in a modality that the prior has not learnt from, look at every slice once, not in three poses",
    )
    command.add_argument(
        "--no-smooth", action="store_true", help="do not let masks spread to the edges of the image's tissues"
    )
    command.add_argument(
        "--no-refine",
        action="store_true",
        help="leave outlines as coarse as the network draws them, and fat and bone in organs",
    )
    command.add_argument("--no-clean", action="store_true", help="keep small pieces and holes")


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("evaluate", help="score a prior on labelled cases it has not seen")
    add_data_options(command)
    command.add_argument(
        "--part", choices=("development", "test"), help="of the split (default: development)"
    )
    command.add_argument("--report", type=Path, help="write the scores as JSON here")
    command.add_argument(
        "--json-progress", action="store_true", help="one JSON object a line on standard output"
    )
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
    command.add_argument("--minutes", type=float, default=60, help="how long (default: 60)")
    command.add_argument("--seed", type=int, default=0, help="(default: 0)")
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
        run_cohort(arguments, _segment_options(arguments), progress)
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
        from .prior_files import read_header
        from .segment_file import label_values
        from .weights import prior_path

        labels = label_values(read_header(prior_path(request.prior)), request.options.organs)
        names = list(labels)
        report = segment_file(
            request,
            progress=progress,
            on_decoded=lambda number, organ, _: progress.slice(slice=number, organ=names[organ]),
        )
        progress.done(output=request.output, organs=report.organs, labels=labels)
    else:
        report = segment_file(request, progress=progress)
        # A DICOM folder states it.
        _print_report(report, guessed=request.modality is None and not request.image.is_dir())


def _print_report(report: RunReport, *, guessed: bool) -> None:
    if guessed:
        print(f"Taken for {report.inputs[0].modality}.")
    for organ in report.organs:
        found = f"{volume_text(organ.volume_ml)} ml" if organ.present else "not found"
        print(f"{organ.name}: {found}")


def _evaluate(arguments: argparse.Namespace, progress: Progress) -> None:
    if arguments.part is not None and arguments.split is None:
        raise InputError("--part belongs to --split.", hint="Give the split file, or leave --part out.")
    from .devices import choose_device
    from .evaluation import evaluate
    from .files import require_writable
    from .splits import load_split
    from .weights import load_prior

    if arguments.report is not None:
        require_writable(arguments.report)
    part = arguments.part or "development"
    only = getattr(load_split(arguments.split), part) if arguments.split else None
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
        appearance=not arguments.no_appearance,
        poses=not arguments.no_poses,
        smooth=not arguments.no_smooth,
        refine=not arguments.no_refine,
        clean=not arguments.no_clean,
        axial_only=arguments.axial_only,
        propagation=PropagationConfig(three_d=not arguments.no_3d),
    )


if __name__ == "__main__":
    sys.exit(main())
