"""How dark MR is best shown to priors that know it from procedural abdomens alone, on CHAOS cases that nothing scores.

    python Testing/benchmarks/mr_exponent.py before=FILE now=FILE "draw 1 of A=FILE"

The cases are those of the bundled prior's training. Priors on the clean backbone have not seen them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import ORGANS, SPLITS, labelled_cases, write_result
from protocols import CLEAN_BACKBONE

from DiffuSAMLib.datasets import LabelledFiles
from DiffuSAMLib.evaluation import evaluate
from DiffuSAMLib.splits import load_split
from DiffuSAMLib.weights import load_prior

EXPONENTS = (1.0, 1.25, 1.5, 1.8, 2.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("priors", nargs="+", metavar="TITLE=FILE")
    arguments = parser.parse_args()
    names = [name for name in load_split(SPLITS / "bundled.json").train if name.startswith("chaos")]
    cases = labelled_cases(names)
    runs = [_run(title, Path(file), cases) for title, _, file in (p.partition("=") for p in arguments.priors)]
    print(write_result("mr_exponent", {"cases": names, "runs": runs}))


def _run(title: str, file: Path, cases: list[LabelledFiles]) -> dict[str, Any]:
    loaded = load_prior(file, backbone_path=CLEAN_BACKBONE)
    dice = {}
    for exponent in EXPONENTS:
        loaded.prior.config = replace(loaded.prior.config, mr_gamma=exponent)
        result = evaluate(loaded, cases)
        dice[f"{exponent:g}"] = {organ or "mean": result.mean(organ=organ) for organ in (*ORGANS, None)}
        print(title, exponent, dice[f"{exponent:g}"], flush=True)
    return {
        "title": title,
        "prior_sha256": loaded.sha256,
        "prior_cases": loaded.header.training.get("cases", ()),
        "iterations": loaded.header.training.get("iterations"),
        "dice": dice,
    }


if __name__ == "__main__":
    main()
