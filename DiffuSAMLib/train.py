"""Labelled cases on disk become a prior file."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .checkpoints import other_run_error, read_checkpoint
from .datasets import LabelledFiles, LabelledStack, to_stack
from .devices import choose_device, memory_errors
from .errors import InputError, UnfinishedRunError
from .files import output_error, require_file_name
from .geometry import Geometry
from .label_traits import label_traits
from .labelmaps import LabelMap
from .mr_gamma import mr_gamma
from .mr_twins import mr_twins
from .organ_names import organ_key
from .plane_stacks import plane_stacks
from .planes import planes_to_learn
from .preflight import Finding, check_cases, organs_of, unified
from .prior import Prior
from .prior_files import PriorHeader, read_header
from .procedural import ORGAN_NAMES
from .procedural_stacks import procedural_stacks
from .processes import Processes
from .progress import Progress, ProgressEvent
from .recipe import Recipe
from .slice_sampler import SliceSampler
from .stack_pool import StackPool
from .training import Ending, PriorTraining, Validated, choose_weights
from .training_events import TrainingListener
from .training_log import TrainingLog
from .training_paths import checkpoint_path, run_folder
from .training_pictures import TrainingPictures
from .training_record import RunRecord
from .validation import HeldOut, Validation, choose_held_out
from .volumes import Volume
from .warm_start import begin_with, earlier_prior
from .weights import LoadedBackbone, load_backbone, save_prior

logger = logging.getLogger(__name__)


AS_THE_DATA = "As the training data"
"""Licence of a prior where nobody says more."""


def train_prior(
    cases: Sequence[LabelledFiles],
    output: Path,
    *,
    organs: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    title: str | None = None,
    licence: str | None = None,
    device: str = "auto",
    resume: bool = False,
    restart: bool = False,
    progress: Progress | None = None,
    listener: TrainingListener | None = None,
    on_finding: Callable[[Finding], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> PriorHeader:
    """Checks labelled cases, trains a prior on them and writes it.

    Beside the prior lie `NAME.training`, the unfinished run, and `NAME.run`, its tables and pictures and the
    priors of its best validation and of its end. Where a launcher has started several processes, they share the
    training, and `output` lies in a folder that all of them see.

    Args:
        cases: From `find_cases` or `read_dataset`.
        output: Prior file, ends in `.safetensors`.
        organs: Names to learn, in the order of their label numbers; None learns all that are labelled.
        recipe: Every setting; None takes the one tuned for the bundled backbone.
        title: Name for people; None is that of the run that is resumed, or the organs.
        licence: Licence of the weights; None is that of the run that is resumed, or that of the training data.
        device: As in `choose_device`.
        resume: Go on with an interrupted run, if there is one; where there is a finished prior instead, return its
            header and change nothing.
        restart: Drop an interrupted run, if there is one.
        progress: Called as training advances.
        listener: Told of losses and validations.
        on_finding: Told what the check of the cases finds.
        stop: Asked before each iteration whether to end now and keep the prior as it is.

    Raises:
        UnfinishedRunError: There is one, and neither `resume` nor `restart`.
        InputError: There are no cases or organs, an option is out of range, or an image or label map cannot be used.
        WeightsError: The backbone, or the prior to start from, cannot be used.
        OutputError: The prior cannot be written.
        OutOfMemoryError: The recipe needs more memory than there is.
    """
    recipe = recipe or Recipe()
    recipe.check()
    processes = Processes.launched(device)
    if recipe.training.batch < processes.count:
        raise InputError(
            f"A batch of {recipe.training.batch} cannot be shared by {processes.count} processes.",
            hint="Choose a larger --batch, or fewer processes.",
        )
    if output.suffix != ".safetensors":
        raise InputError(f"A prior's file ends in .safetensors, not {output.name}.")
    require_file_name(output)
    checkpoint = checkpoint_path(output)
    if checkpoint.exists() and not (resume or restart):
        raise UnfinishedRunError(
            f"{checkpoint} holds an unfinished run.",
            hint="Go on with --resume, write its prior with --finish, or delete it to start again.",
        )
    if resume and (finished := finished_prior(output)):
        return finished
    cases = unified(cases)
    chosen = organs_of(cases, organs)
    if recipe.procedural and not {organ_key(organ) for organ in chosen} & set(ORGAN_NAMES.values()):
        raise InputError(
            f"Procedural abdomens show only: {', '.join(ORGAN_NAMES.values())}.", hint="Add none of them."
        )
    if progress is not None:
        progress(ProgressEvent("load", 0, 1))
    loaded = load_backbone(recipe.backbone, image_size=recipe.image_size)
    network = loaded.backbone.to(processes.device or choose_device(device))
    stacks, geometries, digests = _read(cases, chosen, network.image_size, progress, on_finding)
    planes = planes_to_learn(recipe.planes, geometries)
    held_out = choose_held_out(stacks, recipe.validation)
    torch.manual_seed(recipe.training.seed)
    traits = label_traits(stacks, chosen)
    prior = Prior(recipe.prior_config(loaded.backbone, chosen, **traits, planes=planes)).to(network.device)
    if restart and processes.main:
        checkpoint.unlink(missing_ok=True)
    processes.wait()
    resumes = checkpoint.exists()
    earlier = None if resumes else earlier_prior(recipe.start, loaded, prior.config)
    modalities = sorted({stack.modality for stack in stacks})
    if recipe.twins and "CT" not in modalities:
        raise InputError("MR-like twins are made of CT, and no case is one.", hint="Add none of them.")
    record = RunRecord(
        organs=list(chosen),
        cases=[case.name for case in cases],
        modalities=modalities,
        backbone_sha256=loaded.sha256,
        recipe=recipe.to_dict(),
        title=title or ", ".join(chosen),
        licence=licence or AS_THE_DATA,
        held_out=_description(held_out),
        started_from=None,
        device=str(network.device),
        in_pieces=list(traits["in_pieces"]),
        solid=list(traits["solid"]),
        layout=traits["layout"],
        regions=traits["regions"],
        known=sorted({*modalities, *(earlier.modalities if earlier else ())}),
        planes=list(planes),
        mr_gamma=mr_gamma(
            modalities,
            procedural=recipe.procedural,
            twins=recipe.twins,
            earlier=earlier.header if earlier else None,
        ),
        image_digests=digests,
    )
    if resumes:
        begun = RunRecord.of(read_checkpoint(checkpoint, device=network.device), checkpoint)
        record = record.going_on_from(begun, checkpoint, title=title, licence=licence)
    elif earlier:
        begin_with(prior, earlier)
        record = record.started_with(earlier.sha256, earlier.header.training)
    learnt = [
        stack for stack in stacks if held_out is None or held_out.blocked or stack is not held_out.stack
    ]
    learnt += plane_stacks(cases, planes, organs=chosen, size=network.image_size, held_out=held_out)
    learnt += mr_twins(
        [case for case, stack in zip(cases, stacks, strict=True) if stack.modality == "CT"],
        recipe.twins,
        organs=chosen,
        size=network.image_size,
        beside_mr="MR" in modalities,
        held_out=held_out,
    )
    learnt += procedural_stacks(recipe.procedural, organs=chosen, size=network.image_size, real=modalities)
    blocked = {held_out.stack.name: held_out.blocked} if held_out and held_out.blocked else {}
    validation = None if held_out is None else Validation(held_out, network)
    training = PriorTraining(
        prior,
        network,
        SliceSampler(StackPool(learnt, blocked=blocked), recipe.training, context=network.slice_context),
        config=recipe.training,
        checkpoint=checkpoint,
        validation=validation,
        validation_config=recipe.validation,
        record=record.to_json(),
        processes=processes,
    )
    training.resume()
    if not processes.main:
        with _memory_errors(network.device):
            training.run(stop=stop)
        processes.wait()
        return read_header(output)
    folder = _open_folder(output, recipe, fresh=training.iteration == 0)
    pictures = TrainingPictures(folder, network, stacks, validation)
    with _memory_errors(network.device):
        training.run(
            progress,
            listener=listener,
            stop=stop,
            log=TrainingLog(folder, resumed_at=training.iteration),
            on_validated=pictures.overlay if validation is not None else None,
        )
        if progress is not None:
            progress(ProgressEvent("write", 0, 1))
    header = finish_training(output, ended=training.ended, backbone=loaded)
    processes.wait()
    # Last of all: whatever they do, the prior is there.
    prior.load_state_dict(training.chosen()[0])
    pictures.explain(prior)
    return header


def finish_training(
    output: Path, *, ended: Ending = "stopped", backbone: LoadedBackbone | None = None
) -> PriorHeader:
    """Writes the prior of a run from its checkpoint, and removes that.

    Args:
        output: As in `train_prior`.
        ended: Why it ended.
        backbone: Its backbone, where it is loaded already.

    Raises:
        InputError: There is no unfinished run, or it is damaged or has not begun.
        WeightsError: Its backbone cannot be used.
        OutputError: The prior cannot be written.
    """
    checkpoint = checkpoint_path(output)
    if not checkpoint.exists():
        raise InputError(f"There is no unfinished run {checkpoint}.", hint="Check the name of the prior.")
    state = read_checkpoint(checkpoint, device=torch.device("cpu"))
    record = RunRecord.of(state, checkpoint)
    if not state["iteration"]:
        raise InputError(f"The run in {checkpoint} has not begun.", hint="Go on with --resume.")
    recipe = Recipe.from_dict(record.recipe, source=str(checkpoint))
    loaded = backbone or load_backbone(recipe.backbone, image_size=recipe.image_size)
    if loaded.sha256 != record.backbone_sha256:
        raise other_run_error(checkpoint)
    validated = [Validated.from_json(look) for look in json.loads(state["validated"])]
    weights, look = choose_weights(state["averaged"], state["best"], validated, recipe.validation.margin)
    last = validated[-1] if validated and validated[-1].iteration == state["iteration"] else None

    def write(path: Path, weights: dict[str, torch.Tensor], look: Validated | None) -> PriorHeader:
        return save_prior(
            path,
            weights,
            config=recipe.prior_config(
                loaded.backbone,
                tuple(record.organs),
                in_pieces=tuple(record.in_pieces),
                solid=tuple(record.solid),
                layout=record.layout,
                regions=record.regions,
                modalities=tuple(record.known),
                planes=tuple(record.planes),
                mr_gamma=record.mr_gamma,
            ),
            backbone=loaded,
            title=record.title,
            modalities=record.modalities,
            licence=record.licence,
            training={
                "cases": record.cases,
                "image_digests": record.image_digests,
                "started_from": record.started_from,
                "procedural_abdomens": recipe.procedural,
                "mr_twins": recipe.twins,
                # Priors are passed on: nobody need learn where files lay on the computer that made them.
                "recipe": {**record.recipe, "start": Path(recipe.start).name},
                "iterations": state["iteration"],
                "minutes": round(state["seconds"] / 60, 1),
                "ended": ended,
                "held_out": record.held_out,
                "device": record.device,
            },
            metrics={} if look is None else {"held_out": _scores(look, record)},
        )

    folder = run_folder(output)
    write(folder / "last.safetensors", state["averaged"], last)
    if state["best"] is not None:
        best = max(validated, key=lambda each: (each.mean or 0, each.iteration))
        write(folder / "best.safetensors", state["best"], best)
    header = write(output, weights, look)
    checkpoint.unlink()
    return header


def finished_prior(output: Path) -> PriorHeader | None:
    """The prior of a run that has ended, of which nothing is left to resume; None where there is none.

    Raises:
        WeightsError: There is a file of that name, but it is no prior, or damaged.
    """
    return read_header(output) if output.is_file() and not checkpoint_path(output).exists() else None


def resumed_recipe(output: Path) -> Recipe | None:
    """The recipe of a prior's unfinished run; None where there is no run.

    Raises:
        InputError: The run is damaged.
    """
    checkpoint = checkpoint_path(output)
    if not checkpoint.exists():
        return None
    record = RunRecord.of(read_checkpoint(checkpoint, device=torch.device("cpu")), checkpoint)
    return Recipe.from_dict(record.recipe, source=str(checkpoint))


def _read(
    cases: Sequence[LabelledFiles],
    organs: tuple[str, ...],
    size: int,
    progress: Progress | None,
    on_finding: Callable[[Finding], None] | None,
) -> tuple[list[LabelledStack], list[Geometry], list[str]]:
    """The cases as axial stacks, their grids, and the digests of their images, after the pre-flight check."""
    stacks: list[LabelledStack] = []
    geometries: list[Geometry] = []

    def keep(case: LabelledFiles, volume: Volume, labels: LabelMap) -> None:
        stacks.append(
            to_stack(volume, labels.array, case.label_names, name=case.name, organs=organs, size=size)
        )
        geometries.append(volume.geometry)

    def tell(done: int) -> None:
        if progress is not None:
            progress(ProgressEvent("read", done, len(cases)))

    check = check_cases(cases, organs, on_read=keep, on_checked=tell)
    if on_finding is not None:
        for finding in check.findings:
            on_finding(finding)
    check.require_good()
    shown = set().union(*(np.unique(stack.labels).tolist() for stack in stacks))
    if lost := [organ for value, organ in enumerate(organs, start=1) if value not in shown]:
        raise InputError(
            f"Slices of {size} pixels are too coarse for {', '.join(lost)}: no pixel of it is left.",
            hint="Crop the images around it, or choose a larger --image-size.",
        )
    return stacks, geometries, sorted({facts.digest for facts in check.facts})


def _description(held_out: HeldOut | None) -> dict[str, Any] | None:
    if held_out is None:
        return None
    return {
        "case": held_out.stack.name,
        "whole_case": held_out.blocked is None,
        "slices": list(held_out.numbers),
    }


def _scores(look: Validated, record: RunRecord) -> dict[str, Any]:
    return {
        "dice": dict(zip(record.organs, look.dice, strict=True)),
        "mean_dice": look.mean,
        "iteration": look.iteration,
        "note": "slices by themselves, without their neighbours",
    }


def _open_folder(output: Path, recipe: Recipe, *, fresh: bool) -> Path:
    """The run's folder, without what an earlier run of the same name left there."""
    folder = run_folder(output)
    try:
        if fresh and (folder / "recipe.json").exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    recipe.write(folder / "recipe.json")
    return folder


def _memory_errors(device: torch.device) -> AbstractContextManager[None]:
    hint = "Choose a smaller --batch or --image-size, or another device; then go on with --resume or start again."
    return memory_errors(device, job="this recipe", hint=hint)
