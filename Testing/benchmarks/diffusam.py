"""DiffuSAM on the protocols: trains a prior for each draw (C takes the bundled one) and scores it.

    python Testing/benchmarks/diffusam.py A B --draws 1 2 --minutes 20

Each draw is one file under results/units, kept when it is there with the same settings; B takes the priors of A.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ablations import BASE, NO_3D
from prior_rows import PriorRow, measure_row
from protocols import add_job_options, jobs

from DiffuSAMLib.interrupts import terminated_as_interrupt
from DiffuSAMLib.recipe import load_recipe

DIFFUSAM = PriorRow("diffusam", "DiffuSAM")
REGRESSION = PriorRow("regression", "regression instead of diffusion", {"kind": "regression"}, options=BASE)
ADAPTED = PriorRow("diffusam_adapted", "DiffuSAM, backbone adapted to the training cases")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_job_options(parser)
    parser.add_argument("--prior", help="take this prior as it is (default for C: the bundled one)")
    parser.add_argument("--start", help="none, or the prior that trainings begin with")
    parser.add_argument(
        "--procedural", type=int, help="procedural abdomens besides the cases (default: the protocol's)"
    )
    parser.add_argument("--recipe", help="name or file of the recipe (default: the protocol's)")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("SETTING", "VALUE"))
    parser.add_argument(
        "--method", default="diffusam", help="name of the row, for variants (default: diffusam)"
    )
    parser.add_argument("--no-3d", action="store_true", help="also the row without 3D")
    parser.add_argument("--regression", action="store_true", help="also the control without diffusion")
    parser.add_argument(
        "--adapt-minutes", type=float, help="also a row with the backbone adapted for so long"
    )
    arguments = parser.parse_args()
    changes = {place: _value(value) for place, value in arguments.set}
    others = {"start": arguments.start, "procedural": arguments.procedural}
    with terminated_as_interrupt():
        for job in jobs(arguments):
            recipe = load_recipe(arguments.recipe or job.protocol.recipe)
            prior = arguments.prior or ("abdomen" if job.protocol.name.startswith("C") else None)
            rows = [DIFFUSAM]
            if arguments.no_3d:
                rows.append(NO_3D)
            if prior is None and arguments.regression:
                rows.append(REGRESSION)
            if prior is None and arguments.adapt_minutes:
                rows.append(replace(ADAPTED, adapt_minutes=arguments.adapt_minutes))
            for row in rows:
                row = variant(row, name=arguments.method, changes=changes, **others)
                measure_row(row, job, recipe=recipe, prior=prior)


def variant(row: PriorRow, *, name: str, changes: Mapping[str, Any], **others: Any) -> PriorRow:
    """A row of a variant of DiffuSAM, such as "more" or "more_no_3d".

    Args:
        row: Of DiffuSAM itself.
        name: Of the variant; "diffusam" keeps the row's own.
        changes: Settings of the recipe; those of the row count more.
        others: Fields of `PriorRow`.
    """
    method = row.method
    if name != DIFFUSAM.method:
        method = name if method == DIFFUSAM.method else f"{name}_{method}"
    return replace(row, method=method, changes={**changes, **row.changes}, **others)


def _value(text: str) -> object:
    """JSON, or else a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
