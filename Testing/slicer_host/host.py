"""Starts the host: real MRML scene and logics, the Qt imitation, and Slicer's Python modules over both."""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import missing_packages

_LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Models": "vtkSlicerModelsLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
}
# Scripted modules know these under names of their own.
_ALIASES = {
    "vtkITK": "slicer_core.vtkITK",
    "vtkSegmentationCore": "slicer_core.vtkSegmentationCore",
    "vtkTeem": "slicer_core.vtkTeem",
    "vtkAddon": "slicer_core.vtkAddonPython",
    "MRMLCorePython": "slicer_core.MRMLCore",
}
# In the application, the plugins of these nodes give them an item in the subject hierarchy.
_IN_HIERARCHY = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLModelNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLTransformNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
)
_host: Host | None = None


class Host:
    """The started host. There is one in a process; `boot` returns it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slicer_host_"))
        self.callbacks: list[tuple[Any, int]] = []
        for name in ("temporary", "home", "cache", "extensions", "settings"):
            (self.folder / name).mkdir()
        atexit.register(self._end)
        # Every process that comes from this one has it, also when its parent is gone.
        os.environ["SLICER_HOST_FOLDER"] = str(self.folder)
        self._start_qt()
        self._start_python_modules()
        self._start_application()
        self._start_launcher()

    def _start_qt(self) -> None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        from PySide6 import QtCore

        # The user's own settings are neither read nor written.
        settings = QtCore.QSettings
        settings.setDefaultFormat(settings.Format.IniFormat)
        for scope in (settings.Scope.UserScope, settings.Scope.SystemScope):
            settings.setPath(settings.Format.IniFormat, scope, str(self.folder / "settings"))
        QtCore.QCoreApplication.setOrganizationName("slicer_host")
        QtCore.QCoreApplication.setApplicationName("Slicer")
        from . import pythonqt

        self.qt = pythonqt.install()
        self.qt_messages: list[str] = []
        QtCore.qInstallMessageHandler(self._qt_message)
        atexit.register(QtCore.qInstallMessageHandler, None)

    def _qt_message(self, kind: Any, context: Any, text: str) -> None:
        if "propagateSizeHints" in text:
            return  # a peculiarity of the offscreen platform
        self.qt_messages.append(text)
        sys.stderr.write(f"Qt: {text}\n")

    def _start_python_modules(self) -> None:
        import slicer
        import vtk

        self.slicer = slicer
        vtk.vtkObject.GlobalWarningDisplayOff()
        for name, real in _ALIASES.items():
            sys.modules.setdefault(name, importlib.import_module(real))
        slicer.selfTests = {}
        for name in ("modules", "moduleNames"):
            setattr(slicer, name, types.ModuleType(f"slicer.{name}"))
            sys.modules[f"slicer.{name}"] = getattr(slicer, name)
        slicer.modules.sampleDataSources = {}

        from . import widgets_ctk, widgets_ctk_numbers, widgets_mrml, widgets_plot, widgets_segments  # noqa: F401
        from .facts import facts
        from .host_class import host_class
        from .ui_loader import HostUiLoader

        def lookup(prefixes: tuple[str, ...], module: str) -> Callable[[str], Any]:
            def find(name: str) -> Any:
                if name.startswith(prefixes) and name in facts().classes:
                    return host_class(name)
                raise AttributeError(f"The test host's {module} has no {name!r}.")

            return find

        ctk = types.ModuleType("ctk", "CTK's classes, made when they are first asked for.")
        ctk.__getattr__ = lookup(("ctk",), "ctk")
        sys.modules["ctk"] = self.ctk = ctk
        slicer.__getattr__ = lookup(("qMRML", "qSlicer"), "slicer")
        self.qt.QUiLoader = HostUiLoader

        for name in ("i18n", "packaging", "parameter_node", "scripted_module"):
            module = importlib.import_module(f".{name}", __package__)
            public = {
                "parameter_node": "parameterNodeWrapper",
                "scripted_module": "ScriptedLoadableModule",
            }.get(name, name)
            sys.modules[f"slicer.{public}"] = module
            setattr(slicer, public, module)
        sys.modules["SampleData"] = importlib.import_module(".sample_data", __package__)

    def _start_application(self) -> None:
        import vtk

        from .app import qSlicerApplication, qSlicerLoadableModule
        from .host_class import state
        from .scripted_loading import qSlicerScriptedLoadableModule  # noqa: F401

        slicer = self.slicer
        self.app = slicer.app = qSlicerApplication(self.folder)
        self.scene = slicer.mrmlScene = slicer.vtkMRMLScene()
        logic = self.logic = slicer.vtkSlicerApplicationLogic()
        state(self.app).scene, state(self.app).logic = self.scene, logic
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)
        self._start_remote_io()
        logic.SetTemporaryPath(self.app.temporaryPath)
        for collection in ("SliceLogics", "ViewLogics"):
            getattr(logic, f"Set{collection}")(vtk.vtkCollection())
        logic.SetMRMLScene(self.scene)
        colours = logic.GetColorLogic()
        colours.SetMRMLScene(self.scene)
        # Every volume that is loaded asks for this one by name.
        logic.SetModuleLogic("Colors", colours)
        loaded = state(self.app.moduleManager()).loaded
        for name, class_name in {**_LOGICS, "Colors": ""}.items():
            module_logic = getattr(slicer, class_name)() if class_name else colours
            if class_name:
                module_logic.SetMRMLApplicationLogic(logic)
                module_logic.SetMRMLScene(self.scene)
                logic.SetModuleLogic(name, module_logic)
            loaded[name] = qSlicerLoadableModule(name, module_logic)
            setattr(slicer.modules, name.lower(), loaded[name])
            setattr(slicer.moduleNames, name, name)
        self._watch(slicer.vtkMRMLScene.NodeAddedEvent, self._give_item)
        self._watch(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._take_item)
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        vtk.vtkObject.GlobalWarningDisplayOn()

    def _start_remote_io(self) -> None:
        slicer = self.slicer
        self._remote = slicer.vtkMRMLRemoteIOLogic()
        self._data_io = slicer.vtkDataIOManagerLogic()
        self._remote.GetCacheManager().SetRemoteCacheDirectory(self.app.cachePath)
        self._data_io.SetMRMLApplicationLogic(self.logic)
        self.logic.SetMRMLSceneDataIO(self.scene, self._remote, self._data_io)

    def _start_launcher(self) -> None:
        from .app import make_launcher

        folder = make_launcher(self.folder / "home" / "bin", sys.executable).parent
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def _watch(self, event: int, method: Callable[[Any], None]) -> None:
        import vtk

        def callback(caller: Any, name: str, data: Any) -> None:
            method(data)

        callback.CallDataType = vtk.VTK_OBJECT
        self.callbacks.append((callback, self.scene.AddObserver(event, callback)))

    def _give_item(self, node: Any) -> None:
        if node.GetHideFromEditors() or not any(node.IsA(kind) for kind in _IN_HIERARCHY):
            return
        hierarchy = self.slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        if hierarchy is not None and not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    def _take_item(self, node: Any) -> None:
        if self.scene.IsClosing() or node.IsA("vtkMRMLSubjectHierarchyNode"):
            return
        hierarchy = self.slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        if hierarchy is not None and (item := hierarchy.GetItemByDataNode(node)):
            hierarchy.RemoveItem(item, False, False)

    def _end(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # What tests and scripts call.

    def load_module(self, path: str | Path) -> Any:
        """Loads a scripted module from its .py file, as the application does at start, and returns its C++ side."""
        from .host_class import state
        from .scripted_loading import qSlicerScriptedLoadableModule

        path = Path(path).resolve()
        module = qSlicerScriptedLoadableModule(path)
        state(self.app.moduleManager()).loaded[module.name] = module
        setattr(self.slicer.modules, module.name.lower(), module)
        setattr(self.slicer.modules, f"{module.name}Instance", state(module).python)
        setattr(self.slicer.moduleNames, module.name, module.name)
        self.app.moduleManager().moduleLoaded.emit(module.name)
        return module

    def startup_completed(self) -> None:
        """Tells loaded modules that the application is up; they register their sample data then."""
        self.app.startupCompleted.emit()

    def panel(self, name: str) -> Any:
        """The module's Python widget object; made, but not entered, if it does not exist."""
        return self.app.moduleManager().module(name).widgetRepresentation().self()

    def enter(self, name: str) -> Any:
        """Shows a module as if it were chosen in the module list; returns its Python widget object."""
        widget = self.app.moduleManager().module(name).widgetRepresentation()
        widget.show()
        widget.enter()
        self.process_events()
        return widget.self()

    def leave(self, name: str) -> None:
        widget = self.app.moduleManager().module(name).widgetRepresentation()
        widget.hide()
        widget.exit()

    def unload_module(self, name: str) -> None:
        """What quitting the application does: cleanup() is called and the panel deleted."""
        from .host_class import state

        manager = self.app.moduleManager()
        manager.moduleAboutToBeUnloaded.emit(name)
        module = state(manager).loaded.pop(name)
        if state(module).widget is not None:
            state(module).widget.delete()
        for attribute in (name.lower(), f"{name}Widget", f"{name}Instance"):
            if hasattr(self.slicer.modules, attribute):
                delattr(self.slicer.modules, attribute)

    def close_scene(self) -> None:
        self.scene.Clear(False)
        self.process_events()

    def clean(self) -> None:
        """An empty scene, without the parameter nodes that outlive closing it; no settings, no extensions."""
        from .host_class import state

        self.scene.Clear(False)
        for node in self.slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode"):
            self.scene.RemoveNode(node)
        self.app.userSettings().clear()
        state(self.app).restarts = 0
        extensions = state(self.app.extensionsManagerModel())
        extensions.installer, extensions.installed = None, ()
        self.slicer.modules.sampleDataSources.clear()
        self.slicer.selfTests.clear()
        self.process_events()

    def process_events(self, seconds: float = 0.0) -> None:
        end = time.monotonic() + seconds
        self.app.processEvents()
        while time.monotonic() < end:
            time.sleep(0.005)
            self.app.processEvents()

    def wait_until(self, condition: Callable[[], Any], timeout: float = 10.0) -> Any:
        """Runs the event loop until the condition holds; returns what it returned.

        Raises:
            TimeoutError: it did not within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while not (result := condition()):
            if time.monotonic() > end:
                raise TimeoutError(f"Not within {timeout} s: {getattr(condition, '__name__', condition)}")
            self.process_events(0.01)
        return result

    def set_extension_installer(self, installer: Callable[[str], bool] | None) -> None:
        """What stands for the extensions server: called with an extension's name, returns whether it installed it."""
        from .host_class import state

        state(self.app.extensionsManagerModel()).installer = installer

    def restarts(self) -> int:
        """How often the module asked the application to restart."""
        from .host_class import state

        return state(self.app).__dict__.get("restarts", 0)

    def set_testing(self, testing: bool) -> None:
        """Whether slicer.app.testingEnabled(): dialogs then answer themselves."""
        from .host_class import state

        state(self.app).testing = testing


def boot() -> Host:
    """The host, started if it was not.

    Raises:
        ImportError: a package is missing; the message names it.
    """
    global _host
    if missing := missing_packages():
        raise ImportError(f"The test host needs: {missing}")
    if _host is None:
        _host = Host()
    return _host
