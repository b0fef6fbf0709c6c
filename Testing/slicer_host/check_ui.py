"""Static check of .ui files against the facts."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from PySide6 import QtWidgets

from .facts import facts, split_signature
from .pythonqt import qt_properties, qt_signals

_LAYOUT_OR_FAKE = {"buddy"}


@dataclass(frozen=True)
class Finding:
    file: Path
    line: int
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}: {self.kind}: {self.message}"


def qt_class(name: str) -> type | None:
    """The Qt class of a widget class, or the one that a CTK or Slicer class derives from."""
    return getattr(QtWidgets, facts().qt_base(name) if name in facts().classes else name, None)


def signals(name: str) -> set[str]:
    own = facts().signals(name) if name in facts().classes else set()
    return own | qt_signals(qt_class(name))


def properties(name: str) -> set[str]:
    own = facts().properties(name) if name in facts().classes else set()
    return own | qt_properties(qt_class(name))


def reachable(name: str) -> set[str]:
    """Everything that Python can use of a widget of the class."""
    own = facts().names(name) if name in facts().classes else set()
    return own | set(dir(qt_class(name))) | {"name", "className", "delete"}


class UiFile:
    """The objects of a .ui file and what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.widgets: dict[str, str] = {}
        self.parameters: dict[str, str] = {}
        self.findings: list[Finding] = []
        text = path.read_text(encoding="utf-8")
        self._lines = text.splitlines()
        root = ElementTree.fromstring(text)
        for element in root.iter("widget"):
            self._widget(element)
        # Names of layouts and actions can be connected too.
        self._others = {e.get("name") for tag in ("layout", "action") for e in root.iter(tag)}
        for connection in root.iter("connection"):
            self._connection(connection)

    def _line(self, *texts: str) -> int:
        return next((n for n, line in enumerate(self._lines, 1) if all(t in line for t in texts)), 1)

    def _find(self, kind: str, line: int, message: str) -> None:
        self.findings.append(Finding(self.path, line, kind, message))

    def _widget(self, element: ElementTree.Element) -> None:
        class_name, name = element.get("class", ""), element.get("name", "")
        line = self._line(f'name="{name}"')
        if qt_class(class_name) is None:
            self._find("ui-class", line, f"{class_name} is no widget class of Qt, CTK or Slicer.")
            return
        if name in self.widgets:
            self._find("ui-name", line, f"two widgets are called {name}.")
        self.widgets[name] = class_name
        for entry in element.findall("property"):
            key = entry.get("name", "")
            if key == "SlicerParameterName":
                self.parameters[name] = entry.findtext("string", "")
                if entry.get("stdset") != "0":
                    self._find("ui-property", line, f'{name}: SlicerParameterName needs stdset="0".')
            elif entry.get("stdset") != "0" and key not in properties(class_name) | _LAYOUT_OR_FAKE:
                self._find("ui-property", line, f"{class_name} {name} has no property {key}.")

    def _connection(self, connection: ElementTree.Element) -> None:
        sender, signal = connection.findtext("sender", ""), connection.findtext("signal", "")
        receiver, slot = connection.findtext("receiver", ""), connection.findtext("slot", "")
        line = self._line(f"<sender>{sender}</sender>")
        for name in (sender, receiver):
            if name not in self.widgets and name not in self._others:
                self._find("ui-connection", line, f"there is no {name}.")
        if sender in self.widgets and signal not in signals(self.widgets[sender]):
            self._find("ui-connection", line, f"{self.widgets[sender]} {sender} has no signal {signal}.")
        if receiver in self.widgets:
            class_name, (method, arguments) = self.widgets[receiver], split_signature(slot)
            own = facts().methods(class_name) if class_name in facts().classes else {}
            known = len(arguments) in own[method] if method in own else hasattr(qt_class(class_name), method)
            if not known:
                self._find("ui-connection", line, f"{class_name} {receiver} has no slot {slot}.")
