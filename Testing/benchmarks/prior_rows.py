"""DiffuSAM's own rows: which prior is trained for them, and with which options it segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from common import DATA, FOLDERS, RUNS, SPLITS
from continued_priors import continued_prior
from outline_segmenter import OutlineSegmenter
from protocols import Job
from units import Unit, fingerprint

from DiffuSAMLib.appearance import appearance_weight
from DiffuSAMLib.content_hashes import sha256_of
from DiffuSAMLib.evaluation import Evaluation, evaluate, evaluate_by
from DiffuSAMLib.label_traits import label_traits
from DiffuSAMLib.labelled_files import read_case
from DiffuSAMLib.labelled_stacks import load_stack
from DiffuSAMLib.mr_gamma import mr_gamma
from DiffuSAMLib.planes import planes_to_learn
from DiffuSAMLib.pretrain import pretrain_backbone
from DiffuSAMLib.prior import Prior
from DiffuSAMLib.recipe import UPGRADES, Recipe
from DiffuSAMLib.segmenter import SegmentOptions
from DiffuSAMLib.stack_pool import StackPool
from DiffuSAMLib.training import PriorTraining
from DiffuSAMLib.training_material import modalities_of, training_material
from DiffuSAMLib.warm_start import begin_with, earlier_prior
from DiffuSAMLib.weights import LoadedPrior, load_prior, prior_path, save_prior

# So many that the time always ends a training: every method gets the same.
NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class PriorRow:
    """A row of the tables.

    Attributes:
        method: Short name.
        title: For people.
        changes: Settings of the recipe, by their places in its file.
        options: How to segment.
        split: Another split than the protocol's, with the draw's number to be filled in.
        adapt_minutes: How long the backbone is adapted to the training cases first; 0 keeps it frozen.
        start: What a training begins with instead of the protocol's prior: "none", or the file of a prior.
        procedural: How many procedural abdomens a training has besides its cases; None takes the protocol's number.
        slice_context: How many neighbours on each side a slice is shown with, in training too; None takes the
            backbone's own.
        more_minutes: How long the training then goes on; 0 leaves it at that.
        unlabelled: Whether it goes on with what the prior has found in the target cases that are not scored, too.
        outlines: Whether the prior's outlines are the masks, without memories and SAM2's decoder.
    """

    method: str
    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    options: SegmentOptions = field(default_factory=SegmentOptions)
    split: str | None = None
    adapt_minutes: float = 0.0
    start: str | None = None
    procedural: int | None = None
    slice_context: int | None = None
    more_minutes: float = 0.0
    unlabelled: bool = False
    outlines: bool = False


def measure_row(row: PriorRow, job: Job, *, recipe: Recipe, prior: str | Path | None = None) -> bool:
    """Trains, if need be, segments and scores, unless that was done before.

    Args:
        row: What to measure.
        job: On which draw.
        recipe: What the row's changes are applied to.
        prior: A prior to take as it is; None trains one on the draw's cases.

    Raises:
        InputError: A case to be scored was seen in the training of the prior or of the backbone.
    """
    if row.split is not None:
        job = replace(job, split_name=row.split)
    # Before any training: a backbone that has seen the cases would waste it.
    backbone = job.backbone() if prior is None else None
    recipe = row_recipe(recipe, row, job)
    weights: dict[str, Any]
    start = "none"
    if prior is not None:
        weights = {"prior_sha256": sha256_of(prior_path(prior))}
    else:
        assert backbone is not None
        weights = {"backbone_sha256": backbone.sha256, "recipe": recipe.to_dict()}
        if row.adapt_minutes:
            weights["adapt_minutes"] = row.adapt_minutes
        if row.slice_context is not None:
            weights["slice_context"] = row.slice_context
        # An adapted backbone is another than the one that the protocol's prior was made for.
        start = "none" if row.adapt_minutes else row.start or job.start
        weights["start_sha256"] = start_sha256(start)
    if row.more_minutes:
        weights["more_minutes"] = row.more_minutes
        weights["unlabelled"] = job.unlabelled_names if row.unlabelled else ()
    if row.outlines:
        weights["outlines"] = True
    # Slices of a modality that the prior knows are seen in one pose anyhow: no other result than without the option.
    options = replace(row.options, poses=row.options.poses and job.protocol.strange)
    unit = Unit(job, row.method, {**weights, "options": asdict(options)})

    def work() -> tuple[Evaluation, Mapping[str, Any]]:
        if prior is not None:
            loaded = load_prior(prior)
        else:
            adapted = adapted_job(job, row.adapt_minutes) if row.adapt_minutes else job
            path = trained_prior(adapted, recipe, start=start, slice_context=row.slice_context)
            if row.more_minutes:
                path = continued_prior(
                    adapted, recipe, path, minutes=row.more_minutes, unlabelled=row.unlabelled
                )
            loaded = load_prior(path, backbone_path=adapted.backbone_file)
            if row.slice_context is not None:
                loaded.backbone.backbone.slice_context = row.slice_context
        return scored(loaded, job, row), record_of(loaded)

    return unit.measure(work)


def scored(loaded: LoadedPrior, job: Job, row: PriorRow) -> Evaluation:
    """What a prior reaches on the evaluated cases of a draw, segmenting as the row says."""
    cases = job.evaluated_cases()
    if not row.outlines:
        return evaluate(loaded, cases, options=row.options)
    segmenter = OutlineSegmenter(loaded.backbone.backbone, loaded.prior)
    return evaluate_by(
        lambda volume, _: segmenter.segment(volume, row.options).labels,
        cases,
        organs=loaded.prior.config.organs,
        training_cases=loaded.training_cases,
    )


def row_recipe(recipe: Recipe, row: PriorRow, job: Job) -> Recipe:
    """The recipe with the row's changes, the job's time and what is made up besides, and the draw as the seed."""
    given = {
        "procedural": job.protocol.procedural if row.procedural is None else row.procedural,
        "twins": job.protocol.twins,
        "training.minutes": job.minutes,
        "training.iterations": NO_LIMIT,
        "training.seed": job.draw,
        # Said beside the recipe, as a hash: the recipe has the name of a file.
        "start": "none",
    }
    # Nothing is held out: three volumes are few enough.
    return recipe.with_settings({**given, "validation.held_out": "none", **row.changes})


def record_of(loaded: LoadedPrior) -> dict[str, Any]:
    """What made a prior and its backbone."""
    training = loaded.header.training
    return {
        "prior_sha256": loaded.sha256,
        "prior_cases": training.get("cases", ()),
        "iterations": training.get("iterations"),
        "minutes": training.get("minutes"),
        "backbone_sha256": loaded.backbone.sha256,
        "backbone_cases": loaded.backbone.training_cases,
        "image_size": loaded.header.backbone.image_size,
    }


def start_sha256(start: str) -> str | None:
    """Of what a training begins with; None begins anew."""
    return None if start == "none" else sha256_of(prior_path(start))


def trained_prior(job: Job, recipe: Recipe, *, start: str, slice_context: int | None = None) -> Path:
    """The prior of a recipe on the training cases of a draw, trained now unless it is there.

    Protocols with the same training cases share it, so that B takes A's priors unchanged. An interrupted training is
    taken up again.
    """
    loaded = job.backbone()
    organs = job.protocol.organs
    cases = job.training_cases()
    settings = {
        "cases": [case.name for case in cases],
        "organs": organs,
        "backbone_sha256": loaded.sha256,
        "recipe": in_oldest_schema(recipe),
        "start_sha256": start_sha256(start),
    }
    network = loaded.backbone
    if slice_context is not None:
        settings["slice_context"] = network.slice_context = slice_context
    path = RUNS / "priors" / f"prior_{len(cases)}_volumes_{fingerprint(settings)[:16]}.safetensors"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    stacks = [load_stack(case, organs=organs, size=network.image_size) for case in cases]
    planes = planes_to_learn(recipe.planes, [read_case(case)[0].geometry for case in cases])
    torch.manual_seed(recipe.training.seed)
    traits = label_traits(stacks, organs, procedural=recipe.procedural)
    config = recipe.prior_config(network, organs, **traits, planes=planes)
    prior = Prior(config)
    earlier_cases: tuple[str, ...] = ()
    modalities = known = modalities_of(stacks)
    if earlier := earlier_prior(start, loaded, config):
        begin_with(prior, earlier)
        earlier_cases = tuple(earlier.header.training.get("cases", ()))
        known = sorted({*modalities, *earlier.modalities})
    material = training_material(cases, stacks, planes, recipe, organs=organs, size=network.image_size)
    training = PriorTraining(
        prior,
        network,
        StackPool(material),
        config=recipe.training,
        checkpoint=path.with_suffix(".training"),
    )
    training.resume()
    averaged = training.run()
    gamma = mr_gamma(
        modalities,
        procedural=recipe.procedural,
        twins=recipe.twins,
        earlier=earlier.header if earlier else None,
    )
    appearance = appearance_weight(
        len({case.name for case in cases} | (earlier.cases_of(organs) if earlier else set()))
    )
    save_prior(
        path,
        averaged,
        config=replace(config, mr_gamma=gamma, modalities=tuple(known), appearance=appearance),
        backbone=loaded,
        title=", ".join(organs),
        modalities=modalities,
        licence="As the training data",
        training={
            "cases": sorted({*settings["cases"], *earlier_cases}),
            "started_from": None if earlier is None else {"sha256": earlier.sha256},
            "recipe": recipe.to_dict(),
            "iterations": training.iteration,
            "minutes": round(training.seconds / 60, 1),
        },
        metrics={},
    )
    training.checkpoint.unlink()
    return path


def in_oldest_schema(recipe: Recipe) -> dict[str, Any]:
    """The recipe in the oldest schema that can say it, so that a setting that is new renames no prior without it."""
    content = recipe.to_dict()
    while added := UPGRADES[content["schema_version"] - 1]({}):
        older = {**_without(content, added), "schema_version": content["schema_version"] - 1}
        if Recipe.from_dict(older) != recipe:
            break
        content = older
    return content


def _without(content: Mapping[str, Any], left_out: Mapping[str, Any]) -> dict[str, Any]:
    """The content without the settings of another, whatever their values."""
    return {
        key: _without(value, left_out[key]) if key in left_out else value
        for key, value in content.items()
        if key not in left_out or isinstance(left_out[key], dict)
    }


def adapted_job(job: Job, minutes: float) -> Job:
    """The job with its backbone adapted to the training cases, adapted now unless that was done before."""
    loaded = job.backbone()
    split = job.split
    settings = {"train": split.train, "start": loaded.sha256, "minutes": minutes, "seed": job.draw}
    path = RUNS / "backbones" / f"adapted_{fingerprint(settings)[:16]}.safetensors"
    if not path.exists():
        prefixes = {name.split("_")[0] for name in split.train}
        pretrain_backbone(
            [DATA / folder for prefix, folder in FOLDERS.items() if prefix in prefixes],
            SPLITS / f"{split.name}.json",
            path,
            procedural=0,
            settings={"minutes": minutes, "seed": job.draw},
            start=job.backbone_file,
        )
    return replace(job, backbone_path=path)
