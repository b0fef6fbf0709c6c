"""Which organ each label value is: as the user says, as a JSON file says, or as the label map itself says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import InputError
from .labelmaps import read_label_names
from .organ_names import listed, organ_key
from .utf8_names import as_utf8

_EXAMPLE = "Write 1=spleen,2=right kidney,..."


def parse_label_names(text: str) -> dict[int, str]:
    """The label table of "1=spleen,2=right kidney". Underscores in names are spaces; the background is left out.

    Raises:
        InputError: It is not such a list.
    """
    names: dict[int, str] = {}
    for part in listed(text) or [text]:
        value, equals, name = part.partition("=")
        if not equals or not value.strip().isdecimal() or int(value) > 255 or not name.strip():
            raise InputError(f'"{part}" is not a label name.', hint=_EXAMPLE)
        if int(value) in names:
            raise InputError(f"Label {int(value)} has two names: {names[int(value)]} and {name.strip()}.")
        names[int(value)] = as_utf8(name.replace("_", " ").strip())
    names.pop(0, None)
    if not names:
        raise InputError("The label names name the background alone.", hint=_EXAMPLE)
    return names


def label_names_from(text: str) -> dict[int, str]:
    """The label table of an option: "1=spleen,..." or a JSON file.

    Raises:
        InputError: It is neither.
    """
    if text.lower().endswith(".json"):
        return read_label_table(Path(text))
    return parse_label_names(text)


def read_label_table(path: Path) -> dict[int, str]:
    """The label table of a JSON file.

    It holds `{"1": "spleen"}` or `{"spleen": 1}`, by itself or as "labels" beside other things, as in a data set's
    `dataset.json`. Underscores in names are spaces; the background is left out.

    Raises:
        InputError: The file cannot be read, or holds no such table.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON.", hint="Check the file.") from error
    table = content.get("labels", content) if isinstance(content, dict) else None
    return label_table(table, source=str(path))


def label_table(table: Any, *, source: str) -> dict[int, str]:
    """The organ of each value of a JSON object, written either way round.

    Raises:
        InputError: It is no such object, names nothing, or gives two names to a value.
    """
    wrong = InputError(
        f'{source} has no "labels" table of names and values.', hint='Write it as {"spleen": 1, ...}.'
    )
    if not isinstance(table, dict):
        raise wrong
    names: dict[int, str] = {}
    for key, entry in table.items():
        value, name = (int(key), entry) if key.isdecimal() and isinstance(entry, str) else (entry, key)
        if type(value) is not int or not 0 <= value <= 255 or not name.strip():
            raise wrong
        if value in names:
            raise InputError(f"{source} gives label {value} two names: {names[value]} and {name}.")
        names[value] = as_utf8(name.replace("_", " ").strip())
    names.pop(0, None)
    if not names:
        raise wrong
    return names


def names_in_file(path: Path) -> dict[int, str]:
    """The names that a label map itself gives to its labels, used or not: those of the segments of a `.seg.nrrd`.

    Raises:
        InputError: The file cannot be read, or names nothing.
    """
    names = read_label_names(path)
    if not names:
        raise InputError(
            f"{path} does not say what its labels are.",
            hint="Give --label-names 1=spleen,2=..., or a .seg.nrrd of 3D Slicer, whose segments have names.",
        )
    return names


def contradiction(labels: Path, given: Mapping[int, str], own: Mapping[int, str]) -> InputError | None:
    """What is wrong where a label map calls a label by the name that the given table has for another one.

    Args:
        labels: The label map's file.
        given: The table.
        own: The names that the file itself gives.
    """
    for value, name in own.items():
        elsewhere = [other for other, text in given.items() if organ_key(text) == organ_key(name)]
        if elsewhere and value not in elsewhere:
            return InputError(
                f"{labels.name} has names of its own, and it calls label {value} {name}, "
                f"which is label {elsewhere[0]} in the table given.",
                hint="Leave the label names out to take those of the files.",
            )
    return None
