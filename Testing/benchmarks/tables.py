"""Writes `results/TABLES.md` from the result files; no figure in it is typed by hand."""

from __future__ import annotations

import json
from typing import Any

from common import ORGANS, RESULTS

from DiffuSAMLib.files import atomic_path


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def backbone_quality(result: dict[str, Any]) -> str:
    rows = [
        [data, kind, *(number(dice[organ]) for organ in ORGANS), number(dice["mean"])]
        for data, kinds in result["dice"].items()
        for kind, dice in kinds.items()
    ]
    return table(["development cases", "memory of", *ORGANS, "mean"], rows)


def prior_scores(result: dict[str, Any]) -> str:
    rows = []
    for data, variants in result["sets"].items():
        for variant, scores in variants.items():
            summary = scores["summary"]
            rows.append(
                [
                    data,
                    "equation 3" if variant == "3d" else "no 3D",
                    *(number(summary[organ]["dice"]) for organ in ORGANS),
                    f"{number(summary['mean']['dice'])} ± {number(scores['dice_deviation'])}",
                    number(summary["mean"]["surface_dice"]),
                    number(summary["mean"]["hd95_mm"], 1),
                    number(summary["mean"]["dice_z_cropped"]),
                ]
            )
    heads = [
        "development cases",
        "variant",
        *ORGANS,
        "mean Dice ± SD",
        "NSD 3 mm",
        "HD95 mm",
        "Dice, z-cropped",
    ]
    return table(heads, rows)


def few_shot(result: dict[str, Any]) -> str:
    rows = [
        [draw, ", ".join(scores["train"]), *(number(scores["summary"][o]["dice"]) for o in (*ORGANS, "mean"))]
        for draw, scores in result["draws"].items()
    ]
    return table(["draw", "trained on", *ORGANS, "mean Dice"], rows)


def speed(result: dict[str, Any]) -> str:
    rows = [
        [
            name,
            str(run["slices"]),
            number(run["volume_seconds"], 1),
            number(run["encode_seconds"], 1),
            number(run["ratio"], 2),
            number(run["peak_memory_mb"], 0),
        ]
        for name, run in result["runs"].items()
    ]
    return table(["volume", "slices", "volume s", "encode_image s", "ratio", "peak MB"], rows)


SECTIONS = {
    "backbone_quality": ("Compact backbone: how well it carries a mask (Dice)", backbone_quality),
    "bundled_prior": ("Bundled prior on the development cases (whole volumes)", prior_scores),
    "fewshot_ct": ("Prior from three BTCV volumes, other BTCV cases", few_shot),
    "speed_compact": ("Time and memory, compact backbone, 2 cores", speed),
    "speed_sam21_tiny": ("Time and memory, SAM2.1 tiny at 512 px, random weights, 2 cores", speed),
}


def main() -> None:
    parts = ["# Measured figures\n\nMade by `make tables` from the JSON files beside it.\n"]
    for name, (title, render) in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            note = f"\n{result['note']}\n" if result.get("note") else ""
            parts.append(f"## {title}\n\n`{result['command']}`\n{note}\n{render(result)}")
    with atomic_path(RESULTS / "TABLES.md") as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
