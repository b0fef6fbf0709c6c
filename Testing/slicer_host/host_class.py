"""Classes made from facts: every property, signal and method that the real class shows to Python, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal

from .facts import facts, split_signature
from .pythonqt import check_value

_PYTHON_TYPES = {"bool": bool, "int": int, "double": float, "QString": str}
_PROPERTY_TYPES = {"QString": str, "bool": bool, "int": int, "double": float}


def state(widget: QtCore.QObject) -> SimpleNamespace:
    """Where a host class keeps what is its own; a single attribute, so that others are seen to be strays."""
    return widget.__dict__.setdefault("_host", SimpleNamespace())


def host_property(
    kind: str, name: str, *, default: Any = None, get: Callable | None = None, put: Callable | None = None
) -> Any:
    """A property of a host class; without functions it is stored and starts as `default`.

    Args:
        kind: its C++ type; values of other types are refused.
        put: called with the object and the checked value.
    """

    def read(self: Any) -> Any:
        return get(self) if get else state(self).__dict__.setdefault(name, default)

    def write(self: Any, value: object) -> None:
        value = check_value(kind, type(self).__name__, name, value)
        if put:
            put(self, value)
        else:
            state(self).__dict__[name] = value

    def refuse(self: Any, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only.")

    return Property(_PROPERTY_TYPES.get(kind, "QVariant"), read, refuse if get and not put else write)


class _Stored:
    """A property known by name only. No Qt property: a written one of the same name could not replace it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.name not in state(instance).__dict__:
            owner_name = type(instance).__name__
            raise AttributeError(
                f"The test host does not know {owner_name}.{self.name} before it has been set."
            )
        return state(instance).__dict__[self.name]

    def __set__(self, instance: Any, value: object) -> None:
        state(instance).__dict__[self.name] = value


def _unmade(class_name: str, method: str, counts: set[int], properties: set[str]) -> Callable:
    target = re.sub(r"^set(.)", lambda m: m[1].lower(), method) if method.startswith("set") else ""

    def call(self: Any, *arguments: Any) -> None:
        if len(arguments) not in counts:
            raise TypeError(
                f"{class_name}.{method}() takes {sorted(counts)} arguments, not {len(arguments)}."
            )
        if target in properties:
            setattr(self, target, *arguments)
        elif method.startswith("set"):
            state(self).__dict__.setdefault("calls", []).append((method, arguments))
        else:
            raise NotImplementedError(
                f"The test host has the name {class_name}.{method}() only, not what it does."
            )

    call.__name__ = method
    return call


def from_facts(name: str, base: type) -> type:
    """A class with what the facts say of `name` itself, its base classes' names excepted.

    What it does by itself: properties keep what they are given, setters are remembered, everything else raises.
    """
    entry = facts().classes[name]
    members: dict[str, Any] = {"_host_signals": {}, "__module__": __name__}
    properties = set(entry["properties"])
    counts: dict[str, set[int]] = {}
    for signature in entry["methods"]:
        method, arguments = split_signature(signature)
        counts.setdefault(method, set()).add(len(arguments))
    for method, numbers in counts.items():
        members[method] = _unmade(name, method, numbers, properties)
    for member in properties:
        members[member] = _Stored(member)
    overloaded = [split_signature(s)[0] for s in entry["signals"]]
    for signature in entry["signals"]:
        signal, arguments = split_signature(signature)
        # PySide cannot overload a signal for C++ types that it does not know; each overload gets a name of its own.
        attribute = signal if overloaded.count(signal) == 1 else "_" + re.sub(r"\W+", "_", signature)
        members[attribute] = Signal(*[_PYTHON_TYPES.get(a, object) for a in arguments])
        members["_host_signals"][signature] = attribute
    return type(base)(name, (base,), members)


_made: dict[str, type] = {}


def register(cls: type) -> type:
    """Class decorator: this is what the host uses for the name."""
    _made[cls.__name__] = cls
    return cls


def host_class(name: str) -> type | None:
    """The host's class of that name, made from facts if it has not been written; None for an unknown name."""
    if name not in _made and name in facts().classes:
        entry = facts().classes[name]
        base = (
            host_class(entry["base"])
            or getattr(QtWidgets, entry["base"], None)
            or getattr(QtCore, entry["base"])
        )
        _made[name] = from_facts(name, base)
    return _made.get(name)


def written_classes() -> list[type]:
    return [c for c in _made.values() if c.__module__ != __name__]


def is_host_property(cls: type, name: str) -> bool:
    return any(isinstance(c.__dict__.get(name), Property | _Stored) for c in cls.__mro__)
