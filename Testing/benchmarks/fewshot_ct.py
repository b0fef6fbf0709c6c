"""A prior from three BTCV volumes on the bundled backbone, scored on the BTCV development cases.

The bundled backbone has seen the other BTCV cases in its pretraining (images and labels), so only the development
cases are left to score on, and the figure says what a user of the bundled backbone gets, not what the paper's
protocol gives: for that the backbone must not have seen the data set.
"""

from __future__ import annotations

import argparse

from common import ORGANS, ROOT, SETS, SPLITS, development_cases, write_result

from DiffuSAMLib.datasets import read_dataset
from DiffuSAMLib.evaluation import evaluate
from DiffuSAMLib.splits import load_split
from DiffuSAMLib.train import train_prior
from DiffuSAMLib.training import TrainingConfig
from DiffuSAMLib.weights import load_prior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0)
    arguments = parser.parse_args()
    draws = {}
    for number in range(1, arguments.draws + 1):
        split = load_split(SPLITS / f"fewshot_ct_draw{number}.json")
        path = ROOT / "runs" / f"{split.name}.safetensors"
        train_prior(
            read_dataset(SETS["BTCV"], only=split.train),
            path,
            organs=ORGANS,
            config=TrainingConfig(minutes=arguments.minutes, seed=number),
            resume=path.with_suffix(".training").exists(),
        )
        evaluation = evaluate(load_prior(path), development_cases("BTCV"))
        print(f"{split.name}: {evaluation.mean():.3f}\n{evaluation.table()}", flush=True)
        draws[split.name] = {"train": split.train, **evaluation.to_json()}
    mean = sum(scores["summary"]["mean"]["dice"] for scores in draws.values()) / len(draws)
    note = f"Mean over {len(draws)} draws: {mean:.3f}. {arguments.minutes:g} minutes of training each."
    write_result("fewshot_ct", {"note": note, "mean_dice": mean, "draws": draws})


if __name__ == "__main__":
    main()
