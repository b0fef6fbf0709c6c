"""Which widget shows which type of parameter, as Slicer's documentation lists them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtWidgets

from . import parameter_types as kinds
from .host_class import host_class
from .pythonqt import connect, disconnect


def _ctk(*names: str) -> tuple[type, ...]:
    return tuple(host_class(n) for n in names)


class Connector:
    """One widget: how its value is read and set, and which signal says that it changed."""

    def __init__(
        self, widget: Any, signal: str | None, read: Callable[[], Any], write: Callable[[Any], None]
    ) -> None:
        self.widget, self._signal, self.read, self.write = widget, signal, read, write
        self._callback: Callable | None = None

    def start(self, callback: Callable[[], None]) -> None:
        self._callback = lambda: callback()
        if self._signal:
            connect(self.widget, self._signal, self._callback)

    def stop(self) -> None:
        if self._signal and shiboken6.isValid(self.widget):
            disconnect(self.widget, self._signal, self._callback)


def _first(annotations: list, kind: type) -> Any:
    return next((a for a in annotations if isinstance(a, kind)), None)


def _apply_limits(
    widget: Any, annotations: list, *, unlimited: tuple[float, float], needs_limits: bool
) -> None:
    within = _first(annotations, kinds.WithinRange)
    low = within or _first(annotations, kinds.Minimum)
    high = within or _first(annotations, kinds.Maximum)
    if needs_limits and not (low and high):
        raise RuntimeError(
            f"A {type(widget).__name__} needs a parameter with WithinRange, or Minimum and Maximum."
        )
    for annotation, name in ((kinds.Decimals, "decimals"), (kinds.SingleStep, "singleStep")):
        if found := _first(annotations, annotation):
            setattr(widget, name, found.value)
    widget.minimum = low.minimum if low else unlimited[0]
    widget.maximum = high.maximum if high else unlimited[1]


def _of_property(widget: Any, name: str, signal: str, convert: Callable = lambda value: value) -> Connector:
    return Connector(
        widget, signal, lambda: getattr(widget, name), lambda value: setattr(widget, name, convert(value))
    )


def _of_choices(widget: Any, choices: list[tuple[str, Any]]) -> Connector:
    widget.clear()
    for label, _ in choices:
        widget.addItem(label)
    values = [value for _, value in choices]

    def write(value: Any) -> None:
        widget.currentIndex = values.index(value)

    return Connector(widget, "currentIndexChanged(int)", lambda: values[widget.currentIndex], write)


def _of_nodes(widget: Any, classes: tuple[type, ...]) -> Connector:
    widget.nodeTypes = tuple(c().GetClassName() for c in classes)
    return Connector(widget, "currentNodeChanged(vtkMRMLNode*)", widget.currentNode, widget.setCurrentNode)


def create(widget: Any, hint: Any) -> Connector:
    """The connector of a widget and a (possibly annotated) type.

    Raises:
        RuntimeError: Slicer cannot connect the two either.
    """
    bare, annotations = kinds.split_annotated(hint)
    # Slicer compares the widgets' classes exactly; a class derived from QCheckBox is none.
    widget_type, qt = type(widget), QtWidgets
    if bare is bool and widget_type in (qt.QCheckBox, *_ctk("ctkCheckBox")):
        return _of_property(widget, "checked", "stateChanged(int)")
    if bare is bool and widget_type is qt.QPushButton:
        if not widget.checkable:
            raise RuntimeError(f"The push button {widget.name!r} must be checkable to stand for a bool.")
        return _of_property(widget, "checked", "toggled(bool)")
    if bare is int and widget_type in (qt.QSlider, qt.QSpinBox):
        limits = (-(2**31), 2**31 - 1)
        _apply_limits(widget, annotations, unlimited=limits, needs_limits=widget_type is qt.QSlider)
        return _of_property(widget, "value", "valueChanged(int)")
    if bare is float and widget_type in (qt.QDoubleSpinBox, *_ctk("ctkSliderWidget", "ctkDoubleSpinBox")):
        limits = (float("-inf"), float("inf"))
        _apply_limits(
            widget, annotations, unlimited=limits, needs_limits=widget_type in _ctk("ctkSliderWidget")
        )
        return _of_property(widget, "value", "valueChanged(double)")
    if widget_type in (qt.QComboBox, *_ctk("ctkComboBox")):
        if isinstance(bare, type) and issubclass(bare, enum.Enum):
            label = getattr(bare, "label", lambda member: member.name)
            return _of_choices(widget, [(label(member), member) for member in bare])
        choice = _first(annotations, kinds.Choice)
        if bare in (int, float, str, bool) and choice:
            return _of_choices(widget, [(str(c), c) for c in choice.choices])
    if bare is str and widget_type is qt.QLineEdit:
        return _of_property(widget, "text", "textChanged(QString)")
    if bare is str and widget_type is qt.QTextEdit:
        return Connector(widget, "textChanged()", widget.toPlainText, widget.setPlainText)
    if bare is str and widget_type is qt.QLabel:
        return Connector(widget, None, lambda: widget.text, widget.setText)
    if bare in kinds.PATH_TYPES and widget_type in _ctk("ctkPathLineEdit"):
        connector = _of_property(widget, "currentPath", "currentPathChanged(QString)", str)
        connector.read = lambda: bare(widget.currentPath)
        return connector
    if bare in kinds.PATH_TYPES and widget_type in _ctk("ctkDirectoryButton"):
        connector = _of_property(widget, "directory", "directoryChanged(QString)", str)
        connector.read = lambda: bare(widget.directory)
        return connector
    if widget_type in _ctk("qMRMLNodeComboBox") and (classes := kinds.node_classes(hint)):
        return _of_nodes(widget, classes)
    raise RuntimeError(f"Slicer has no connector from {hint} to a {widget_type.__name__} ({widget.name!r}).")
