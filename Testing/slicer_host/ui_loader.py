"""QUiLoader as Slicer's Python has it, with the host's widgets; anything that Qt would overlook raises."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from .facts import facts, split_signature
from .host_class import host_class, is_host_property
from .pythonqt import adopt, connect, host_signal, qt_properties

# Written into .ui files as properties, without being any.
_NOT_IN_META_OBJECT = {"buddy"}


class UiFileError(RuntimeError):
    """Something in a .ui file that Slicer would ignore or take for something else."""


def widget_class(name: str) -> type | None:
    return host_class(name) or getattr(QtWidgets, name, None)


def _value(element: ElementTree.Element, cls: type) -> Any:
    text = element.text or ""
    if element.tag in ("enum", "set"):
        value: Any = 0
        for part in filter(None, text.split("|")):
            scope, _, name = part.strip().rpartition("::")
            owner = (
                cls if not scope or scope == cls.__name__ else getattr(QtWidgets, scope, None) or QtCore.Qt
            )
            found = getattr(owner, name)
            value = found if not value else value | found
        return value
    readers = {
        "bool": lambda: text == "true",
        "number": lambda: int(text),
        "double": lambda: float(text),
        "float": lambda: float(text),
        "string": lambda: text,
        "cstring": lambda: text,
        "stringlist": lambda: tuple(e.text or "" for e in element.findall("string")),
    }
    if element.tag not in readers:
        raise UiFileError(f"The test host cannot read a <{element.tag}> property of a {cls.__name__}.")
    return readers[element.tag]()


class HostUiLoader(QtUiTools.QUiLoader):
    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        self._keep: list[QtCore.QObject] = []
        self._errors: list[str] = []

    # Called from C++, where an exception would be lost.
    def createWidget(self, class_name: str, parent: QtWidgets.QWidget | None = None, name: str = "") -> Any:
        cls = widget_class(class_name)
        try:
            widget = cls(parent) if parent is not None else cls()
        except Exception as error:
            self._errors.append(f"{class_name} {name!r}: {error}")
            return super().createWidget("QWidget", parent, name)
        widget.setObjectName(name)
        self._keep.append(widget)
        return widget

    def load(self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        """The top widget of the .ui file.

        Raises:
            UiFileError: unknown class, property, signal, slot or object name.
        """
        file = device.fileName() if isinstance(device, QtCore.QFile) else "the .ui file"
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        later: list[tuple[str, str, Any]] = []
        for element in root.iter("widget"):
            later += self._take_host_properties(element, file)
        connections = root.find("connections")
        if connections is not None:
            root.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        # Relative paths of icons are those of the .ui file's folder.
        self.setWorkingDirectory(QtCore.QDir(str(Path(file).parent)))
        top = super().load(buffer, parent)
        if top is None or self._errors:
            raise UiFileError(f"{file}: {'; '.join(self._errors) or self.errorString()}")
        named = {w.name: w for w in [adopt(top), *top.findChildren(QtCore.QObject)] if w.name}
        for name in named:
            top.__dict__.pop(name, None)  # PySide's convenience, which PythonQt does not have
        for name, key, value in later:
            setattr(named[name], key, value)
        for connection in connections if connections is not None else []:
            self._connect(connection, named, file)
        top.__dict__["_host_children"] = (
            self._keep
        )  # Python's half of the widgets must live as long as they do
        self._keep = []
        return top

    def _take_host_properties(self, element: ElementTree.Element, file: str) -> list[tuple[str, str, Any]]:
        class_name, name = element.get("class", ""), element.get("name", "")
        cls = widget_class(class_name)
        if cls is None:
            raise UiFileError(f"{file}: neither Qt nor CTK nor Slicer has a widget class {class_name}.")
        taken = []
        for entry in element.findall("property"):
            key = entry.get("name", "")
            if entry.get("stdset") == "0":
                continue  # a dynamic property, such as SlicerParameterName
            if is_host_property(cls, key):
                element.remove(entry)
                taken.append((name, key, _value(entry[0], cls)))
            elif key not in qt_properties(cls) | _NOT_IN_META_OBJECT:
                raise UiFileError(f"{file}: {class_name} {name!r} has no property {key}.")
        return taken

    def _connect(self, connection: ElementTree.Element, named: dict[str, Any], file: str) -> None:
        parts = {tag: connection.findtext(tag, "") for tag in ("sender", "signal", "receiver", "slot")}
        for tag in ("sender", "receiver"):
            if parts[tag] not in named:
                raise UiFileError(f"{file}: a connection names {parts[tag]!r}, which does not exist.")
        sender, receiver = named[parts["sender"]], named[parts["receiver"]]
        slot, arguments = split_signature(parts["slot"])
        cpp_slot = receiver.metaObject().indexOfSlot(parts["slot"]) >= 0
        class_name = type(receiver).__name__
        if not cpp_slot and len(arguments) not in facts().methods(class_name).get(slot, set()):
            raise UiFileError(f"{file}: {class_name} {receiver.name!r} has no slot {parts['slot']}.")
        if cpp_slot and host_signal(sender, parts["signal"]) is None:
            if sender.metaObject().indexOfSignal(parts["signal"]) < 0:
                raise UiFileError(f"{file}: {type(sender).__name__} has no signal {parts['signal']}.")
            signal, target = QtCore.SIGNAL(parts["signal"]), QtCore.SLOT(parts["slot"])
            QtCore.QObject.connect(sender, signal, receiver, target)
            return
        try:
            connect(
                sender, parts["signal"], lambda *values: getattr(receiver, slot)(*values[: len(arguments)])
            )
        except ValueError as error:
            raise UiFileError(f"{file}: {error}") from error
