"""Trains the bundled anatomy network: on procedural abdomens alone, so that it has seen no patient.

    python Testing/benchmarks/anatomy.py --minutes 60 -o anatomy.safetensors

A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import ORGANS, RUNS

from DiffuSAMLib.anatomy import save_anatomy
from DiffuSAMLib.anatomy_network import AnatomyConfig, AnatomyNetwork
from DiffuSAMLib.anatomy_training import AnatomyCase, AnatomyTraining
from DiffuSAMLib.interrupts import terminated_as_interrupt
from DiffuSAMLib.procedural_stacks import procedural_stacks
from DiffuSAMLib.weights import DEFAULT_IMAGE_SIZE

ABDOMENS = 160


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of training (default: 60)")
    parser.add_argument("--abdomens", type=int, default=ABDOMENS, help=f"how many (default: {ABDOMENS})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the safetensors file")
    arguments = parser.parse_args()
    if arguments.output.exists():
        print(f"{arguments.output} is there already.")
        return
    RUNS.mkdir(parents=True, exist_ok=True)
    with terminated_as_interrupt():
        stacks = procedural_stacks(arguments.abdomens, organs=ORGANS, size=DEFAULT_IMAGE_SIZE["compact"])
        cases = [AnatomyCase.of(stack, organs=len(ORGANS)) for stack in stacks]
        del stacks
        torch.manual_seed(arguments.seed)
        training = AnatomyTraining(
            AnatomyNetwork(AnatomyConfig(organs=tuple(ORGANS))),
            cases,
            minutes=arguments.minutes,
            seed=arguments.seed,
            checkpoint=RUNS / "anatomy.training",
        )
        network = training.run()
    record = {
        "cases": f"{arguments.abdomens} procedural abdomens",
        "steps": training.steps,
        "minutes": round(training.seconds / 60, 1),
        "seed": arguments.seed,
    }
    save_anatomy(arguments.output, network, training=record)
    training.checkpoint.unlink(missing_ok=True)
    print(f"{arguments.output}: {training.steps} steps in {training.seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main()
