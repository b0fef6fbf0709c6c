"""How dark MR is best shown to priors that know it from what is made up alone, on CHAOS cases that nothing scores.

    python Testing/benchmarks/mr_exponent.py before=FILE now=FILE "draw 1 of A=FILE" --exponents 1 1.5

The cases are those of the bundled prior's training. Priors on the clean backbone have not seen them. What was measured of
priors of other titles is kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clean_weights import CLEAN_BACKBONE, taken_from_history
from common import ORGANS, RESULTS, SPLITS, labelled_cases, provenance, write_result

from DiffuSAMLib.evaluation import evaluate
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.splits import load_split
from DiffuSAMLib.weights import load_prior

EXPONENTS = (1.0, 1.25, 1.5, 1.8, 2.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("priors", nargs="+", metavar="TITLE=FILE")
    parser.add_argument("--exponents", nargs="+", type=float, default=EXPONENTS)
    arguments = parser.parse_args()
    names = [name for name in load_split(SPLITS / "bundled.json").train if name.startswith("chaos")]
    cases = labelled_cases(names)
    files = {title: Path(file) for title, _, file in (prior.partition("=") for prior in arguments.priors)}
    earlier = RESULTS / "mr_exponent.json"
    runs = json.loads(earlier.read_text(encoding="ascii"))["runs"] if earlier.exists() else []
    runs = [run for run in runs if run["title"] not in files]
    runs += [_run(title, file, cases, arguments.exponents) for title, file in files.items()]
    print(write_result("mr_exponent", {"cases": names, "runs": runs}))


def _run(title: str, file: Path, cases: list[LabelledFiles], exponents: Sequence[float]) -> dict[str, Any]:
    loaded = load_prior(file, backbone_path=taken_from_history(CLEAN_BACKBONE))
    dice = {}
    for exponent in exponents:
        loaded.prior.config = replace(loaded.prior.config, mr_gamma=exponent)
        result = evaluate(loaded, cases)
        dice[f"{exponent:g}"] = {organ or "mean": result.mean(organ=organ) for organ in (*ORGANS, None)}
        print(title, exponent, dice[f"{exponent:g}"], flush=True)
    return {
        "title": title,
        "command": provenance()["command"],
        "prior_sha256": loaded.sha256,
        "prior_cases": loaded.header.training.get("cases", ()),
        "iterations": loaded.header.training.get("iterations"),
        "dice": dice,
    }


if __name__ == "__main__":
    main()
