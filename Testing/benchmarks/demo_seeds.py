"""The bundled prior on the procedural abdomens of ten seeds, that of the demo among them.

None of them was trained on. One patient says little: this shows where the demo's own lies among the others.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import write_result

from DiffuSAMLib.metrics import dice
from DiffuSAMLib.procedural import DEMO_SEED, make_abdomen
from DiffuSAMLib.segmenter import Segmenter
from DiffuSAMLib.weights import load_prior

SEEDS = range(10)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    loaded = load_prior("abdomen")
    segmenter = Segmenter(loaded.backbone.backbone, loaded.prior)
    seeds = {}
    for seed in SEEDS:
        abdomen = make_abdomen(seed)
        found = segmenter.segment(abdomen.volume).labels
        seeds[str(seed)] = {
            name: float(dice(found == value, abdomen.labels.array == value))
            for value, name in abdomen.labels.names.items()
        }
        print(seed, seeds[str(seed)], flush=True)
    mean = float(np.mean([list(each.values()) for each in seeds.values()]))
    content = {"prior_sha256": loaded.sha256, "demo_seed": DEMO_SEED, "seeds": seeds, "mean": mean}
    print(write_result("demo_seeds", content))


if __name__ == "__main__":
    main()
