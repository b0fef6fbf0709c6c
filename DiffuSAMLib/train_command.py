"""`diffusam train`: its options, and what it tells while it runs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config_json import settings_of
from .data_options import add_data_options, cases_of, organ_names
from .errors import InputError
from .progress import JsonProgress, Progress
from .training_events import LossesEvent, ValidationEvent, progress_line
from .training_messages import outcome, tell_event, tell_finding

if TYPE_CHECKING:
    from .preflight import Finding
    from .prior_files import PriorHeader
    from .recipe import Recipe

LINE_SECONDS = 30.0
# Options that stand for one setting of the recipe: its place in the file, what reads the value, and the help.
SETTINGS: tuple[tuple[str, str, Any, str], ...] = (
    ("--backbone", "backbone", str, "compact, sam2.1_tiny, ... (default: compact)"),
    ("--image-size", "image_size", int, "side of the slices in pixels (default: 256 or 512)"),
    ("--procedural", "procedural", int, "procedural abdomens to add (default: 0)"),
    ("--twins", "twins", int, "MR-like twins of the CT cases to add (default: 0)"),
    (
        "--start",
        "start",
        str,
        "prior whose weights to begin with: a name, a file, none, or auto (the bundled one where it fits)",
    ),
    ("--iterations", "training.iterations", int, "steps of the optimizer (default: 7800)"),
    ("--minutes", "training.minutes", float, "end earlier, after this time"),
    ("--batch", "training.batch", int, "slices in a step"),
    ("--learning-rate", "training.learning_rate", float, "the highest"),
    ("--prior-weight", "training.prior_weight", float, "lambda of equation 1 (default: 1)"),
    ("--segmentation-weight", "training.segmentation_weight", float, "lambda of equation 2 (default: 1)"),
    ("--seed", "training.seed", int, "(default: 0)"),
    (
        "--validation",
        "validation.held_out",
        str,
        "what is held out: a case's name, slices, none or auto (default)",
    ),
    (
        "--patience",
        "validation.patience",
        int,
        "end after so many validations without a better one (default: never)",
    ),
)


def add_train_options(command: argparse.ArgumentParser) -> None:
    """Options of `diffusam train` and of `train_prior.py`."""
    add_data_options(command)
    command.add_argument("-o", "--output", type=Path, help="prior file (.safetensors)")
    command.add_argument(
        "--organs",
        help="names separated by commas, in double quotes if one has a comma (default: all that are labelled)",
    )
    command.add_argument("--title", help="name for people (default: the organs)")
    command.add_argument("--licence", help="licence of the weights (default: as the training data)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--check-only", action="store_true", help="check the cases, and train nothing")
    what.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run; a finished one is left"
    )
    what.add_argument(
        "--restart", action="store_true", help="drop an interrupted run, or replace a finished prior"
    )
    what.add_argument(
        "--finish", action="store_true", help="write the prior of an interrupted run as far as it got"
    )
    command.add_argument(
        "--json-progress", action="store_true", help="one JSON object a line on standard output"
    )
    recipe = command.add_argument_group(
        "recipe", "Every setting is in the recipe; these options come before it."
    )
    recipe.add_argument(
        "--config",
        help="compact, one-modality, paper, a JSON file, or a prior (default: paper for sam2.1 backbones)",
    )
    recipe.add_argument(
        "--write-config", type=Path, metavar="FILE", help="write the recipe that would be used, and end"
    )
    recipe.add_argument("--kind", choices=("diffusion", "regression"), help="(default: diffusion)")
    for option, place, kind, text in SETTINGS:
        recipe.add_argument(option, type=kind, dest=place, metavar=kind.__name__.upper(), help=text)
    recipe.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="any other setting, such as training.spatial.rotation=10; repeatable",
    )
    command.set_defaults(run=run_train)


def run_train(arguments: argparse.Namespace, progress: Progress) -> None:
    """Runs the command."""
    from .processes import is_main

    main = is_main()
    if not main and (arguments.write_config or arguments.check_only or arguments.finish):
        return
    as_json = progress if main and isinstance(progress, JsonProgress) else None
    recipe = recipe_of(arguments)
    if arguments.write_config is not None:
        recipe.write(arguments.write_config)
        _done(as_json, str(arguments.write_config), output=arguments.write_config)
        return
    teller = _Teller(as_json)
    if not arguments.check_only and arguments.output is None:
        raise InputError("Nothing says where to write the prior.", hint="Give -o PRIOR.safetensors.")
    if arguments.finish:
        from .finished_training import finish_training

        header = finish_training(arguments.output, title=arguments.title, licence=arguments.licence)
        _finished(arguments.output, header, as_json)
        return
    if arguments.resume and _is_finished(arguments.output, as_json, main=main):
        return
    from .splits import load_split

    only = load_split(arguments.split).train if arguments.split else None
    cases = cases_of(arguments, only, report=teller.matched)
    organs = organ_names(arguments.organs)
    if arguments.check_only:
        from .learnt_cases import read_learnt_cases
        from .learnt_organs import organs_of, unified

        cases = unified(cases)
        chosen = organs_of(cases, organs)
        try:
            read_learnt_cases(cases, chosen, recipe, on_finding=teller.finding)
        finally:
            teller.flush()
        count = "1 case" if len(cases) == 1 else f"{len(cases)} cases"
        _done(as_json, f"{count} can be trained on: {', '.join(chosen)}.", cases=len(cases))
        return
    from .train import train_prior

    header = train_prior(
        cases,
        arguments.output,
        organs=organs,
        recipe=recipe,
        title=arguments.title,
        licence=arguments.licence,
        device=arguments.device,
        resume=arguments.resume,
        restart=arguments.restart,
        progress=progress if main else None,
        listener=teller.event if main else None,
        on_finding=teller.finding if main else None,
    )
    if main:
        _finished(arguments.output, header, as_json)


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the options ask for: of the interrupted run, the file or the backbone, with what is overridden.

    Raises:
        InputError: There is no such recipe, or a setting cannot be.
    """
    from .requested_recipe import requested_recipe

    options = vars(arguments)
    settings = {place: options[place] for _, place, _, _ in SETTINGS if options[place] is not None}
    if arguments.kind is not None:
        settings["kind"] = arguments.kind
    settings.update(settings_of(arguments.set))
    return requested_recipe(
        config=arguments.config,
        resumed=arguments.output if arguments.resume else None,
        backbone=options["backbone"] or "compact",
        settings=settings,
    )


