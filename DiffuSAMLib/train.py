"""Labelled cases on disk become a prior file."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from .appearance import appearance_weight
from .checkpoints import read_checkpoint
from .devices import choose_device
from .errors import InputError, UnfinishedRunError
from .files import output_error, require_file_name
from .finished_training import finished_prior, require_free_name, write_prior
from .held_out import HeldOut
from .label_traits import label_traits
from .labelled_files import LabelledFiles
from .learnt_cases import read_learnt_cases
from .learnt_organs import organs_of, unified
from .mr_gamma import mr_gamma
from .out_of_memory import telling_memory
from .preflight import Finding
from .prior import Prior
from .prior_files import PriorHeader, read_header
from .processes import Processes
from .progress import Progress, ProgressEvent
from .recipe import Recipe
from .stack_pool import StackPool
from .training import PriorTraining
from .training_events import TrainingListener
from .training_lock import training_lock
from .training_log import TrainingLog
from .training_material import stacks_to_learn, training_material
from .training_paths import checkpoint_path, run_folder
from .training_pictures import TrainingPictures
from .training_record import RunRecord
from .validation import Validation
from .warm_start import begin_with, earlier_prior
from .weights import load_backbone

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
    replace: bool = False,
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
        organs: Names to learn, in the order of their label numbers; None learns all that are labelled, as
            `organs_of` orders them or as the run that is resumed did.
        recipe: Every setting; None takes the one tuned for the bundled backbone.
        title: Name for people; None is that of the run that is resumed, or the organs.
        licence: Licence of the weights; None is that of the run that is resumed, or that of the training data.
        device: As in `choose_device`.
        resume: Go on with an interrupted run, if there is one; where there is a finished prior instead, return its
            header and change nothing.
        restart: Drop an interrupted run, if there is one; as `replace` where there is a finished prior.
        replace: A finished prior of that name is replaced once the new one is complete.
        progress: Called as training advances.
        listener: Told of losses and validations.
        on_finding: Told what the check of the cases finds.
        stop: Asked before each iteration whether to end now and keep the prior as it is.

    Raises:
        UnfinishedRunError: There is one, and neither `resume` nor `restart`.
        InputError: There are no cases or organs, an option is out of range, an image or label map cannot be used,
            another process trains the same prior, or there is a file of that name, and none of `resume`, `restart`
            and `replace`.
        WeightsError: The backbone, or the prior to start from, cannot be used.
        OutputError: The prior cannot be written.
        OutOfMemoryError: The recipe needs more memory than there is.
    """
    recipe = recipe or Recipe()
    processes = Processes.launched(device)
    with training_lock(output) if processes.main else nullcontext():
        _require_possible(recipe, output, processes)
        if not (resume or restart):
            _require_no_run(output)
            if not replace:
                require_free_name(output)
        if resume and (finished := finished_prior(output)):
            return finished
        where = processes.device or torch.device(choose_device(device))
        with _memory_errors(where):
            return _train(
                cases,
                output,
                organs=organs,
                recipe=recipe,
                title=title,
                licence=licence,
                device=where,
                processes=processes,
                restart=restart,
                progress=progress,
                listener=listener,
                on_finding=on_finding,
                stop=stop,
            )


