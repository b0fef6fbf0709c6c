"""The ablations as tables: every row against the same draws with masks not smoothed and organs not kept to regions.

A row whose priors' decoder of outlines saw no slices beside is set against the base that saw none either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ablations import NO_SMOOTH, rows_for
from markdown_tables import NOT_RUN, number, span, spread, table
from protocols import PROTOCOLS
from rows import Summary

# Its rows are changes of DiffuSAM, and others' base.
NO_REACH = "no_reach"
Summaries = Mapping[tuple[str, str], Summary]


def groups(protocol: str) -> list[tuple[str, str]]:
    """Titles and methods of the ablations of a protocol."""
    # The first draw can show all of them.
    rows = rows_for(protocol, 1, trains=not protocol.startswith("C"))
    return [(row.title, row.method) for row in rows if row is not NO_SMOOTH]


def difference(row: Summary, base: Summary) -> tuple[float | None, int]:
    """How many Dice points a row is above the base, on the draws that both have; and how many those are."""
    draws = {unit["draw"] for unit in row.units} & {unit["draw"] for unit in base.units}
    means = [
        replace(each, units=tuple(unit for unit in each.units if unit["draw"] in draws)).mean()
        for each in (row, base)
    ]
    if means[0] is None or means[1] is None:
        return None, 0
    return 100 * (means[0] - means[1]), len(draws)


def base_of(found: Summaries, protocol: str, method: str) -> Summary | None:
    """What a row is one change of: of the bases the one whose priors saw slices as far away."""
    row = found.get((protocol, method))
    if row is None or method == NO_REACH:
        return found.get((protocol, NO_SMOOTH.method))
    bases = [
        found[protocol, method] for method in (NO_SMOOTH.method, NO_REACH) if (protocol, method) in found
    ]
    return next((base for base in bases if base.reach_mm == row.reach_mm), bases[0] if bases else None)


def ablation_table(found: Summaries, protocol: str) -> str:
    whole = found.get((protocol, NO_SMOOTH.method))
    rows = [
        ["DiffuSAM (2 steps, 1 sample, masks not smoothed, organs not kept to regions)", *_cells(whole, None)]
    ]
    for title, method in groups(protocol):
        rows.append([title, *_cells(found.get((protocol, method)), base_of(found, protocol, method))])
    heads = [
        "change",
        "draws",
        "mean ± SD",
        "points against the base",
        "NSD 3 mm",
        "Dice, z-cropped",
        "steps",
    ]
    return table(heads, rows)


def _cells(row: Summary | None, base: Summary | None) -> Sequence[str]:
    if row is None:
        return [NOT_RUN, "", "", "", "", ""]
    points, draws = difference(row, base) if base is not None else (None, 0)
    return [
        str(len(row.units)),
        spread(row.mean(), row.deviation()),
        "" if points is None else f"{points:+.1f} ({draws} draw{'s' * (draws != 1)})",
        number(row.mean("surface_dice")),
        number(row.mean("dice_z_cropped")),
        span(row.steps),
    ]


def ablation_sections(found: Summaries) -> list[str]:
    """A section for A, and for every other protocol of which some ablation was run."""
    sections = []
    for name in PROTOCOLS:
        if name == "A" or any((name, method) in found for _, method in groups(name)):
            text = f"## Ablations on protocol {name}, development cases\n\n{ablation_table(found, name)}"
            sections.append(text)
    return sections
