"""Frozen configuration dataclasses from JSON, with every mistake told by its place."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import InputError

T = TypeVar("T")
_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def from_json(kind: type[T], values: Any, *, source: str, place: str = "") -> T:
    """A dataclass from a JSON object; fields left out have their defaults.

    Args:
        kind: A dataclass of numbers, texts, choices, tuples, optional values and other such dataclasses.
        values: What was read.
        source: What messages call the file.
        place: Where in the file the object stands, for messages.

    Raises:
        InputError: There is an unknown field, or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise InputError(f"{source}: {place or 'the content'} is not a JSON object.")
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    fields = {}
    for key, value in values.items():
        where = f"{place}.{key}" if place else key
        if key not in names:
            raise InputError(
                f'{source}: there is no setting "{where}".', hint=f"Choose one of {', '.join(names)}."
            )
        fields[key] = _value(hints[key], value, source, where)
    return kind(**fields)


def settings_of(texts: Iterable[str]) -> dict[str, Any]:
    """Settings by their places, as the option `--set` gives them.

    Args:
        texts: Such as "training.batch=4"; what is no JSON value is a text.

    Raises:
        InputError: There is no equals sign.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        if not equals:
            raise InputError(f'"{text}" sets nothing.', hint="Write --set training.batch=4.")
        try:
            settings[place.strip()] = json.loads(value)
        except ValueError:
            settings[place.strip()] = value
    return settings


def with_settings(content: dict[str, Any], settings: Mapping[str, Any], *, hint: str) -> dict[str, Any]:
    """A copy of plain JSON values with some of them changed.

    Args:
        content: Of a configuration.
        settings: Values by their places, such as "training.batch".
        hint: Where to look up which places there are.

    Raises:
        InputError: There is no such setting.
    """
    changed: dict[str, Any] = json.loads(json.dumps(content))
    for place, value in settings.items():
        *sections, name = place.split(".")
        inner: Any = changed
        for section in sections:
            inner = inner.get(section) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or name not in inner or name == "schema_version":
            raise InputError(f'There is no setting "{place}".', hint=hint)
        inner[name] = value
    return changed


def _value(hint: Any, value: Any, source: str, place: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, source=source, place=place)  # type: ignore[arg-type]
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        (hint,) = (part for part in parts if part is not type(None))
        return _value(hint, value, source, place)
    if origin is Literal:
        if value not in parts:
            raise InputError(f'{source}: "{place}" must be one of {", ".join(map(str, parts))}.')
        return value
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(parts):
            raise InputError(f'{source}: "{place}" must be a list of {len(parts)} values.')
        return tuple(_value(part, item, source, place) for part, item in zip(parts, value, strict=True))
    # A bool is an int to Python, and a whole number is a fraction to people.
    fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not fits or (hint is float and not math.isfinite(value)):
        raise InputError(f'{source}: "{place}" must be {_NAMES[hint]}.')
    return value
