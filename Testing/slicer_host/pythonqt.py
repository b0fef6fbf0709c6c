"""Gives PySide6 the manners of PythonQt, through which Slicer's Python sees Qt.

Properties are attributes, `connect` takes C++ signatures, `name` is the object name. Where PythonQt prints a message
and goes on, this raises.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtWidgets

from . import dialogs

_MODULES = (QtCore, QtGui, QtWidgets, QtNetwork)
# Qt itself calls these as virtual functions; a property in their place would call itself for ever.
_VIRTUAL_GETTERS = {"sizeHint", "minimumSizeHint", "duration"}
# Slicer's releases use Qt 5.15, so signals that Qt 6 added do not exist for their users.
_NEWER_THAN_QT5 = {
    ("QAction", "checkableChanged"),
    ("QAction", "enabledChanged"),
    ("QAction", "visibleChanged"),
    ("QCheckBox", "checkStateChanged"),
}
OWN_ATTRIBUTES = {"connect", "disconnect", "_connections", "_host", "_host_children", "__METAOBJECT__"}


def check_value(kind: str, owner: str, name: str, value: object) -> object:
    """The value, if a property of this Qt type takes it without a silent conversion.

    Raises:
        TypeError: Slicer would convert or refuse it; say which property of which class.
    """
    accepted: dict[str, tuple[type, ...]] = {
        "QString": (str,),
        "bool": (bool, int),
        "int": (int,),
        "double": (int, float),
        "QStringList": (list, tuple),
    }
    fits = isinstance(value, accepted.get(kind, (object,)))
    if kind in ("bool", "int", "double") and not fits and hasattr(value, "item"):
        value = value.item()  # numpy scalars; PythonQt takes them too
        fits = isinstance(value, accepted[kind])
    if not fits or isinstance(value, PurePath):
        message = f"{owner}.{name} is a {kind}; it cannot be set to {value!r} ({type(value).__name__})."
        raise TypeError(message)
    return value


class QtProperty:
    """A Q_PROPERTY of a Qt class as an attribute."""

    def __init__(self, owner: type, meta: QtCore.QMetaProperty, original: object) -> None:
        self.owner, self.name, self.kind = owner.__name__, meta.name(), meta.typeName()
        self.writable = meta.isWritable()
        self.original = original

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            # Static functions of the same name (QTimer.singleShot), and Python code that looks at classes.
            return self.original if self.original is not None else self
        value = instance.property(self.name)
        if value is None and callable(self.original):
            value = self.original.__get__(instance)()
        return tuple(value) if isinstance(value, list) else value

    def __set__(self, instance: Any, value: object) -> None:
        if not self.writable:
            raise AttributeError(f"{self.owner}.{self.name} is read-only.")
        if not instance.setProperty(self.name, check_value(self.kind, self.owner, self.name, value)):
            raise AttributeError(f"{self.owner}.{self.name} ({self.kind}) refuses {value!r}.")


class _ObjectName:
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else instance.property("objectName")

    def __set__(self, instance: Any, value: object) -> None:
        instance.setObjectName(check_value("QString", type(instance).__name__, "name", value))


def _class_name(self: QtCore.QObject) -> str:
    return self.metaObject().className()


def _delete(self: QtCore.QObject) -> None:
    shiboken6.delete(self)


def _arguments_taken(function: Callable) -> int | None:
    """How many of a signal's arguments PythonQt hands to this callable; None: all."""
    bound = isinstance(function, types.MethodType)
    code = getattr(function.__func__ if bound else function, "__code__", None)
    if (
        not isinstance(function, types.FunctionType | types.MethodType)
        or code is None
        or code.co_flags & 0x04
    ):
        return None
    return code.co_argcount - bound


def _trampoline(function: Callable) -> Callable:
    taken = _arguments_taken(function)

    def call(*arguments: object) -> object:
        return function(*arguments[:taken])

    return call


def host_signal(instance: QtCore.QObject, signature: str) -> Any:
    """The Python signal of a host class for a C++ signature, or None."""
    for cls in type(instance).__mro__:
        if name := cls.__dict__.get("_host_signals", {}).get(signature):
            return getattr(instance, name)
    return None


def _checked_signature(sender: QtCore.QObject, signal: str) -> str:
    signature = QtCore.QMetaObject.normalizedSignature(signal)
    signature = bytes(signature).decode() if not isinstance(signature, str) else signature
    owner = type(sender).__name__
    if host_signal(sender, signature) is None and sender.metaObject().indexOfSignal(signature) < 0:
        raise ValueError(f"{owner} has no signal {signal!r}.")
    name = signature.partition("(")[0]
    if any((cls.__name__, name) in _NEWER_THAN_QT5 for cls in type(sender).__mro__):
        raise ValueError(f"{owner}.{name} is newer than the Qt 5.15 of Slicer's releases.")
    return signature


def connect(sender: QtCore.QObject, signal: str, receiver: Any, slot: str | None = None) -> bool:
    """PythonQt's `sender.connect("clicked(bool)", f)`, but an unknown signal raises.

    Raises:
        ValueError: the sender has no such signal.
        TypeError: what should be called cannot be.
    """
    function = getattr(receiver, slot.partition("(")[0]) if slot else receiver
    if not callable(function):
        raise TypeError(f"{type(sender).__name__}.connect({signal!r}, ...): {function!r} is not callable.")
    signature = _checked_signature(sender, signal)
    call = _trampoline(function)
    own = host_signal(sender, signature)
    made = (
        own.connect(call)
        if own is not None
        else QtCore.QObject.connect(sender, QtCore.SIGNAL(signature), call)
    )
    sender.__dict__.setdefault("_connections", []).append((signature, function, call))
    return bool(made)


