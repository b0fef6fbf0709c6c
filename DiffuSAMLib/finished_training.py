"""The prior of a training that has ended, written from its checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from .checkpoints import other_run_error, read_checkpoint
from .errors import InputError, WeightsError
from .files import remove
from .listing import is_file, is_there
from .prior import Prior, PriorConfig
from .prior_files import PriorHeader, read_header
from .recipe import Recipe
from .training_lock import training_lock
from .training_paths import checkpoint_path, run_folder
from .training_record import Ending, RunRecord
from .validated import Validated, best_of, choose_weights
from .weights import LoadedBackbone, load_backbone, save_prior

logger = logging.getLogger(__name__)


def finish_training(output: Path, *, title: str | None = None, licence: str | None = None) -> PriorHeader:
    """Writes the prior of an interrupted run from its checkpoint, and removes that.

    Args:
        output: As in `train_prior`.
        title: Name for people; None is that of the run.
        licence: Of the weights; None is that of the run.

    Raises:
        InputError: There is no unfinished run, or it is damaged, has not begun or goes on at this moment.
        WeightsError: Its backbone cannot be used.
        OutputError: The prior cannot be written.
    """
    with training_lock(output):
        return write_prior(output, title=title, licence=licence)


def write_prior(
    output: Path,
    *,
    ended: Ending = "stopped",
    backbone: LoadedBackbone | None = None,
    title: str | None = None,
    licence: str | None = None,
) -> PriorHeader:
    """As `finish_training`, for whoever holds the lock of the prior.

    Args:
        output: As in `train_prior`.
        ended: Why the run ended.
        backbone: Its backbone, where it is loaded already.
        title: As in `finish_training`.
        licence: Likewise.

    Raises:
        InputError: There is no unfinished run, or it is damaged or has not begun.
        WeightsError: Its backbone cannot be used.
        OutputError: The prior cannot be written.
    """
    checkpoint = checkpoint_path(output)
    if not is_there(checkpoint):
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
    config = recipe.prior_config(
        loaded.backbone,
        tuple(record.organs),
        in_pieces=tuple(record.in_pieces),
        solid=tuple(record.solid),
        soft=tuple(record.soft),
        layout=record.layout,
        regions=record.regions,
        modalities=tuple(record.known),
        planes=tuple(record.planes),
        mr_gamma=record.mr_gamma,
        appearance=record.appearance,
    )
    last = validated[-1] if validated and validated[-1].iteration == state["iteration"] else None

    def write(path: Path, weights: dict[str, torch.Tensor], look: Validated | None) -> PriorHeader:
        return save_prior(
            path,
            weights,
            config=config,
            backbone=loaded,
            title=title or record.title,
            modalities=record.modalities,
            licence=licence or record.licence,
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

    _require_weights_of(config, (state["averaged"], state["best"]), checkpoint)
    folder = run_folder(output)
    write(folder / "last.safetensors", state["averaged"], last)
    if state["best"] is not None:
        write(folder / "best.safetensors", state["best"], best_of(validated))
    header = write(output, weights, look)
    # The prior is complete: a file that cannot be removed, such as one that a virus scanner holds, is no error.
    remove(checkpoint)
    if is_there(checkpoint):
        logger.warning("%s could not be removed; it is of no more use.", checkpoint)
    return header


def _require_weights_of(
    config: PriorConfig, states: Iterable[Mapping[str, torch.Tensor] | None], checkpoint: Path
) -> None:
    """Refuses a run of an earlier program whose network is none of today's, before its prior is written.

    Raises:
        InputError: The weights belong to another network.
    """
    prior = Prior(config)
    try:
        for state in states:
            if state is not None:
                prior.load_state_dict(state)
    except RuntimeError as error:
        raise other_run_error(checkpoint) from error


def finished_prior(output: Path) -> PriorHeader | None:
    """The prior of a run that has ended, of which nothing is left to resume; None where there is none.

    Raises:
        InputError: Its folder is closed.
        WeightsError: There is a file of that name, but it is no prior, or damaged.
    """
    return read_header(output) if is_file(output) and not is_there(checkpoint_path(output)) else None


def require_free_name(output: Path) -> None:
    """Refuses a name whose file a new prior would overwrite.

    Args:
        output: As in `train_prior`, without an unfinished run.

    Raises:
        InputError: There is a finished prior, or a file that is none.
    """
    hint = "Give another name with -o, or --restart to replace it."
    try:
        finished = finished_prior(output)
    except WeightsError as error:
        raise InputError(
            f"{output} is no prior that can be read, and would be overwritten.", hint=hint
        ) from error
    if finished is not None:
        raise InputError(f"{output} is a finished prior.", hint=hint)


def _scores(look: Validated, record: RunRecord) -> dict[str, Any]:
    return {
        "dice": dict(zip(record.organs, look.dice, strict=True)),
        "mean_dice": look.mean,
        "iteration": look.iteration,
        "note": "slices by themselves, without their neighbours",
    }
