"""Writes `results/TABLES.md` and the plots beside it: all tables from the result files, the words from `caveats.md`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation_tables import ablation_sections, groups
from common import BENCHMARKS, ORGANS, RESULTS
from ideas import decoders_table, ideas_table, segmenting_table
from markdown_tables import NOT_RUN, number, span, spread, table
from protocols import PROTOCOLS
from rows import METHODS, Summary, summaries

from DiffuSAMLib.files import atomic_path

Summaries = Mapping[tuple[str, str], Summary]
CAVEATS = BENCHMARKS / "caveats.md"


def main_table(found: Summaries, *, all_rows: bool) -> str:
    """A line for each method, a column for each protocol.

    Args:
        found: What was measured.
        all_rows: Also methods and protocols of which nothing was.
    """
    asked = [p for p in PROTOCOLS.values() if all_rows or any(name == p.name for name, _ in found)]
    rows = [["*target*", *(f"{p.measure:.2f}" if p.measure else "–" for p in asked)]]
    for method, (title, protocols) in METHODS.items():
        if not all_rows and not any((p.name, method) in found for p in asked):
            continue
        cells = [
            "" if p.name not in protocols else cell(found.get((p.name, method)), len(p.draws)) for p in asked
        ]
        rows.append([title, *cells])
    return table(["mean 3D Dice, whole volumes", *(f"{p.name}: {p.title}" for p in asked)], rows)


def cell(summary: Summary | None, draws: int) -> str:
    if summary is None:
        return NOT_RUN
    note = f" ({len(summary.units)} of {draws} draws)" if len(summary.units) < draws else ""
    return spread(summary.mean(), summary.deviation()) + note


def protocol_table(found: Summaries, protocol: str, *, all_rows: bool) -> str:
    """A line for each method on one protocol; `all_rows` as in `main_table`."""
    organs = PROTOCOLS[protocol].organs
    heads = [
        "method",
        "draws",
        *organs,
        "mean ± SD",
        "NSD 3 mm",
        "HD95 mm",
        "Dice, z-cropped",
        "minutes",
        "steps",
    ]
    rows = []
    for method, title in (*methods_of(protocol), *variants(found, protocol)):
        summary = found.get((protocol, method))
        if summary is None:
            if all_rows:
                rows.append([title, NOT_RUN, *[""] * (len(heads) - 2)])
            continue
        distance, missed = summary.hd95()
        rows.append(
            [
                title,
                str(len(summary.units)),
                *(spread(summary.mean(organ=organ), summary.deviation(organ=organ)) for organ in organs),
                spread(summary.mean(), summary.deviation()),
                number(summary.mean("surface_dice")),
                number(distance, 1) + (f" ({missed} missed)" if missed else ""),
                number(summary.mean("dice_z_cropped")),
                ", ".join(f"{minutes:g}" for minutes in sorted(summary.minutes)) or "–",
                span(summary.steps),
            ]
        )
    return table(heads, rows)


def methods_of(protocol: str) -> list[tuple[str, str]]:
    """The methods of the main table that make sense in a protocol, and their titles."""
    return [(method, title) for method, (title, protocols) in METHODS.items() if protocol in protocols]


def variants(found: Summaries, protocol: str) -> list[tuple[str, str]]:
    """What else was measured: rows that somebody gave a name of their own."""
    known = {*METHODS, *(method for _, method in groups(protocol))}
    return [
        (method, f"`{method}`") for name, method in sorted(found) if name == protocol and method not in known
    ]


def case_table(summary: Summary) -> str:
    organs = summary.organs
    by_organ = {organ: summary.of_cases(organ=organ) for organ in organs}

    def mean(values: list[float]) -> str:
        return number(sum(values) / len(values)) if values else "–"

    rows = [
        [case, *(mean(by_organ[organ].get(case, [])) for organ in organs), mean(values)]
        for case, values in summary.of_cases().items()
    ]
    return table(["case (mean over draws)", *organs, "mean"], rows)


def seen_by_backbone(found: Summaries) -> str:
    """Which cases the backbones of DiffuSAM's rows have seen."""
    rows = []
    for protocol in PROTOCOLS:
        summary = found.get((protocol, "diffusam"))
        if summary is None:
            rows.append([protocol, NOT_RUN])
            continue
        cases: dict[str, int] = {}
        for case in summary.units[0]["record"]["backbone_cases"]:
            cases[case.split("_")[0]] = cases.get(case.split("_")[0], 0) + 1
        text = ", ".join(f"{name} {count}" for name, count in cases.items())
        rows.append([protocol, text or "procedural abdomens only"])
    return table(["protocol", "real cases in the backbone's pretraining"], rows)