class _Teller:
    """Says in plain sentences, or as JSON events, what matched, what the check found and how the training goes."""

    def __init__(self, as_json: JsonProgress | None) -> None:
        self._json = as_json
        self._lines: list[str] = []
        self._validation: ValidationEvent | None = None
        self._said = time.monotonic()

    def matched(self, line: str) -> None:
        if self._json is not None:
            from .preflight import Finding

            tell_finding(self._json, Finding("info", None, line))
        else:
            self._lines.append(line)

    def finding(self, finding: Finding) -> None:
        if self._json is not None:
            tell_finding(self._json, finding)
        else:
            self._lines.append(f"{finding.level.capitalize()}: {finding}")

    def flush(self) -> None:
        """Says what the check found; held back until now, since a training that cannot be has one line to say."""
        for line in self._lines:
            self._say(line)
        self._lines = []

    def event(self, event: LossesEvent | ValidationEvent) -> None:
        self.flush()
        if self._json is not None:
            tell_event(self._json, event)
            return
        if not isinstance(event, LossesEvent):
            self._validation = event
        elif time.monotonic() - self._said >= LINE_SECONDS or event.iteration == event.iterations:
            self._said = time.monotonic()
            self._say(progress_line(event, self._validation))

    def _say(self, line: str) -> None:
        from tqdm import tqdm

        # Above the bar, where there is one.
        tqdm.write(line)


def _is_finished(output: Path, as_json: JsonProgress | None, *, main: bool) -> bool:
    """Whether there is a finished prior rather than a run to resume; says so where this is the process that tells.

    So a job that a cluster starts again keeps its result.
    """
    from .finished_training import finished_prior

    header = finished_prior(output)
    if header is not None and main:
        text = f"{output} is finished: nothing was left to resume, and nothing was changed; --restart begins anew."
        _done(as_json, text, output=output, **outcome(output, header))
    return header is not None


def _finished(output: Path, header: PriorHeader, as_json: JsonProgress | None) -> None:
    result = outcome(output, header)
    text = f"{output}: {', '.join(result['labels'])}"
    if result["mean_dice"] is not None:
        text += f"; held-out Dice {result['mean_dice']:.2f}"
    _done(as_json, text, output=output, **result)


def _done(as_json: JsonProgress | None, text: str, **result: Any) -> None:
    if as_json is not None:
        as_json.done(**result)
    else:
        from tqdm import tqdm

        tqdm.write(text)
