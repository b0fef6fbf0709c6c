"""VTK observers of Qt objects."""

from __future__ import annotations

import weakref
from typing import Any

import shiboken6
import vtk
from PySide6 import QtCore


class Observers:
    """VTK observers of a widget, which end with the widget."""

    def __init__(self, widget: QtCore.QObject) -> None:
        self._widget = weakref.ref(widget)
        self._tags: list[tuple[weakref.ref, int]] = []
        tags = self._tags
        widget.destroyed.connect(lambda: Observers._remove(tags))

    @staticmethod
    def _remove(tags: list[tuple[weakref.ref, int]]) -> None:
        for observed, tag in tags:
            if observed() is not None:
                observed().RemoveObserver(tag)
        tags.clear()

    def clear(self) -> None:
        self._remove(self._tags)

    def add(self, observed: Any, event: Any, method: str, *, call_data: bool = False) -> None:
        widget = self._widget

        def callback(caller: Any, event_name: str, data: Any = None) -> None:
            instance = widget()
            if instance is not None and shiboken6.isValid(instance):
                getattr(instance, method)(*([data] if call_data else []))

        if call_data:
            callback.CallDataType = vtk.VTK_OBJECT
        self._tags.append((weakref.ref(observed), observed.AddObserver(event, callback)))