def _train(
    cases: Sequence[LabelledFiles],
    output: Path,
    *,
    organs: Sequence[str] | None,
    recipe: Recipe,
    title: str | None,
    licence: str | None,
    device: torch.device,
    processes: Processes,
    restart: bool,
    progress: Progress | None,
    listener: TrainingListener | None,
    on_finding: Callable[[Finding], None] | None,
    stop: Callable[[], bool] | None,
) -> PriorHeader:
    """What `train_prior` does once nobody else may train that prior; goes on with a run that was not dropped."""
    checkpoint = checkpoint_path(output)
    begun = None
    if checkpoint.exists() and not restart:
        begun = RunRecord.of(read_checkpoint(checkpoint, device=torch.device("cpu")), checkpoint)
    cases = unified(cases)
    chosen = organs_of(cases, organs)
    if begun is not None and organs is None and sorted(begun.organs) == sorted(chosen):
        # Its weights belong to the organs in this order.
        chosen = tuple(begun.organs)
    if progress is not None:
        progress(ProgressEvent("load", 0, 1))
    loaded = load_backbone(recipe.backbone, image_size=recipe.image_size)
    network = loaded.backbone.to(device)
    learnt = read_learnt_cases(cases, chosen, recipe, progress=progress, on_finding=on_finding)
    stacks, held_out = learnt.stacks, learnt.held_out
    torch.manual_seed(recipe.training.seed)
    traits = label_traits(stacks, chosen, procedural=recipe.procedural)
    config = recipe.prior_config(loaded.backbone, chosen, **traits, planes=learnt.planes)
    prior = Prior(config).to(network.device)
    earlier = None if begun is not None else earlier_prior(recipe.start, loaded, prior.config)
    record = RunRecord(
        organs=list(chosen),
        cases=[case.name for case in cases],
        modalities=learnt.modalities,
        backbone_sha256=loaded.sha256,
        recipe=recipe.to_dict(),
        title=title or ", ".join(chosen),
        licence=licence or AS_THE_DATA,
        held_out=_description(held_out),
        started_from=None,
        device=str(network.device),
        in_pieces=list(traits["in_pieces"]),
        solid=list(traits["solid"]),
        soft=list(traits["soft"]),
        layout=traits["layout"],
        regions=traits["regions"],
        known=sorted({*learnt.modalities, *(earlier.modalities if earlier else ())}),
        planes=list(learnt.planes),
        mr_gamma=mr_gamma(
            learnt.modalities,
            procedural=recipe.procedural,
            twins=recipe.twins,
            earlier=earlier.header if earlier else None,
        ),
        appearance=appearance_weight(
            len(
                {stack.name for stack in stacks_to_learn(stacks, held_out)}
                | (earlier.cases_of(chosen) if earlier else set())
            )
        ),
        image_digests=learnt.digests,
    )
    if begun is not None:
        record = record.going_on_from(begun, checkpoint, title=title, licence=licence)
    elif earlier:
        begin_with(prior, earlier)
        record = record.started_with(earlier.sha256, earlier.header.training)
    material = training_material(
        cases, stacks, learnt.planes, recipe, organs=chosen, size=network.image_size, held_out=held_out
    )
    blocked = {held_out.stack.name: held_out.blocked} if held_out and held_out.blocked else {}
    validation = None if held_out is None else Validation(held_out, network)
    training = PriorTraining(
        prior,
        network,
        StackPool(material, blocked=blocked),
        config=recipe.training,
        checkpoint=checkpoint,
        validation=validation,
        validation_config=recipe.validation,
        record=record.to_json(),
        processes=processes,
    )
    # Only now that nothing can refuse the new run.
    if restart and processes.main:
        try:
            checkpoint.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(checkpoint, error) from error
    processes.wait()
    training.resume()
    if not processes.main:
        training.run(stop=stop)
        processes.wait()
        return read_header(output)
    folder = _open_folder(output, recipe, fresh=training.iteration == 0)
    pictures = TrainingPictures(folder, network, stacks, validation)
    training.run(
        progress,
        listener=listener,
        stop=stop,
        log=TrainingLog(folder, resumed_at=training.iteration),
        on_validated=pictures.overlay if validation is not None else None,
    )
    if progress is not None:
        progress(ProgressEvent("write", 0, 1))
    header = write_prior(output, ended=training.ended, backbone=loaded)
    processes.wait()
    # Last of all: whatever they do, the prior is there.
    prior.load_state_dict(training.chosen()[0])
    pictures.explain(prior)
    return header


def _require_possible(recipe: Recipe, output: Path, processes: Processes) -> None:
    """Refuses what can be refused before anything is read.

    Args:
        recipe: Every setting.
        output: Prior file.
        processes: Those that share a batch.

    Raises:
        InputError: An option is out of range.
        OutputError: No file can have that name.
    """
    recipe.check()
    if recipe.training.batch < processes.count:
        raise InputError(
            f"A batch of {recipe.training.batch} cannot be shared by {processes.count} processes.",
            hint="Choose a larger --batch, or fewer processes.",
        )
    if output.suffix != ".safetensors":
        raise InputError(f"A prior's file ends in .safetensors, not {output.name}.")
    require_file_name(output)


def _require_no_run(output: Path) -> None:
    """Refuses where nothing was said about an unfinished run.

    Raises:
        UnfinishedRunError: There is one.
    """
    checkpoint = checkpoint_path(output)
    if checkpoint.exists():
        raise UnfinishedRunError(
            f"{checkpoint} holds an unfinished run.",
            hint="Go on with --resume, write its prior with --finish, or begin anew with --restart.",
        )


def _description(held_out: HeldOut | None) -> dict[str, Any] | None:
    if held_out is None:
        return None
    return {
        "case": held_out.stack.name,
        "whole_case": held_out.is_whole_case,
        "slices": list(held_out.numbers),
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
    return telling_memory("this recipe", device=device, hint=hint)
