"""Trains the prior that few-shot trainings on the clean backbone begin with: on procedural abdomens alone.

    python Testing/benchmarks/clean_prior.py --minutes 60

It has seen no image of a patient. A run that was stopped goes on, given the same output and start.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from clean_weights import CLEAN_BACKBONE, CLEAN_PRIOR, taken_from_history
from common import ORGANS

from DiffuSAMLib.interrupts import terminated_as_interrupt
from DiffuSAMLib.prior import Prior
from DiffuSAMLib.procedural_stacks import procedural_stacks
from DiffuSAMLib.recipe import Recipe
from DiffuSAMLib.stack_pool import StackPool
from DiffuSAMLib.training import PriorTraining
from DiffuSAMLib.warm_start import EarlierPrior, begin_with, earlier_prior
from DiffuSAMLib.weights import load_backbone, save_prior

ABDOMENS = 120


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of training (default: 60)")
    parser.add_argument("--start", default="none", help="prior to go on from (default: none)")
    parser.add_argument("-o", "--output", type=Path, default=CLEAN_PRIOR)
    arguments = parser.parse_args()
    if taken_from_history(arguments.output).exists():
        print(f"{arguments.output} is there already.")
        return
    recipe = Recipe().with_settings({"training.minutes": arguments.minutes, "training.iterations": 1_000_000})
    loaded = load_backbone("compact", path=taken_from_history(CLEAN_BACKBONE))
    network = loaded.backbone
    torch.manual_seed(recipe.training.seed)
    config = recipe.prior_config(network, ORGANS)
    stacks = procedural_stacks(ABDOMENS, organs=ORGANS, size=network.image_size)
    prior = Prior(config)
    earlier = earlier_prior(arguments.start, loaded, config)
    if earlier is not None:
        begin_with(prior, earlier)
    training = PriorTraining(
        prior,
        network,
        StackPool(stacks),
        config=recipe.training,
        checkpoint=checkpoint_of(arguments.output, earlier),
    )
    with terminated_as_interrupt():
        training.resume()
        averaged = training.run()
    save_prior(
        arguments.output,
        averaged,
        config=config,
        backbone=loaded,
        title="procedural abdomen",
        modalities=["CT", "MR"],
        licence="Apache-2.0",
        training={
            "cases": [],
            "procedural_abdomens": ABDOMENS,
            "started_from": None if earlier is None else earlier.header.training,
            "recipe": recipe.to_dict(),
            "iterations": training.iteration,
            "minutes": round(training.seconds / 60, 1),
        },
        metrics={},
    )
    training.checkpoint.unlink()


def checkpoint_of(output: Path, earlier: EarlierPrior | None) -> Path:
    """Where the unfinished run of a prior lies: beside it, another one for each prior that it begins with."""
    return output.with_suffix(f".{'anew' if earlier is None else earlier.sha256[:16]}.training")


if __name__ == "__main__":
    main()
