"""Priors whose training goes on, with what they find in unlabelled target cases or on the cases alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from common import RUNS, labelled_cases
from protocols import Job
from units import fingerprint

from DiffuSAMLib.appearance import appearance_weight
from DiffuSAMLib.content_hashes import sha256_of
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.labelled_stacks import LabelledStack, load_stack, to_stack
from DiffuSAMLib.recipe import Recipe
from DiffuSAMLib.segmenter import Segmenter
from DiffuSAMLib.stack_pool import StackPool
from DiffuSAMLib.training import PriorTraining
from DiffuSAMLib.training_material import modalities_of, training_material
from DiffuSAMLib.volumes import read_volume
from DiffuSAMLib.weights import LoadedPrior, load_prior, save_prior

# Else it would draw the slices of the first training once more.
NEXT_SEED = 100


def continued_prior(job: Job, recipe: Recipe, path: Path, *, minutes: float, unlabelled: bool) -> Path:
    """A prior trained further, now unless it is there. An interrupted training is taken up again.

    Args:
        job: On which draw.
        recipe: Of the prior.
        path: Of the prior.
        minutes: How long.
        unlabelled: Whether what the prior finds in `Job.unlabelled_names` joins the cases, as if it were true.
    """
    recipe = recipe.with_settings(
        {"training.minutes": minutes, "training.seed": recipe.training.seed + NEXT_SEED}
    )
    names = job.unlabelled_names if unlabelled else ()
    if unlabelled and not names:
        raise InputError(f"{job.protocol.name} has no target cases besides those that are scored.")
    settings = {"prior_sha256": sha256_of(path), "recipe": recipe.to_dict(), "unlabelled": names}
    output = RUNS / "priors" / f"continued_{fingerprint(settings)[:16]}.safetensors"
    if output.exists():
        return output
    loaded = load_prior(path, backbone_path=job.backbone_file)
    network, config = loaded.backbone.backbone, loaded.prior.config
    found = found_stacks(loaded, names)
    cases = job.training_cases()
    stacks = [load_stack(case, organs=config.organs, size=network.image_size) for case in cases]
    material = training_material(
        cases, stacks, config.planes, recipe, organs=config.organs, size=network.image_size
    )
    training = PriorTraining(
        copy.deepcopy(loaded.prior).requires_grad_(True),
        network,
        StackPool([*material, *found]),
        config=recipe.training,
        checkpoint=output.with_suffix(".training"),
    )
    training.resume()
    averaged = training.run()
    seen = {*loaded.header.training["cases"], *(case.name for case in cases), *names}
    save_prior(
        output,
        averaged,
        config=replace(config, appearance=appearance_weight(len(seen))),
        backbone=loaded.backbone,
        title=", ".join(config.organs),
        modalities=modalities_of([*stacks, *found]),
        licence="As the training data",
        training={
            "cases": sorted(seen),
            "started_from": {"sha256": loaded.sha256},
            "recipe": recipe.to_dict(),
            "iterations": training.iteration,
            "minutes": round(training.seconds / 60, 1),
        },
        metrics={},
    )
    training.checkpoint.unlink()
    return output


def found_stacks(loaded: LoadedPrior, names: tuple[str, ...]) -> list[LabelledStack]:
    """What a prior finds in the images of these cases, as labelled stacks; their labels are not read."""
    segmenter = Segmenter(loaded.backbone.backbone, loaded.prior)
    organs = loaded.prior.config.organs
    stacks = []
    for case in labelled_cases(names):
        volume = read_volume(case.image, modality=case.modality)
        labels = segmenter.segment(volume).labels
        stacks.append(
            to_stack(
                volume,
                labels,
                dict(enumerate(organs, start=1)),
                name=case.name,
                organs=organs,
                size=loaded.backbone.backbone.image_size,
            )
        )
    return stacks