def protocol_sections(part: str, folder: Path) -> list[str]:
    found = summaries(part, folder)
    if not found and part == "test":
        return ["## Test cases\n\nNot run.\n"]
    # Test cases are for what is decided, not for every row.
    whole = part == "development"
    sections = [f"## Main table, {part} cases\n\n{main_table(found, all_rows=whole)}"]
    if whole:
        caveats = CAVEATS.read_text(encoding="utf-8")
        sections += [caveats, f"## Pretraining data\n\n{seen_by_backbone(found)}"]
    for name, protocol in PROTOCOLS.items():
        if not whole and not any(known == name for known, _ in found):
            continue
        heading = f"## Protocol {name}: {protocol.title}, {part} cases"
        text = f"{heading}\n\n{protocol_table(found, name, all_rows=whole)}"
        own = found.get((name, "diffusam"))
        if own is not None:
            text += f"\nDiffuSAM, case by case (Dice):\n\n{case_table(own)}"
        sections.append(text)
    if whole:
        sections += ablation_sections(found)
    return sections


def backbone_quality(result: dict[str, Any]) -> str:
    rows = [
        [data, kind, *(number(dice[organ]) for organ in ORGANS), number(dice["mean"])]
        for data, kinds in result["dice"].items()
        for kind, dice in kinds.items()
    ]
    return table(["development cases", "memory of", *ORGANS, "mean"], rows)


PRIOR_VARIANTS = {"3d": "equation 3", "no_3d": "no 3D", "not_refined": "outlines not refined"}


def prior_scores(result: dict[str, Any]) -> str:
    rows = []
    for data, variants in result["sets"].items():
        for variant, scores in variants.items():
            summary = scores["summary"]
            rows.append(
                [
                    data,
                    PRIOR_VARIANTS[variant],
                    *(number(summary[organ]["dice"]) for organ in ORGANS),
                    spread(summary["mean"]["dice"], Summary((scores,), 1).deviation()),
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


def demo_seeds(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{seed} (demo)" if int(seed) == result["demo_seed"] else seed,
            *(number(scores[organ]) for organ in ORGANS),
            number(sum(scores.values()) / len(scores)),
        ]
        for seed, scores in result["seeds"].items()
    ]
    rows.append(["**mean**", *[""] * len(ORGANS), number(result["mean"])])
    return table(["seed", *ORGANS, "mean Dice"], rows)


def mr_exponent(result: dict[str, Any]) -> str:
    exponents = sorted({exponent for run in result["runs"] for exponent in run["dice"]}, key=float)
    rows = []
    for run in result["runs"]:
        means = [run["dice"].get(exponent, {}).get("mean") for exponent in exponents]
        rows.append([run["title"], *("not run" if mean is None else number(mean) for mean in means)])
    return table(["mean Dice of", *(f"exponent {exponent}" for exponent in exponents)], rows)


def training_speed(result: dict[str, Any]) -> str:
    seconds = result["seconds"]
    rows = [[name, number(value, 2)] for name, value in seconds.items()]
    rows += [
        ["ratio of an iteration to prior and decoder", number(result["ratio"], 2)],
        ["iterations", str(result["iterations"])],
        ["loss at first", number(result["loss_at_first"], 2)],
        ["loss at last", number(result["loss_at_last"], 2)],
        ["peak MB", number(result["peak_memory_mb"], 0)],
    ]
    return table([f"batch of {result['batch']} slices, {result['image_size']} px", "seconds"], rows)


SECTIONS = {
    "ideas": ("Ideas tried, priors trained for equal times", ideas_table),
    "segmenting_ideas": ("Ideas of segmenting, tried on priors as they are: none is kept", segmenting_table),
    "decoder_ideas": ("The peer that is a decoder on frozen features: what makes it good", decoders_table),
    "mr_exponent": ("How dark MR is shown: 11 CHAOS MR that no benchmark scores", mr_exponent),
    "backbone_quality": ("Compact backbone: how well it carries a mask (Dice)", backbone_quality),
    "bundled_prior": ("Bundled prior on the development cases (whole volumes)", prior_scores),
    "demo_seeds": ("Bundled prior on procedural abdomens that no training saw", demo_seeds),
    "speed_compact": ("Time and memory, compact backbone, 2 cores", speed),
    "speed_sam21_tiny": ("Time and memory, SAM2.1 tiny at 512 px, random weights, 2 cores", speed),
    "training_speed_compact": ("An iteration of training, compact backbone", training_speed),
    "training_speed_sam21_tiny": (
        "An iteration of training, SAM2.1 tiny at 512 px, random weights",
        training_speed,
    ),
}


def write_tables(folder: Path) -> Path:
    """Writes `TABLES.md` from the JSON files of a results folder."""
    parts = ["# Measured figures\n\nMade by `make tables` from the JSON files beside it.\n"]
    for part in ("development", "test"):
        parts += protocol_sections(part, folder)
    for name, (title, render) in SECTIONS.items():
        path = folder / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            note = f"\n{result['note']}\n" if result.get("note") else ""
            parts.append(f"## {title}\n\n`{result['command']}`\n{note}\n{render(result)}")
        else:
            parts.append(f"## {title}\n\nNot run.\n")
    target = folder / "TABLES.md"
    with atomic_path(target) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder (default: the benchmarks' own)")
    arguments = parser.parse_args()
    print(write_tables(arguments.results))
    from plots import write_plots

    for path in write_plots(arguments.results):
        print(path)


if __name__ == "__main__":
    main()
