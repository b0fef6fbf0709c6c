"""Where the time of a training's iteration goes, and 20 iterations of SAM2.1 tiny at the paper's settings.

The ratio is the time of a whole iteration over that of what cannot be spared: the prior and the decoder, forward and
backward. The rest is drawing, augmenting and encoding slices, the memories of their true masks, and the optimizer.
SAM2.1 has seeded random weights here: it shows that the training runs, how long it takes and what memory it needs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import ORGANS, SPLITS, labelled_cases, write_result
from protocols import PROTOCOLS

from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.labelled_stacks import load_stack
from DiffuSAMLib.peak_memory import peak_memory_mb
from DiffuSAMLib.prior import Prior
from DiffuSAMLib.recipe import RECIPES, Recipe
from DiffuSAMLib.splits import load_split
from DiffuSAMLib.stack_pool import StackPool
from DiffuSAMLib.training import PriorTraining
from DiffuSAMLib.weights import load_backbone

WARM_UP = 10
# Losses of single iterations differ much: means over so many at the beginning and at the end are compared.
COMPARED = 5


class Stopwatch:
    """Keeps the seconds of every call of some functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def watch(self, owner: Any, name: str) -> None:
        call: Callable[..., Any] = getattr(owner, name)
        seconds = self.seconds.setdefault(name, [])

        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                seconds.append(time.perf_counter() - started)

        setattr(owner, name, timed)


def measure(
    recipe: Recipe, backbone: Backbone, split: str, organs: Sequence[str], *, iterations: int
) -> dict[str, Any]:
    """Trains on the training cases of a split for some iterations."""
    cases = labelled_cases(load_split(SPLITS / f"{split}.json").train)
    stacks = [load_stack(case, organs=tuple(organs), size=backbone.image_size) for case in cases]
    torch.manual_seed(0)
    config = replace(recipe.training, iterations=iterations, minutes=None)
    shape = recipe.prior_config(backbone, tuple(organs))
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        training = PriorTraining(
            Prior(shape),
            backbone,
            StackPool(stacks),
            config=config,
            checkpoint=Path(folder) / "speed.training",
        )
        for owner, name in ((training.slices, "batch"), (training, "_gradients"), (training, "_update")):
            watch.watch(owner, name)
        training.run()
    # At first all slices are new.
    parts = {name: statistics.fmean(seconds[WARM_UP:]) for name, seconds in watch.seconds.items()}
    needed = parts["_gradients"] - parts["batch"]
    whole = parts["_gradients"] + parts["_update"]
    totals = [sum(losses.values()) for losses in training.losses]
    return {
        "cases": [case.name for case in cases],
        "image_size": backbone.image_size,
        "batch": config.batch,
        "slice_uses": config.slice_uses,
        "iterations": iterations,
        "seconds": {
            "iteration": whole,
            "drawing, augmenting and encoding": parts["batch"],
            "prior and decoder, forward and backward": needed,
            "optimizer and average": parts["_update"],
        },
        "ratio": whole / needed,
        "loss_at_first": statistics.fmean(totals[:COMPARED]),
        "loss_at_last": statistics.fmean(totals[-COMPARED:]),
        "peak_memory_mb": peak_memory_mb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sam21", action="store_true", help="SAM2.1 tiny instead of the compact backbone")
    parser.add_argument("--iterations", type=int, help="default: 100, and 20 of SAM2.1")
    arguments = parser.parse_args()
    if arguments.sam21:
        recipe = RECIPES["paper"]
        torch.manual_seed(0)
        backbone = Backbone(recipe.backbone, image_size=recipe.image_size).freeze()
        iterations = arguments.iterations or 20
        result = measure(recipe, backbone, "fewshot_ct_draw1", ORGANS, iterations=iterations)
    else:
        backbone = load_backbone("compact").backbone
        organs, iterations = PROTOCOLS["D"].organs, arguments.iterations or 100
        result = measure(RECIPES["compact"], backbone, "hippocampus_draw1", organs, iterations=iterations)
    print(result)
    write_result("training_speed_sam21_tiny" if arguments.sam21 else "training_speed_compact", result)


if __name__ == "__main__":
    main()
