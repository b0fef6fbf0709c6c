"""The command line: `diffusam segment | train | evaluate | demo | models | pretrain-backbone`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__
from .errors import DiffuSAMError, InputError
from .progress import JsonProgress, Progress, ProgressEvent, TerminalProgress

if TYPE_CHECKING:
    from .datasets import LabelledFiles
    from .segmenter import SegmentOptions

EXIT_INTERRUPTED = 130
Command = Callable[[argparse.Namespace, Progress], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 when the result is complete, 2 for bad input, 130 when interrupted.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(message)s")
    as_json = JsonProgress(sys.stdout) if getattr(arguments, "json_progress", False) else None
    try:
        with ExitStack() as stack:
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
        return EXIT_INTERRUPTED
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
    _add_train(commands)
    _add_evaluate(commands)
    _add_demo(commands)
    _add_models(commands)
    _add_pretrain(commands)
    return parser


def _add_segment(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("segment", help="segment one image")
    command.add_argument("image", type=Path, metavar="IMAGE", help="NIfTI, NRRD or MHA file, or DICOM folder")
    command.add_argument("-o", "--output", type=Path, required=True, help=".nii.gz, .nrrd, .mha or .seg.nrrd")
    command.add_argument(
        "--modality", choices=("CT", "MR"), help="where the file does not say, or says it wrongly"
    )
    command.add_argument("--series", help="of a DICOM folder: number, UID or part of the description")
    command.add_argument("--confidence", type=Path, help="write the confidence map here")
    command.add_argument("--report", type=Path, help="write a JSON report here")
    command.add_argument("--preview", type=Path, help="write a picture (PNG) here")
    command.add_argument(
        "--json-progress", action="store_true", help="one JSON object a line on standard output"
    )
    _add_inference_options(command)
    command.set_defaults(run=_segment)


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
    command.add_argument("--no-clean", action="store_true", help="keep small pieces and holes")


def _add_data_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--images", type=Path, help="folder of images")
    command.add_argument("--labels", type=Path, help="folder of label maps with the images' names")
    command.add_argument("--label-names", help="1=spleen,2=right kidney,...")
    command.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        help="folder with images/, labels/, dataset.json; repeatable",
    )
    command.add_argument("--split", type=Path, help="split file; takes its cases only")


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("train", help="train a prior on labelled volumes")
    _add_data_options(command)
    command.add_argument("-o", "--output", type=Path, required=True, help="prior file (.safetensors)")
    command.add_argument("--organs", help="names separated by commas (default: all that are labelled)")
    command.add_argument("--backbone", default="compact", help="compact, sam2.1_tiny, ... (default: compact)")
    command.add_argument("--image-size", type=int, help="side of the slices (default: the backbone's)")
    command.add_argument("--kind", choices=("diffusion", "regression"), default="diffusion")
    command.add_argument("--start", help="name or file of a prior whose weights to begin with")
    command.add_argument("--procedural", type=int, default=0, help="procedural abdomens to add (default: 0)")
    command.add_argument("--iterations", type=int, default=7800)
    command.add_argument("--minutes", type=float, help="end earlier, after this time")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--title", default="", help="name for people")
    command.add_argument("--licence", default="As the training data", help="licence of the weights")
    command.add_argument("--device", default="auto")
    command.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    command.add_argument("--json-progress", action="store_true")
    command.set_defaults(run=_train)


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("evaluate", help="score a prior on labelled cases it has not seen")
    _add_data_options(command)
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


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("models", help="list, download, import or remove weights")
    command.set_defaults(run=_models)
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what there is, and where")
    for action in ("download", "remove"):
        actions.add_parser(action).add_argument("name")
    importing = actions.add_parser("import", help="take a file that was downloaded elsewhere")
    importing.add_argument("file", type=Path)
    importing.add_argument("--name", help="of an imported prior (default: its own)")


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
    command.set_defaults(run=_pretrain)


def _segment(arguments: argparse.Namespace, progress: Progress) -> None:
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
        report = segment_file(
            request,
            progress=progress,
            on_decoded=lambda number, organ, _: progress.slice(slice=number, organ=organ),
        )
        progress.done(output=request.output, organs=report.organs)
    else:
        report = segment_file(request, progress=progress)
        for organ in report.organs:
            print(f"{organ.name}: {organ.volume_ml:.0f} ml" if organ.present else f"{organ.name}: not found")


def _train(arguments: argparse.Namespace, progress: Progress) -> None:
    from .splits import load_split
    from .train import train_prior
    from .training import TrainingConfig

    only = load_split(arguments.split).train if arguments.split else None
    header = train_prior(
        _cases(arguments, only),
        arguments.output,
        organs=_names(arguments.organs),
        backbone=arguments.backbone,
        image_size=arguments.image_size,
        kind=arguments.kind,
        start=arguments.start,
        procedural=arguments.procedural,
        config=TrainingConfig(
            iterations=arguments.iterations, minutes=arguments.minutes, seed=arguments.seed
        ),
        title=arguments.title,
        licence=arguments.licence,
        device=arguments.device,
        resume=arguments.resume,
        progress=progress,
    )
    if isinstance(progress, JsonProgress):
        progress.done(output=arguments.output)
    else:
        print(f"{arguments.output}: {', '.join(label.name for label in header.labels)}")


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
        _cases(arguments, only),
        options=_segment_options(arguments),
        device=choose_device(arguments.device),
        progress=progress,
    )
    if arguments.report is not None:
        evaluation.write(arguments.report)
    if isinstance(progress, JsonProgress):
        progress.done(mean_dice=evaluation.mean(), report=arguments.report)
    else:
        print(evaluation.table())


def _demo(arguments: argparse.Namespace, progress: Progress) -> None:
    from .demo import run_demo

    print(run_demo(arguments.output, progress=progress))


def _models(arguments: argparse.Namespace, progress: Progress) -> None:
    from . import catalogue

    if arguments.action == "list":
        for weights in catalogue.list_weights():
            entry = weights.entry
            print(
                f"{entry.name:20} {entry.kind:9} {weights.status:15} {entry.bytes / 1e6:6.0f} MB  {entry.licence}"
            )
        print(f"Cache folder: {catalogue.cache_folder()}")
    elif arguments.action == "download":
        print(
            catalogue.fetch(
                arguments.name, progress=lambda done, total: progress(ProgressEvent("download", done, total))
            )
        )
    elif arguments.action == "import":
        print(f"Imported as {catalogue.import_file(arguments.file, name=arguments.name).name}.")
    else:
        catalogue.remove(arguments.name)
        print(f"Removed {arguments.name}.")


def _pretrain(arguments: argparse.Namespace, progress: Progress) -> None:
    from .pretrain import pretrain_backbone

    pretrain_backbone(
        arguments.data,
        arguments.split,
        arguments.output,
        procedural=arguments.procedural,
        minutes=arguments.minutes,
        seed=arguments.seed,
        progress=progress,
    )
    print(arguments.output)


def _segment_options(arguments: argparse.Namespace) -> SegmentOptions:
    from .propagation import PropagationConfig
    from .segmenter import SegmentOptions

    return SegmentOptions(
        organs=_names(arguments.organs),
        steps=arguments.steps,
        samples=arguments.samples,
        seed=arguments.seed,
        clean=not arguments.no_clean,
        propagation=PropagationConfig(three_d=not arguments.no_3d),
    )


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InputError("--organs names no organ.", hint="Write for example --organs spleen,liver.")
    return names


def _cases(arguments: argparse.Namespace, only: Sequence[str] | None) -> list[LabelledFiles]:
    from .datasets import find_cases, read_dataset

    cases = [
        case
        for folder in arguments.data
        for case in read_dataset(folder)
        if only is None or case.name in only
    ]
    if arguments.images or arguments.labels or arguments.label_names:
        if not (arguments.images and arguments.labels and arguments.label_names):
            raise InputError("--images, --labels and --label-names belong together.", hint="Give all three.")
        cases += find_cases(
            arguments.images, arguments.labels, parse_label_names(arguments.label_names), only=only
        )
    if not cases:
        raise InputError(
            "There are no labelled cases.", hint="Give --images, --labels and --label-names, or --data."
        )
    return cases


def parse_label_names(text: str) -> dict[int, str]:
    """The label table of "1=spleen,2=right kidney".

    Raises:
        InputError: It is not such a list.
    """
    names = {}
    for part in text.split(","):
        value, equals, name = part.partition("=")
        if not equals or not value.strip().isdigit() or not 0 < int(value) < 256 or not name.strip():
            raise InputError(f'"{part}" is not a label name.', hint="Write 1=spleen,2=right kidney,...")
        names[int(value)] = name.strip()
    return names


if __name__ == "__main__":
    sys.exit(main())
