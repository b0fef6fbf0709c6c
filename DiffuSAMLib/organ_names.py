"""Which names mean the same organ, and which organs of a prior are asked for."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from .composed_names import composed
from .errors import InputError


def organ_key(name: str) -> str:
    """The same for all spellings of a name: letter case, underscores and spaces make no other organ.

    Nor does it matter whether an accent is stored with its letter or, as macOS does in names of files, after it.
    """
    return " ".join(composed(name).replace("_", " ").casefold().split())


def listed(text: str) -> list[str]:
    """The parts of a text with commas between; one that has a comma of its own stands in double quotes."""
    return [part.strip() for part in next(csv.reader([text], skipinitialspace=True), [])]


def chosen_organs(known: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Those of a prior's organs that are asked for, in its order and spelling.

    Args:
        known: The prior's organs.
        wanted: In any spelling; None asks for all.

    Raises:
        InputError: A name is none of them, or there is none.
    """
    if wanted is None:
        return list(known)
    if not wanted:
        raise InputError("No organ is asked for.", hint=f"This prior knows: {', '.join(known)}.")
    keys = {organ_key(name) for name in wanted}
    organs = {organ_key(name): name for name in known}
    unknown = [name for name in wanted if organ_key(name) not in organs]
    if unknown:
        raise InputError(
            f"This prior does not know {', '.join(unknown)}.", hint=f"It knows: {', '.join(known)}."
        )
    return [name for key, name in organs.items() if key in keys]