def disconnect(sender: QtCore.QObject, signal: str, function: Callable | None = None) -> bool:
    """Undoes `connect`; without a function, all that was connected to the signal. True if there was something."""
    signature = _checked_signature(sender, signal)
    connections = sender.__dict__.get("_connections", [])
    gone = [c for c in connections if c[0] == signature and (function is None or c[1] == function)]
    for connection in gone:
        connections.remove(connection)
        own = host_signal(sender, signature)
        if own is not None:
            own.disconnect(connection[2])
        else:
            QtCore.QObject.disconnect(sender, QtCore.SIGNAL(signature), connection[2])
    return bool(gone)


class _Bound:
    """A bound method that does not keep its object alive."""

    def __init__(self, function: Callable, instance: QtCore.QObject) -> None:
        self.function, self.instance = function, weakref.ref(instance)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(self.instance(), *arguments)


def adopt(instance: Any) -> Any:
    """Gives an object that Qt itself made what objects made from Python have."""
    if isinstance(instance, QtCore.QObject) and "connect" not in instance.__dict__:
        # PySide looks for connect in the instance first and else takes its own, whatever the class has.
        instance.__dict__.update(connect=_Bound(connect, instance), disconnect=_Bound(disconnect, instance))
    return instance


def _call_class(cls: type, *arguments: Any, **options: Any) -> Any:
    if not issubclass(cls, QtCore.QObject):
        return type.__call__(cls, *arguments, **options)
    if options and cls.__module__.startswith("PySide6."):
        raise TypeError(f"{cls.__name__}(): PythonQt's constructors take no keyword arguments.")
    instance = cls.__new__(cls, *arguments, **options)
    adopt(instance).__init__(*arguments, **options)
    return instance


def _adopting(original: Callable) -> Callable:
    def find(self: QtCore.QObject, *arguments: Any) -> Any:
        found = original(self, *arguments)
        if isinstance(found, list):
            return [adopt(f) for f in found]
        return adopt(found)

    return find


def qt_classes() -> Iterator[type]:
    for module in _MODULES:
        for name in dir(module):  # PySide makes its classes when they are first asked for
            if name.startswith("Q") and isinstance(value := getattr(module, name), type):
                yield value


# Of each Qt class, what it adds to its base class.
_properties: dict[str, frozenset[str]] = {}
_signals: dict[str, frozenset[str]] = {}


def _of_qt(table: dict[str, frozenset[str]], cls: type) -> frozenset[str]:
    return frozenset().union(
        *[table.get(c.__name__, frozenset()) for c in cls.__mro__ if c.__module__.startswith("PySide6.")]
    )


def qt_properties(cls: type) -> frozenset[str]:
    """Names of the properties that a class has from Qt."""
    return _of_qt(_properties, cls)


def qt_signals(cls: type | None = None) -> frozenset[str]:
    """Signatures of the signals that a class, or any class, has from Qt."""
    return _of_qt(_signals, cls) if cls else frozenset().union(*_signals.values())


def install() -> types.ModuleType:
    """Changes PySide6's classes, once, and returns the module `qt`."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    for cls in {c: None for c in qt_classes() if issubclass(c, QtCore.QObject)}:
        meta = cls.staticMetaObject
        entries = [meta.property(i) for i in range(meta.propertyOffset(), meta.propertyCount())]
        _properties[cls.__name__] = frozenset(entry.name() for entry in entries)
        methods = [meta.method(i) for i in range(meta.methodOffset(), meta.methodCount())]
        signals = [m for m in methods if m.methodType() == QtCore.QMetaMethod.MethodType.Signal]
        _signals[cls.__name__] = frozenset(bytes(m.methodSignature().data()).decode() for m in signals)
        for entry in entries:
            if entry.name() not in _VIRTUAL_GETTERS:
                setattr(cls, entry.name(), QtProperty(cls, entry, getattr(cls, entry.name(), None)))
    QtCore.QObject.name = _ObjectName()
    QtCore.QObject.className = _class_name
    QtCore.QObject.delete = _delete
    for finder in ("findChild", "findChildren", "children", "parent", "sender"):
        setattr(QtCore.QObject, finder, _adopting(getattr(QtCore.QObject, finder)))
    type(QtCore.QObject).__call__ = _call_class

    qt = types.ModuleType("qt", "Qt as PythonQt shows it: one flat module.")
    qt.Qt = QtCore.Qt
    for cls in qt_classes():
        setattr(qt, cls.__name__, cls)
    for cls in (QtCore.QEventLoop, QtCore.QThread, QtCore.QCoreApplication):
        cls.exec_ = cls.exec
    dialogs.install()
    sys.modules["qt"] = qt
    return qt


def stray_attributes(root: QtCore.QObject) -> list[str]:
    """Attributes that someone set on C++ widgets below `root` and that PythonQt would have refused."""
    found = []
    for instance in [root, *root.findChildren(QtCore.QObject)]:
        if not type(instance).__module__.startswith(("PySide6.", "slicer_host.")):
            continue  # a Python class of the module's own may have what it likes
        if type(instance).__name__.startswith("_"):
            continue  # a helper of the host
        for key, value in instance.__dict__.items():
            if key not in OWN_ATTRIBUTES and not isinstance(value, QtCore.SignalInstance):
                found.append(f"{type(instance).__name__} {instance.name!r}.{key}")
    return found
