"""Frozen configuration dataclasses from JSON, with every mistake told by its place."""

from __future__ import annotations

import dataclasses
import math
import types
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
                f'{source}: there is no setting "{where}".', hint=f"Choose of {', '.join(names)}."
            )
        fields[key] = _value(hints[key], value, source, where)
    return kind(**fields)


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
            raise InputError(f'{source}: "{place}" is one of {", ".join(map(str, parts))}.')
        return value
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(parts):
            raise InputError(f'{source}: "{place}" is a list of {len(parts)} values.')
        return tuple(_value(part, item, source, place) for part, item in zip(parts, value, strict=True))
    # A bool is an int to Python, and a whole number is a fraction to people.
    fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not fits or (hint is float and not math.isfinite(value)):
        raise InputError(f'{source}: "{place}" is {_NAMES[hint]}.')
    return value
