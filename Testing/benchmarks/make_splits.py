"""Write the split files of the benchmarks from the case lists of the shared data.

    python Testing/benchmarks/make_splits.py DATA [--out FOLDER]

DATA holds ``btcv-ct``, ``chaos-mr-t2spir`` and ``msd-hippocampus-mr``, each with its ``dataset.json``.
Draw d takes three cases with ``numpy.random.default_rng(2026 + d)`` from the sorted case names, without
replacement. The written files are what counts: another numpy version might draw differently.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from DiffuSAMLib.splits import Split, save_split

SPLITS = Path(__file__).parent / "splits"
SEED = 2026
SHOTS = 3
BTCV_DEVELOPMENT = ("btcv_0004", "btcv_0010", "btcv_0024", "btcv_0035", "btcv_0038")
CHAOS_DEVELOPMENT = ("chaos_05", "chaos_19", "chaos_33")


def draw_cases(cases: Sequence[str], draw: int) -> tuple[str, ...]:
    """Three of `cases` at random, sorted; the same for the same draw number."""
    chosen = np.random.default_rng(SEED + draw).choice(sorted(cases), size=SHOTS, replace=False)
    return tuple(sorted(str(case) for case in chosen))


def without(cases: Sequence[str], *others: Sequence[str]) -> tuple[str, ...]:
    """`cases`, sorted, less those of `others`."""
    return tuple(sorted(set(cases).difference(*others)))


def make_splits(btcv: Sequence[str], chaos: Sequence[str], hippocampus: Sequence[str]) -> list[Split]:
    """All splits, from the case names of the three data sets."""
    development = BTCV_DEVELOPMENT + CHAOS_DEVELOPMENT
    splits = [
        Split(
            name="bundled",
            train=without([*btcv, *chaos], development),
            development=development,
            test=(),
            note=(
                "Protocol C: the bundled weights. The development cases are in no training at all, neither "
                "of the backbone nor of the prior. Variants are compared on them, so their figures are "
                "development figures."
            ),
        )
    ]
    for draw in range(1, 6):
        train = draw_cases(without(btcv, BTCV_DEVELOPMENT), draw)
        splits.append(
            Split(
                name=f"fewshot_ct_draw{draw}",
                train=train,
                development=BTCV_DEVELOPMENT,
                test=without(btcv, train, BTCV_DEVELOPMENT),
                note=(
                    f"Protocol A: a prior from three BTCV volumes, drawn with numpy's default_rng({SEED} + "
                    f"{draw}) from the BTCV cases that are not development cases. Variants are compared on "
                    "the development cases; the test cases are all the others. The backbone must have seen "
                    "no test case: the bundled compact one has, and is no backbone for this protocol."
                ),
            )
        )
    for draw in range(1, 4):
        train = draw_cases(hippocampus, draw)
        splits.append(
            Split(
                name=f"hippocampus_draw{draw}",
                train=train,
                development=(),
                test=without(hippocampus, train),
                note=(
                    "Protocol D: a prior from three hippocampus volumes, drawn with numpy's "
                    f"default_rng({SEED} + {draw}) from the 120 shared ones; all the others are test cases "
                    "and must be in no pretraining of the backbone."
                ),
            )
        )
    return splits


def main(argv: list[str] | None = None) -> int:
    """Write every split file."""
    parser = argparse.ArgumentParser(description="Write the split files of the benchmarks.")
    parser.add_argument("data", type=Path, help="folder with the three labelled data sets")
    parser.add_argument("--out", type=Path, default=SPLITS, help="folder for the split files")
    arguments = parser.parse_args(argv)
    cases = [
        json.loads((arguments.data / folder / "dataset.json").read_text(encoding="utf-8"))["cases"]
        for folder in ("btcv-ct", "chaos-mr-t2spir", "msd-hippocampus-mr")
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split in make_splits(*cases):
        save_split(split, arguments.out / f"{split.name}.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
