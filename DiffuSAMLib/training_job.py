"""The worker's job "train": labelled volumes in, a prior in the catalogue out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .progress import JsonProgress, ProgressEvent
from .stop_request import StopRequest
from .training_messages import outcome, tell_event, tell_finding

if TYPE_CHECKING:
    from .labelled_files import LabelledFiles

_SETTINGS = {
    "backbone": "backbone",
    "minutes": "training.minutes",
    "iterations": "training.iterations",
    "seed": "training.seed",
    "start": "start",
}
_TEXTS = ("name", "title", "licence", "modality", "start", "device", "config", "unfinished")
_CASE_FIELDS = {"name", "image", "labels", "label_names", "modality"}
_UNFINISHED = ("refuse", "resume", "restart")


def run_training_job(job: Mapping[str, Any], progress: JsonProgress, stop: StopRequest) -> dict[str, Any]:
    """Trains, and says what the `done` event says.

    Args:
        job: The fields that the worker's documentation lists.
        progress: Where the events go.
        stop: Asked between iterations.

    Raises:
        InputError: A field is missing, unknown or of the wrong type, or the cases cannot be trained on.
        KeyboardInterrupt: The training was stopped, and nothing is to be kept.
    """
    # Checked before torch is imported, so that a wrong job is answered at once.
    fields = _checked(job)
    cases = [_case(case, fields.get("modality")) for case in fields["cases"]]

    from .catalogue import new_prior_path
    from .requested_recipe import requested_recipe
    from .train import train_prior

    output = new_prior_path(fields["name"], replace=bool(fields.get("replace")))
    unfinished = fields.get("unfinished", "refuse")
    recipe = requested_recipe(
        config=fields.get("config"),
        resumed=output if unfinished == "resume" else None,
        backbone=fields.get("backbone", "compact"),
        settings={place: fields[name] for name, place in _SETTINGS.items() if name in fields},
    )

    def tell(event: ProgressEvent) -> None:
        if event.stage == "read" and stop.pressed:
            raise KeyboardInterrupt
        progress(event)

    header = train_prior(
        cases,
        output,
        organs=fields.get("organs"),
        recipe=recipe,
        title=fields.get("title"),
        licence=fields.get("licence"),
        device=fields.get("device", "auto"),
        resume=unfinished == "resume",
        restart=unfinished == "restart",
        replace=bool(fields.get("replace")),
        progress=tell,
        listener=lambda event: tell_event(progress, event),
        on_finding=lambda finding: tell_finding(progress, finding),
        stop=stop,
    )
    return outcome(output, header)


def _checked(job: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are there, each of the right type."""
    fields = {name: value for name, value in job.items() if value is not None}
    for name, value in fields.items():
        good = (
            (name in _TEXTS and isinstance(value, str))
            or (name in ("iterations", "seed") and _is_number(value) and isinstance(value, int))
            or (name == "minutes" and _is_number(value))
            or (name == "backbone" and isinstance(value, str))
            or (name == "replace" and isinstance(value, bool))
            or (name == "organs" and isinstance(value, list) and all(isinstance(x, str) for x in value))
            or (name == "cases" and isinstance(value, list))
        )
        if not good:
            raise InputError(f'The job has a field "{name}" that is unknown or of the wrong type.')
    if not fields.get("cases"):
        raise InputError("The job has no cases to train on.", hint="Choose volumes and their segmentations.")
    if not fields.get("name"):
        raise InputError("The job names no prior.", hint="Give the new prior a name.")
    if fields.get("unfinished", "refuse") not in _UNFINISHED:
        raise InputError(f'The field "unfinished" must be one of {", ".join(_UNFINISHED)}.')
    return fields


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _case(case: Any, modality: str | None) -> LabelledFiles:
    from .label_tables import label_table, names_in_file
    from .labelled_files import LabelledFiles

    if not isinstance(case, dict) or not set(case) <= _CASE_FIELDS:
        raise InputError("A case of the job is not an object of name, image, labels, label_names, modality.")
    for name in ("name", "image", "labels"):
        if not isinstance(case.get(name), str) or not case[name]:
            raise InputError(f'A case of the job has no text "{name}".')
    if not isinstance(case.get("modality"), str | None):
        raise InputError('A case of the job has a "modality" that is no text.')
    labels = Path(case["labels"])
    table = case.get("label_names")
    names = names_in_file(labels) if table is None else label_table(table, source=f"The case {case['name']}")
    return LabelledFiles(case["name"], Path(case["image"]), labels, names, case.get("modality") or modality)
