"""slicer.parameterNodeWrapper: typed attributes over a vtkMRMLScriptedModuleNode, bound to widgets both ways."""

from __future__ import annotations

import typing
import weakref
from collections.abc import Callable
from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets

from . import gui_connectors
from .parameter_types import (
    Choice,
    Codec,
    Decimals,
    Default,
    Exclude,
    IsInstance,
    Maximum,
    Minimum,
    NotNone,
    SingleStep,
    Validator,
    WithinRange,
    codec_for,
)

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "IsInstance",
    "Maximum",
    "Minimum",
    "NotNone",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
]

SlicerParameterNamePropertyName = "SlicerParameterName"


class _Parameter:
    """A parameter of one node, with its value remembered until the node changes."""

    def __init__(self, codec: Codec, default: Any, node: Any, name: str) -> None:
        self.codec, self.default, self.node, self.name = codec, default, node, name
        if not codec.is_in(node, name):
            codec.write(node, name, default)
        self._writing = False
        self._value = self._read_node()
        me = weakref.ref(self)  # the observer must not keep the wrapper alive

        def modified(caller: Any, event: str) -> None:
            if (parameter := me()) is not None and not parameter._writing:
                parameter._value = parameter._read_node()

        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, modified)

    def __del__(self) -> None:
        self.node.RemoveObserver(self._tag)

    def _read_node(self) -> Any:
        # A scene that is closed empties a singleton node; its parameters then start again at their defaults.
        if not self.codec.is_in(self.node, self.name):
            self.codec.write(self.node, self.name, self.default)
        return self.codec.read(self.node, self.name)

    def read(self) -> Any:
        return self._value

    def write(self, value: Any) -> None:
        self._writing = True
        try:
            with slicer.util.NodeModify(self.node):
                self.codec.write(self.node, self.name, value)
                self._value = self.codec.read(self.node, self.name)
        finally:
            self._writing = False


class _Wrapper:
    """What every class made by `parameterNodeWrapper` has."""

    allParameters: typing.ClassVar[dict[str, tuple[Any, Codec, Callable[[], Any]]]]

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        if parameterNode is None:
            raise ValueError("A parameter node wrapper needs a node.")
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple[dict[str, gui_connectors.Connector], int]] = {}
        self._next_tag = 0
        self._updating = False
        for name, (_, codec, default) in self.allParameters.items():
            setattr(
                self, f"_{name}_impl", _Parameter(codec, default(), parameterNode, f"{prefix or ''}{name}")
            )

    def __setattr__(self, name: str, value: Any) -> None:
        # Slicer would take a misspelt parameter for a new attribute, and lose it.
        if not name.startswith("_") and name != "parameterNode" and name not in self.allParameters:
            raise AttributeError(f"{type(self).__name__} has no parameter {name!r}.")
        super().__setattr__(name, value)

    def _check(self, name: str) -> None:
        if name not in self.allParameters:
            raise ValueError(
                f"{type(self).__name__} has no parameter {name!r}, only {list(self.allParameters)}."
            )

    def default(self, name: str) -> Default:
        self._check(name)
        return Default(generator=self.allParameters[name][2])

    def isCached(self, name: str) -> bool:
        self._check(name)
        return True

    @classmethod
    def dataType(cls, name: str) -> Any:
        return cls.allParameters[name][0]

    def getValue(self, name: str) -> Any:
        self._check(name)
        return getattr(self, f"_{name}_impl").read()

    def setValue(self, name: str, value: Any) -> None:
        self._check(name)
        getattr(self, f"_{name}_impl").write(value)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: int) -> int:
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event: Any, callback: Callable, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def connectGui(self, gui: Any) -> None:
        """Binds the widgets that have a SlicerParameterName; like Slicer's, does not tell the tag."""
        widgets = (
            gui.findChildren(QtWidgets.QWidget) if hasattr(gui, "isWidgetType") else list(vars(gui).values())
        )
        named = {w.property(SlicerParameterNamePropertyName): w for w in widgets}
        self.connectParametersToGui({name: w for name, w in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Binds widgets by the names of parameters; returns the tag for `disconnectGui`."""
        for name in mapping:
            self._check(name)
        made = {name: gui_connectors.create(w, self.dataType(name)) for name, w in mapping.items()}
        for name, connector in made.items():
            connector.write(self.getValue(name))
            connector.start(lambda name=name, connector=connector: self._from_gui(name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._to_gui())
        self._next_tag += 1
        self._guis[self._next_tag] = (made, observer)
        return self._next_tag

    def disconnectGui(self, guiTag: int | None) -> None:
        if guiTag in self._guis:
            made, observer = self._guis.pop(guiTag)
            self.RemoveObserver(observer)
            for connector in made.values():
                connector.stop()

    def _from_gui(self, name: str, connector: gui_connectors.Connector) -> None:
        if not self._updating:
            with slicer.util.NodeModify(self):
                self.setValue(name, connector.read())

    def _to_gui(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            with slicer.util.NodeModify(self):
                for made, _ in list(self._guis.values()):
                    for name, connector in made.items():
                        connector.write(self.getValue(name))
        finally:
            self._updating = False


def _attribute(name: str) -> property:
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def _wrap(description: type) -> type:
    parameters: dict[str, tuple[Any, Codec, Callable[[], Any]]] = {}
    members = {
        k: v for k, v in vars(description).items() if k not in ("__dict__", "__weakref__", "__annotations__")
    }
    if "__init__" in members:
        raise ValueError(f"{description.__name__}: Slicer replaces the __init__ of a parameter node wrapper.")
    for name, hint in typing.get_type_hints(description, include_extras=True).items():
        if hasattr(_Wrapper, name):
            raise ValueError(f"Cannot use the reserved name {name!r} in a parameter node wrapper.")
        try:
            codec = codec_for(hint)
            if name in members:
                codec.default = members[name]
            codec.validate(codec.default)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{description.__name__}.{name}: {error}") from error
        default = codec.default
        parameters[name] = (hint, codec, lambda default=default: default)
        members[name] = _attribute(name)
    bases = tuple(b for b in description.__bases__ if b is not object)
    return type(description.__name__, (*bases, _Wrapper), members | {"allParameters": parameters})


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """Class decorator, with or without parentheses."""
    return _wrap if classtype is None else _wrap(classtype)


def isParameterNodeWrapper(classOrObj: Any) -> bool:
    kind = classOrObj if isinstance(classOrObj, type) else type(classOrObj)
    return issubclass(kind, _Wrapper)
