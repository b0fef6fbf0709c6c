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
DRAWS = range(1, 6)
HIPPOCAMPUS_DRAWS = range(1, 4)
VOLUMES = (1, 5, 10)
VOLUME_DRAWS = range(1, 4)
# Draws of CHAOS cases start here: those from 1 on are not all different.
MR_DRAWS = 100
BTCV_DEVELOPMENT = ("btcv_0004", "btcv_0010", "btcv_0024", "btcv_0035", "btcv_0038")
CHAOS_DEVELOPMENT = ("chaos_05", "chaos_19", "chaos_33")
# How many hippocampus cases the clean backbone may see, and how many variants are compared on.
HIPPOCAMPUS_PRETRAINING = 40
HIPPOCAMPUS_DEVELOPMENT = 20
TOTALSEGMENTATOR = ("totalsegmentator_a", "totalsegmentator_b")


def draw_cases(cases: Sequence[str], draw: int, *, count: int = SHOTS) -> tuple[str, ...]:
    """`count` of `cases` at random, sorted; the same for the same draw number."""
    chosen = np.random.default_rng(SEED + draw).choice(sorted(cases), size=count, replace=False)
    return tuple(sorted(str(case) for case in chosen))


def without(cases: Sequence[str], *others: Sequence[str]) -> tuple[str, ...]:
    """`cases`, sorted, less those of `others`."""
    return tuple(sorted(set(cases).difference(*others)))


def make_splits(btcv: Sequence[str], chaos: Sequence[str], hippocampus: Sequence[str]) -> list[Split]:
    """All splits, from the case names of the three data sets."""
    pretraining, development = hippocampus_parts(hippocampus)
    return [
        bundled(btcv, chaos),
        clean_backbone(pretraining),
        *few_shot_splits(btcv, chaos),
        *volume_splits(btcv),
        *hippocampus_splits(hippocampus, pretraining, development),
    ]


def bundled(btcv: Sequence[str], chaos: Sequence[str]) -> Split:
    """Protocol C."""
    development = BTCV_DEVELOPMENT + CHAOS_DEVELOPMENT
    return Split(
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


def clean_backbone(hippocampus: Sequence[str]) -> Split:
    """What the backbone of the protocols A, B and B-reverse is pretrained on."""
    return Split(
        name="clean_backbone",
        train=(*hippocampus, *TOTALSEGMENTATOR),
        development=(),
        test=(),
        note=(
            "Pretraining of the clean backbone, for the protocols A, B and B-reverse: no case of BTCV or CHAOS. "
            "Procedural abdomens are added to it. Its hippocampus cases are neither development nor test cases of "
            "protocol D. Two automatic segmentations come from TotalSegmentator's test files."
        ),
    )


def few_shot_splits(btcv: Sequence[str], chaos: Sequence[str]) -> list[Split]:
    """Protocols A, B and B-reverse."""
    splits = []
    for draw in DRAWS:
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
        splits.append(
            Split(
                name=f"ct_to_mr_draw{draw}",
                train=train,
                development=CHAOS_DEVELOPMENT,
                test=without(chaos, CHAOS_DEVELOPMENT),
                note=(
                    f"Protocol B: the weights of fewshot_ct_draw{draw}, unchanged, on CHAOS. Methods that adapt to "
                    "unlabelled target volumes take the images of the CHAOS cases that are not scored."
                ),
            )
        )
        splits.append(
            Split(
                name=f"mr_to_ct_draw{draw}",
                train=draw_cases(without(chaos, CHAOS_DEVELOPMENT), MR_DRAWS + draw),
                development=BTCV_DEVELOPMENT,
                test=without(btcv, BTCV_DEVELOPMENT),
                note=(
                    f"Protocol B-reverse: weights from three CHAOS volumes, drawn with numpy's default_rng({SEED} + "
                    f"{MR_DRAWS} + {draw}) from the CHAOS cases that are not development cases, on BTCV."
                ),
            )
        )
    return splits


def volume_splits(btcv: Sequence[str]) -> list[Split]:
    """The ablation over the number of volumes; the three of protocol A lie between one and five."""
    splits = []
    pool = without(btcv, BTCV_DEVELOPMENT)
    for draw in VOLUME_DRAWS:
        three = draw_cases(pool, draw)
        order = (*three, *np.random.default_rng([SEED, draw]).permutation(without(pool, three)).tolist())
        for count in VOLUMES:
            train = tuple(sorted(order[:count]))
            splits.append(
                Split(
                    name=f"ct_{count}_volumes_draw{draw}",
                    train=train,
                    development=BTCV_DEVELOPMENT,
                    test=without(pool, train),
                    note=(
                        f"Ablation: as protocol A, with {count} instead of three volumes. Smaller sets are parts of "
                        "larger ones of the same draw."
                    ),
                )
            )
    return splits


def hippocampus_parts(hippocampus: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Cases for the clean backbone and development cases, none of which any draw of protocol D trains on."""
    drawn = [case for draw in HIPPOCAMPUS_DRAWS for case in draw_cases(hippocampus, draw)]
    pretraining = draw_cases(without(hippocampus, drawn), 0, count=HIPPOCAMPUS_PRETRAINING)
    development = draw_cases(without(hippocampus, drawn, pretraining), 0, count=HIPPOCAMPUS_DEVELOPMENT)
    return pretraining, development


def hippocampus_splits(
    hippocampus: Sequence[str], pretraining: Sequence[str], development: tuple[str, ...]
) -> list[Split]:
    """Protocol D."""
    splits = []
    for draw in HIPPOCAMPUS_DRAWS:
        train = draw_cases(hippocampus, draw)
        splits.append(
            Split(
                name=f"hippocampus_draw{draw}",
                train=train,
                development=development,
                test=without(hippocampus, train, development, pretraining),
                note=(
                    "Protocol D: a prior from three hippocampus volumes, drawn with numpy's "
                    f"default_rng({SEED} + {draw}) from the 120 shared ones. The {HIPPOCAMPUS_PRETRAINING} cases that "
                    "the clean backbone may see are left out of it; all the others are test cases and must be in no "
                    "pretraining of the backbone."
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
