"""What the application does with a scripted module's file: load it, make its panel, enter and leave it, reload it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtWidgets

from .host_class import from_facts, host_class, host_property, register, state
from .pythonqt import stray_attributes


class StrayAttributeError(AttributeError):
    """A panel has attributes on C++ widgets that PythonQt refuses."""


def load_source(name: str, path: Path) -> Any:
    """Runs a module's file as the application does: by path, its folder on the path for what lies beside it."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    specification = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


@register
class qSlicerScriptedLoadableModule(
    from_facts("qSlicerScriptedLoadableModule", host_class("qSlicerLoadableModule"))
):
    """The C++ side of a scripted module; `parent` of its Python class."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem, None)
        own = state(self)
        own.file, own.widget = path, None
        self.hidden, self.index = False, -1
        source = load_source(path.stem, path)
        own.python = getattr(source, path.stem)(self)
        if not self.title or not self.categories:
            raise ValueError(f"{path.stem}: a module needs a title and categories.")

    path = host_property("QString", "path", get=lambda self: str(state(self).file))

    def widgetRepresentation(self) -> Any:
        if state(self).widget is None:
            state(self).widget = self.createNewWidgetRepresentation()
        return state(self).widget

    def createNewWidgetRepresentation(self) -> Any:
        return qSlicerScriptedLoadableModuleWidget(self)


@register
class qSlicerScriptedLoadableModuleWidget(
    from_facts("qSlicerScriptedLoadableModuleWidget", host_class("qSlicerAbstractModuleWidget"))
):
    """The C++ side of a module's panel; `parent` of its Python class."""

    def __init__(self, module: qSlicerScriptedLoadableModule) -> None:
        super().__init__()
        own = state(self)
        own.module, own.python, own.entered = module, None, False
        QtWidgets.QVBoxLayout(self)
        self.setMRMLScene(slicer.mrmlScene)
        self.reload()

    moduleName = host_property("QString", "moduleName", get=lambda self: state(self).module.name)
    isEntered = host_property("bool", "isEntered", get=lambda self: state(self).entered)

    def module(self) -> Any:
        return state(self).module

    def self(self) -> Any:
        return state(self).python

    def reload(self) -> bool:
        """Makes the Python object anew. As in the application, enter() is not called again."""
        name = state(self).module.name
        python = getattr(sys.modules[name], f"{name}Widget")(self)
        state(self).python = python
        setattr(slicer.modules, f"{name}Widget", python)
        python.setup()
        if strays := stray_attributes(self):
            raise StrayAttributeError(f"PythonQt has no such attributes: {'; '.join(strays)}")
        return True

    def enter(self) -> None:
        state(self).entered = True
        if hasattr(state(self).python, "enter"):
            state(self).python.enter()

    def exit(self) -> None:
        state(self).entered = False
        if hasattr(state(self).python, "exit"):
            state(self).python.exit()
