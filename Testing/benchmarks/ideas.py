"""Ideas that were tried, kept or not: tables of the logs in results, made of runs whose code or weights are gone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from markdown_tables import number, table


def ideas_table(content: Mapping[str, Any]) -> str:
    """Mean Dice without and with each idea, over the draws that were measured both ways, and what was decided.

    Args:
        content: Of results/ideas.json.
    """
    rows = []
    for idea in content["ideas"]:
        without, having = (statistics.mean(pair[at] for pair in idea["dice"].values()) for at in (0, 1))
        rows.append(
            [
                idea["title"],
                idea["protocol"],
                str(len(idea["dice"])),
                ", ".join(f"{value:g}" for value in idea["minutes"]),
                number(without),
                number(having),
                f"{100 * (having - without):+.1f}",
                "kept" if idea["kept"] else "taken out",
            ]
        )
    heads = ["idea", "protocol", "draws", "minutes", "Dice without", "Dice with", "points", "decision"]
    return table(heads, rows)


# What the names in results/segmenting_ideas.json stand for. None is kept.
SEGMENTING_IDEAS = {
    "smooth": "presence smoothed over neighbouring slices",
    "places": "slices seen at three places and sizes, averaged (three times the time)",
    "contrasts": "slices seen with three contrasts, averaged (three times the time)",
    "second_pass": "a second pass that attends to both neighbours of the first",
    "second_pass_after_no_3d": "the same, after a first pass without 3D",
    "outlines_remembered": "what is remembered of a slice is averaged with the condition's outlines",
    "outlines_ahead": "the condition's outlines of the slice ahead are attended to as well",
    "outlines_averaged": "the result is averaged with the condition's outlines",
}


def segmenting_table(content: Mapping[str, Any]) -> str:
    """Mean Dice of segmenting as it is, and the points that each idea brings there.

    Args:
        content: Of results/segmenting_ideas.json.
    """
    runs = content["runs"]
    rows = [["as it is", *(number(_mean_dice(run["ideas"]["base"])) for run in runs)]]
    for name, title in SEGMENTING_IDEAS.items():
        cells = []
        for run in runs:
            cases = run["ideas"].get(name)
            points = 100 * (_mean_dice(cases) - _mean_dice(run["ideas"]["base"])) if cases else None
            cells.append("not run" if points is None else f"{points:+.1f}")
        rows.append([title, *cells])
    return table(["idea", *(f"{run['protocol']} ({run['prior']})" for run in runs)], rows)


def _mean_dice(cases: Mapping[str, Mapping[str, float]]) -> float:
    return statistics.mean(value for organs in cases.values() for value in organs.values())


# What the names in results/decoder_ideas.json stand for.
DECODERS = {
    "frozen_decoder": "the peer: 96 channels, organs compete for pixels, a Dice for each",
    "narrow": "24 to 96 channels",
    "narrow+procedural": "24 to 96 channels, 48 procedural abdomens besides",
    "narrow+procedural MR": "24 to 96 channels, 48 procedural MR besides",
    "narrow+each": "24 to 96 channels, every organ by itself, one Dice for all: the loss on a prior's outlines",
    "each+procedural": "96 channels, every organ by itself, one Dice for all, 48 procedural abdomens besides",
}


def decoders_table(content: Mapping[str, Any]) -> str:
    """Decoders on frozen features by how they were trained, and what masks of the best are worth as memories.

    Args:
        content: Of results/decoder_ideas.json.
    """
    places = ("A", "B", "B, exponent 1.5")
    rows = [
        [DECODERS[run["variant"]], f"{run['minutes']:g}", *(number(run[place]["dice"]) for place in places)]
        for run in content["decoders"]
    ]
    memories = content["masks_as_memories"]
    titles = list(memories["A"])
    chained = table(
        [f"mean Dice, {memories['decoder']}", *titles],
        [[place, *(number(memories[place][title]) for title in titles)] for place in ("A", "B")],
    )
    return table(["decoder on frozen features", "minutes", *places], rows) + "\n" + chained
