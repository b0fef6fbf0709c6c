"""Protocol C: the bundled prior on the development cases; the same without equation 3, and with outlines as decoded."""

from __future__ import annotations

import argparse

from common import development_cases, write_result

from DiffuSAMLib.evaluation import evaluate
from DiffuSAMLib.propagation import PropagationConfig
from DiffuSAMLib.segmenter import SegmentOptions
from DiffuSAMLib.weights import load_prior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", default="abdomen")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--name", default="bundled_prior")
    arguments = parser.parse_args()
    loaded = load_prior(arguments.prior)
    result = {}
    for name in ("BTCV", "CHAOS"):
        for variant, three_d, refine in (
            ("3d", True, True),
            ("no_3d", False, True),
            ("not_refined", True, False),
        ):
            options = SegmentOptions(
                steps=arguments.steps, propagation=PropagationConfig(three_d=three_d), refine=refine
            )
            evaluation = evaluate(loaded, development_cases(name), options=options)
            result.setdefault(name, {})[variant] = evaluation.to_json()
            print(f"{name} {variant}: {evaluation.mean():.3f}\n{evaluation.table()}", flush=True)
    write_result(
        arguments.name,
        {"prior_sha256": loaded.sha256, "backbone_sha256": loaded.backbone.sha256, "sets": result},
    )


if __name__ == "__main__":
    main()
