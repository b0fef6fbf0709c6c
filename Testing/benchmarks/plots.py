"""Plots of the results, from the JSON files alone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from ablation_tables import base_of, difference, groups
from matplotlib.figure import Figure
from PIL import Image
from protocols import PROTOCOLS
from rows import METHODS, Summary, summaries

from DiffuSAMLib.files import atomic_path

Summaries = Mapping[tuple[str, str], Summary]
COLOURS = 32
OWN, OTHER = "#1b6ca8", "#9aa5b1"
# The row that ablations change.
ITSELF = "no_smooth"


def write_plots(folder: Path) -> list[Path]:
    """Draws what was measured on development cases; what was not has no plot.

    Returns:
        The PNG files.
    """
    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    found = summaries("development", folder)
    figures: dict[str, Figure | None] = {}
    for name in PROTOCOLS:
        figures[f"methods_{name}"] = methods_plot(found, name)
        figures[f"organs_{name}"] = organs_plot(found, name)
        figures[f"ablations_{name}"] = ablations_plot(found, name)
    figures["steps"] = curve_plot(
        found, "sampling steps", {"1": "steps_1", "2": ITSELF, "5": "steps_5", "50": "steps_50"}
    )
    figures["samples"] = curve_plot(
        found, "samples averaged", {"1": ITSELF, "4": "samples_4", "8": "samples_8"}
    )
    figures["volumes"] = curve_plot(
        found,
        "training volumes",
        {"1": "volumes_1", "3": ITSELF, "5": "volumes_5", "10": "volumes_10"},
    )
    written = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=150)
        with Image.open(drawn) as picture, atomic_path(path) as temporary:
            # A third of the size. No version or date in it: the same results give the same file.
            picture.convert("RGB").quantize(COLOURS).save(temporary, format="PNG", optimize=True)
        written.append(path)
    return written


def methods_plot(found: Summaries, protocol: str) -> Figure | None:
    """Mean Dice of each method, a dot for each draw, and the target."""
    rows = [
        (title.strip("*"), method, found[protocol, method])
        for method, (title, protocols) in METHODS.items()
        if protocol in protocols and (protocol, method) in found
    ]
    if not rows:
        return None
    figure = Figure(figsize=(9, 0.9 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for at, (_, method, summary) in enumerate(rows):
        axes.barh(at, summary.mean() or 0, color=OWN if method.startswith("diffusam") else OTHER, height=0.6)
        axes.plot(values := summary.of_draws("dice"), [at] * len(values), "k.", markersize=4)
    target = PROTOCOLS[protocol].measure
    if target:
        axes.axvline(target, color="black", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(rows)), [title for title, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("mean 3D Dice; dots: draws; dotted: target")
    axes.set_title(f"{protocol}: {PROTOCOLS[protocol].title}, development cases")
    return figure


def organs_plot(found: Summaries, protocol: str) -> Figure | None:
    """Dice of every case and organ, DiffuSAM with and without 3D."""
    rows = [
        (title, found[protocol, method])
        for method, title in (("diffusam", "DiffuSAM"), ("no_3d", "no 3D"))
        if (protocol, method) in found
    ]
    if not rows:
        return None
    organs = rows[0][1].organs
    figure = Figure(figsize=(1.2 + 1.2 * len(organs), 3), layout="constrained")
    axes = figure.subplots()
    for number, (title, summary) in enumerate(rows):
        values = [[v for draw in summary.of_cases(organ=o).values() for v in draw] for o in organs]
        places = [at + 0.3 * number for at in range(len(organs))]
        boxes = axes.boxplot(
            values, positions=places, widths=0.22, patch_artist=True, medianprops={"color": "black"}
        )
        for box in boxes["boxes"]:
            box.set_facecolor(OTHER if number else OWN)
        axes.plot([], [], "s", color=OTHER if number else OWN, label=title)
    axes.set_xticks([at + 0.15 * (len(rows) - 1) for at in range(len(organs))], organs)
    axes.set_ylim(0, 1)
    axes.set_ylabel("3D Dice, one value a case and draw")
    axes.set_title(f"{protocol}: {PROTOCOLS[protocol].title}")
    axes.legend(loc="lower left", frameon=False)
    return figure


def ablations_plot(found: Summaries, protocol: str) -> Figure | None:
    """Points that each change gains or loses against DiffuSAM."""
    rows = []
    for title, method in groups(protocol):
        row, base = found.get((protocol, method)), base_of(found, protocol, method)
        if row is not None and base is not None and (points := difference(row, base)[0]) is not None:
            rows.append((title, points))
    if not rows:
        return None
    figure = Figure(figsize=(8, 0.9 + 0.22 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(rows)), [points for _, points in rows], color=OTHER, height=0.6)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [title for title, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("points of mean 3D Dice, masks not smoothed, same draws")
    axes.set_title(f"{protocol}: one change at a time, development cases")
    return figure


def curve_plot(found: Summaries, label: str, methods: Mapping[str, str]) -> Figure | None:
    """Mean Dice along a setting, one line a protocol, where at least two values were measured on the same draws."""
    lines = {}
    for protocol in PROTOCOLS:
        points = [(x, found[protocol, m]) for x, m in methods.items() if (protocol, m) in found]
        others = [methods[x] for x, _ in points if methods[x] != ITSELF]
        own = base_of(found, protocol, others[0]) if others else None
        points = [(x, own if methods[x] == ITSELF and own else summary) for x, summary in points]
        drawn = [{unit["draw"] for unit in summary.units} for _, summary in points]
        # Draws differ more than settings do: a line joins what was measured on the same ones.
        common = set.intersection(*drawn) if drawn else set()
        if len(points) > 1 and common:
            lines[protocol] = [(x, summary.only(common)) for x, summary in points]
    if not lines:
        return None
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    order = list(methods)
    for protocol, points in lines.items():
        axes.errorbar(
            [order.index(x) for x, _ in points],
            [summary.mean() or 0 for _, summary in points],
            yerr=[summary.deviation() or 0 for _, summary in points],
            marker="o",
            capsize=2,
            label=protocol,
        )
    axes.set_xticks(range(len(order)), order)
    axes.set_xlabel(label)
    axes.set_ylabel("mean 3D Dice, development cases")
    axes.legend(frameon=False)
    return figure
