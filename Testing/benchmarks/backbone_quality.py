"""How well the backbone carries a mask: into its own slice (self) and into the next one (neighbour).

Dice per organ and volume, over all slices in which the memory's slice shows the organ, at the backbone's
image size. Memories are made from true masks; no prior takes part.
"""

from __future__ import annotations

import argparse
import collections
from pathlib import Path

import numpy as np
import torch
from common import ORGANS, development_cases, write_result
from torch.nn import functional as F

from DiffuSAMLib.backbones import Backbone, Memory, mask_to_logits
from DiffuSAMLib.labelled_stacks import load_stack
from DiffuSAMLib.slices import as_channels
from DiffuSAMLib.splits import refuse_overlap
from DiffuSAMLib.weights import load_backbone


@torch.no_grad()
def carried_dice(backbone: Backbone, slices: torch.Tensor, masks: torch.Tensor, *, step: int) -> float:
    """Dice of one organ `(n, s, s)` when slice i's memory segments slice i + step."""
    showing = [i for i in range(len(slices) - step) if masks[i].any()]
    overlap = total = 0
    for begin in range(0, len(showing), 8):
        first = torch.tensor(showing[begin : begin + 8])
        second = first + step
        remembered = backbone.encode_image(as_channels(slices, first, context=backbone.slice_context))
        memory = backbone.encode_memory(remembered, mask_to_logits(masks[first][:, None]))
        seen = backbone.encode_image(as_channels(slices, second, context=backbone.slice_context))
        logits = backbone.decode(seen, [Memory(memory, distance=step)]).logits
        size = list(slices.shape[-2:])
        found = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[:, 0] > 0
        overlap += int((found & masks[second]).sum())
        total += int(found.sum() + masks[second].sum())
    return 2 * overlap / total if total else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, help="default: the bundled ones")
    parser.add_argument("--name", default="backbone_quality")
    arguments = parser.parse_args()
    loaded = load_backbone("compact", path=arguments.weights)
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name in ("BTCV", "CHAOS"):
        cases = development_cases(name)
        refuse_overlap(loaded.training_cases, [case.name for case in cases])
        dice: dict[str, dict[str, list[float]]] = collections.defaultdict(
            lambda: collections.defaultdict(list)
        )
        for case in cases:
            stack = load_stack(case, organs=ORGANS, size=loaded.backbone.image_size)
            slices, labels = stack.images(), torch.from_numpy(stack.labels)
            for value, organ in enumerate(ORGANS, start=1):
                for kind, step in (("self", 0), ("neighbour", 1)):
                    dice[kind][organ].append(
                        carried_dice(loaded.backbone, slices, labels == value, step=step)
                    )
        result[name] = {
            kind: {
                **{o: float(np.nanmean(v)) for o, v in d.items()},
                "mean": float(np.nanmean(list(d.values()))),
            }
            for kind, d in dice.items()
        }
        print(name, result[name])
    print(write_result(arguments.name, {"backbone_sha256": loaded.sha256, "dice": result}))


if __name__ == "__main__":
    main()
