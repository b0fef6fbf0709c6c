"""Which organs labelled cases teach: those asked for or all, each in one spelling, in the order of their numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

from .errors import InputError
from .labelled_files import LabelledFiles
from .organ_names import organ_key

# A label map has no more values than this, and so a prior no more organs.
MOST_ORGANS = 255


def unified(cases: Sequence[LabelledFiles]) -> list[LabelledFiles]:
    """The cases with one spelling for each organ: letter case, underscores and spaces make no other organ."""
    spelling: dict[str, str] = {}
    result = []
    for case in cases:
        names = {
            value: spelling.setdefault(organ_key(name), name) for value, name in case.label_names.items()
        }
        result.append(dataclasses.replace(case, label_names=names))
    return result


def organs_of(cases: Sequence[LabelledFiles], organs: Sequence[str] | None) -> tuple[str, ...]:
    """What is to be learnt: the organs asked for, or all that have a name.

    Those asked for keep their order; all have that of their label values, so that a prior gives them the numbers
    that they have in the cases, or, where the cases disagree on it, that of their first naming.

    Raises:
        InputError: An organ has no label in any case, or there is none, or there are more than a prior can have.
    """
    named = _in_order(cases)
    known = {organ_key(name): name for name in named}
    chosen = tuple(dict.fromkeys(known.get(organ_key(organ), organ) for organ in organs or named))
    missing = [organ for organ in chosen if organ not in named]
    if missing or not chosen:
        there = f" They name {', '.join(named)}." if named else ""
        raise InputError(
            f"No case has labels for: {', '.join(missing) or 'anything'}.{there}",
            hint="Check the label names.",
        )
    if len(chosen) > MOST_ORGANS:
        raise InputError(
            f"The cases name {len(chosen)} organs, and a prior can have at most {MOST_ORGANS}.",
            hint="Choose those to learn with --organs.",
        )
    return chosen


def _in_order(cases: Sequence[LabelledFiles]) -> list[str]:
    """The names of all organs, each once, as `organs_of` orders them."""
    # By name the lowest of its values, which comes last here.
    tables = [
        {name: value for value, name in sorted(case.label_names.items(), reverse=True)} for case in cases
    ]
    named = list(dict.fromkeys(name for case in cases for name in case.label_names.values()))
    # A case without some of the organs may give lower values to the others.
    ordered = sorted(named, key=lambda name: max(table[name] for table in tables if name in table))
    agreed = all(
        table[name] < table[following]
        for table in tables
        for name, following in pairwise([name for name in ordered if name in table])
    )
    return ordered if agreed else named
