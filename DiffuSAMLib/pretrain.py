"""Labelled cases on disk and procedural abdomens become the compact backbone's weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .backbone_pretraining import BackbonePretraining
from .backbones import Backbone
from .composed_names import composed
from .errors import InputError
from .files import remove
from .labelled_files import LabelledFiles, read_dataset
from .labelled_stacks import LabelledStack, load_stack
from .out_of_memory import telling_memory
from .pair_sampler import PairSampler
from .pretraining_config import PretrainingConfig
from .prior import Prior, PriorConfig
from .procedural_shapes import make_shapes
from .procedural_stacks import procedural_stacks
from .progress import Progress, ProgressEvent
from .splits import load_split, missing_cases_error
from .stack_pool import SHARES, StackPool, kind_of
from .warm_start import begin_with, read_earlier
from .weights import LoadedBackbone, load_backbone, save_backbone, save_prior

logger = logging.getLogger(__name__)

# Every organ that BTCV labels: the more anatomy the features know, the better a prior can find its own.
ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "liver",
    "gallbladder",
    "esophagus",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
# A kind of data with fewer real cases than this is drawn less often, in proportion: a handful of volumes would
# otherwise be most of what the backbone sees.
ENOUGH_CASES = 10


def pretrain_backbone(
    data: Sequence[Path],
    split: Path,
    output: Path,
    *,
    procedural: int,
    settings: Mapping[str, Any],
    start: str | Path | None = None,
    outlines: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Pretrains the compact backbone and writes its weights, and a prior for trainings on it to begin with.

    That prior, `<stem>-start.safetensors` beside the weights, knows the outlines of all organs; its diffusion is that of
    the prior that it began with, or untrained. An interrupted run resumes from `<output>.training`, which is deleted at
    the end.

    Args:
        data: Folders with `images/`, `labels/` and `dataset.json`; none trains on procedural abdomens only. They may
            label other organs than the abdomen's, which are learnt too.
        split: Split file; only its training cases are read.
        output: Weights file, ends in `.safetensors`.
        procedural: Number of procedural abdomens to add.
        settings: Those of `PretrainingConfig` that are not the defaults, by their places, such as "minutes" or
            "intensity.strength".
        start: Weights to continue from, with a fresh optimizer: a file, or "compact" for the bundled ones; None starts
            anew. The cases that they have seen are recorded as seen.
        outlines: Name or file of a prior whose decoder of outlines is continued with; its cases count as seen, too.
        progress: Called as cases are read.

    Raises:
        InputError: There is nothing to train on, a case of the split is in none of the folders, an option is out of
            range, a case cannot be used, or the prior was made for another backbone.
        WeightsError: The weights to start from cannot be used.
        OutputError: The weights cannot be written.
        OutOfMemoryError: There is too little memory for all cases at once.
    """
    if output.suffix != ".safetensors":
        raise InputError(f"The backbone's file ends in .safetensors, not {output.name}.")
    config = PretrainingConfig.with_settings(settings)
    if procedural < 0:
        raise InputError(f"The number of procedural abdomens must be 0 or more, not {procedural}.")
    torch.manual_seed(config.seed)
    cases = _cases_of(data, split)
    earlier = None if start is None else _start(start)
    backbone = Backbone("compact") if earlier is None else earlier.backbone.requires_grad_(True)
    organs = pretrained_organs(cases)
    stacks = []
    for case in cases:
        with telling_memory("all cases at once"):
            stacks.append(load_stack(case, organs=organs, size=backbone.image_size))
        if progress is not None:
            progress(ProgressEvent("read", len(stacks), len(cases)))
    stacks += procedural_stacks(procedural, organs=organs, size=backbone.image_size)
    if not stacks:
        raise InputError(
            "There is nothing to train on.", hint="Give --data with cases of the split, or --procedural."
        )
    checkpoint = output.with_suffix(".training")
    seen = {case.name for case in cases}
    prior = Prior(PriorConfig.for_backbone(backbone, organs))
    begun = {}
    if earlier is not None:
        seen |= set(earlier.training_cases)
        begun["started_from"] = earlier.sha256
    if outlines is not None:
        drawn = read_earlier(outlines, backbone.name)
        begin_with(prior, drawn)
        seen |= set(drawn.header.training.get("cases", ()))
        begun["outlines_from"] = drawn.sha256
    made_of = {"organs": organs, "training_cases": sorted(seen), "procedural_abdomens": procedural, **begun}
    training = BackbonePretraining(
        backbone,
        prior.outline_decoder,
        PairSampler(StackPool(stacks, shares=shares_of(stacks)), config, shapes=make_shapes),
        organs=len(organs),
        config=config,
        checkpoint=checkpoint,
        record=json.dumps(made_of),
    )
    with telling_memory("this training", hint="Close other programs, or choose a smaller batch."):
        averaged = training.run()
    prefix = "network."
    licence = "Research, non-commercial" if seen else "Apache-2.0"
    record = {
        "name": "compact",
        **made_of,
        "recipe": config.to_dict(),
        "steps": training.steps,
        "licence": licence,
    }
    network = {
        name.removeprefix(prefix): value for name, value in averaged.items() if name.startswith(prefix)
    }
    save_backbone(output, network, record)
    prior.outline_decoder.load_state_dict(training.averaged_outlines)
    save_prior(
        output.with_name(f"{output.stem}-start.safetensors"),
        prior.state_dict(),
        config=prior.config,
        backbone=load_backbone("compact", path=output),
        title="Outlines of the backbone's pretraining",
        modalities=sorted({stack.modality for stack in stacks}),
        licence=licence,
        training={"cases": made_of["training_cases"], "minutes": config.minutes},
        metrics={},
    )
    # Complete, whether or not it can be removed.
    remove(checkpoint)


def _cases_of(data: Sequence[Path], split: Path) -> list[LabelledFiles]:
    """The training cases of a split; none where there are no folders to look into.

    Raises:
        InputError: One is in none of the folders.
    """
    wanted = [composed(name) for name in load_split(split).train]
    cases = [case for folder in data for case in read_dataset(folder) if case.name in wanted]
    there = {case.name for case in cases}
    if data and (missing := [name for name in wanted if name not in there]):
        raise missing_cases_error(missing)
    return cases


def pretrained_organs(cases: Sequence[LabelledFiles]) -> tuple[str, ...]:
    """The abdomen's organs, then the other ones that cases label, in the order in which they appear."""
    found = (organ for case in cases for organ in case.label_names.values())
    return tuple(dict.fromkeys((*ORGANS, *found)))


def shares_of(stacks: Sequence[LabelledStack]) -> dict[str, float]:
    """How often each kind of data is drawn: as usual where there are enough cases, less of a few."""
    kinds = [kind_of(stack) for stack in stacks]
    return {
        kind: share * (1.0 if kind == "procedural" else min(1.0, kinds.count(kind) / ENOUGH_CASES))
        for kind, share in SHARES.items()
    }


def _start(weights: str | Path) -> LoadedBackbone:
    return (
        load_backbone("compact")
        if str(weights) == "compact"
        else load_backbone("compact", path=Path(weights))
    )
