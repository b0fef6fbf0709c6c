"""Plain JSON values from what the program holds: paths, numpy numbers, dataclasses, infinities."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_json_value(value: Any) -> Any:
    """Turn a value into what strict JSON can hold; nan and infinities become null.

    Raises:
        TypeError: There is no JSON form for the value.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    # Of numpy, which must not be needed to read the header of a prior.
    if hasattr(value, "tolist"):
        return to_json_value(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json_value(item) for item in value]
    raise TypeError(f"no JSON form for a value of type {type(value).__name__}")
