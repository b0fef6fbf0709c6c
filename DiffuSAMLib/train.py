"""Labelled cases on disk become a prior file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from .datasets import LabelledFiles, load_stack
from .devices import choose_device
from .errors import InputError
from .prior import ORGAN_WEIGHTS, Prior, PriorConfig
from .prior_files import PriorHeader
from .procedural import ORGAN_NAMES
from .procedural_stacks import procedural_stacks
from .progress import Progress, ProgressEvent
from .stack_pool import StackPool
from .training import PriorTraining, SliceSampler, TrainingConfig
from .weights import LoadedBackbone, LoadedPrior, load_backbone, load_prior, save_prior

logger = logging.getLogger(__name__)


def train_prior(
    cases: Sequence[LabelledFiles],
    output: Path,
    *,
    organs: Sequence[str] | None = None,
    backbone: str = "compact",
    image_size: int | None = None,
    kind: str = "diffusion",
    start: str | Path | None = None,
    procedural: int = 0,
    config: TrainingConfig | None = None,
    title: str = "",
    licence: str = "As the training data",
    device: str = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> PriorHeader:
    """Trains a prior and writes it.

    Args:
        cases: From `find_cases` or `read_dataset`.
        output: Prior file, ends in `.safetensors`; the run's checkpoint lies beside it.
        organs: Names to learn, in the order of their label numbers; None learns all that are labelled.
        backbone: Name of the frozen backbone.
        image_size: Side of the slices; None takes the backbone's default.
        kind: "diffusion", or "regression" for the control without noise.
        start: Name or file of a prior, made for the same backbone, whose weights to begin with; None begins anew.
        procedural: Number of procedural abdomens to add; they have spleen, kidneys and liver.
        config: The recipe; None takes the default one.
        title: Name for people.
        licence: Licence of the weights.
        device: As in `choose_device`.
        resume: Go on with an interrupted run.
        progress: Called as training advances.

    Raises:
        InputError: There are no cases or organs, an option is out of range, an image or label map cannot be used,
            or an unfinished run is in the way.
        WeightsError: The backbone, or the prior to start from, cannot be used.
        OutputError: The prior cannot be written.
    """
    config = config or TrainingConfig()
    if config.iterations < 1 or (config.minutes is not None and config.minutes <= 0):
        raise InputError("A training needs at least one iteration and more than 0 minutes.")
    if config.seed < 0:
        raise InputError(f"The seed must be 0 or more, not {config.seed}.")
    if output.suffix != ".safetensors":
        raise InputError(f"A prior's file ends in .safetensors, not {output.name}.")
    checkpoint = output.with_suffix(".training")
    if checkpoint.exists() and not resume:
        raise InputError(
            f"{checkpoint} holds an unfinished run.", hint="Go on with --resume, or delete it to start again."
        )
    named = [name for case in cases for name in case.label_names.values()]
    chosen = tuple(dict.fromkeys(organs or named))
    missing = [organ for organ in chosen if organ not in named]
    if missing or not chosen:
        raise InputError(
            f"No case has labels for: {', '.join(missing) or 'anything'}.", hint="Check the label names."
        )
    if procedural and not set(chosen) & set(ORGAN_NAMES.values()):
        raise InputError(
            f"Procedural abdomens show only: {', '.join(ORGAN_NAMES.values())}.", hint="Add none of them."
        )
    loaded = load_backbone(backbone, image_size=image_size)
    network = loaded.backbone.to(choose_device(device))
    stacks = []
    for number, case in enumerate(cases):
        stacks.append(load_stack(case, organs=chosen, size=network.image_size))
        if progress is not None:
            progress(ProgressEvent("read", number + 1, len(cases)))
    stacks += procedural_stacks(procedural, organs=chosen, size=network.image_size)
    torch.manual_seed(config.seed)
    prior = Prior(PriorConfig.for_backbone(network, chosen, kind=kind)).to(network.device)
    seen = [case.name for case in cases]
    started_from = None
    if start is not None:
        earlier = load_prior(start)
        _begin_with(prior, earlier, loaded)
        started_from = {"sha256": earlier.sha256, "training": earlier.header.training}
        seen = sorted({*seen, *earlier.header.training.get("cases", ())})
    training = PriorTraining(
        prior,
        network,
        SliceSampler(StackPool(stacks), config, context=network.slice_context),
        config=config,
        checkpoint=checkpoint,
    )
    state = training.run(progress)
    header = save_prior(
        output,
        state,
        config=prior.config,
        backbone=loaded,
        title=title or ", ".join(chosen),
        modalities=sorted({stack.modality for stack in stacks}),
        licence=licence,
        training={
            "cases": seen,
            "started_from": started_from,
            "procedural_abdomens": procedural,
            "recipe": config.to_dict(),
            "iterations": training.iteration,
            "minutes": round(training.seconds / 60, 1),
            "device": str(network.device),
        },
        metrics={},
    )
    checkpoint.unlink()
    return header


def _begin_with(prior: Prior, earlier: LoadedPrior, backbone: LoadedBackbone) -> None:
    """Copies the weights of an earlier prior; what belongs to its organs only where they are the same."""
    if earlier.backbone.sha256 != backbone.sha256:
        raise InputError(
            f"The prior {earlier.header.name} was made for another backbone.",
            hint="Start from a prior of the same backbone and image size.",
        )
    state = prior.state_dict()
    same_organs = earlier.prior.config.organs == prior.config.organs
    copied = {
        name: value
        for name, value in earlier.prior.state_dict().items()
        if name in state
        and value.shape == state[name].shape
        and (same_organs or not name.startswith(ORGAN_WEIGHTS))
    }
    prior.load_state_dict({**state, **copied})
