"""Tables as Markdown text."""

from __future__ import annotations

from collections.abc import Collection

NOT_RUN = "not run"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def spread(mean: float | None, deviation: float | None) -> str:
    """A mean and its standard deviation, where there is one."""
    return number(mean) if deviation is None else f"{number(mean)} ± {number(deviation)}"


def span(counts: Collection[int]) -> str:
    """The least and the most."""
    return "–".join(str(count) for count in sorted({min(counts), max(counts)})) if counts else "–"
