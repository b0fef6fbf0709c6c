"""slicer.app and the objects that hang from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from .host_class import from_facts, host_class, host_property, register, state
from .scene_files import FileManager


@register
class qSlicerCoreApplication(from_facts("qSlicerCoreApplication", QtWidgets.QApplication)):
    pass


@register
class qSlicerApplication(from_facts("qSlicerApplication", qSlicerCoreApplication)):
    """The application; what it does not define, raises."""

    def __init__(self, folder: Path) -> None:
        super().__init__(["slicer_host"])
        own = state(self)
        own.folder, own.testing, own.scene, own.logic = folder, True, None, None
        own.environment = QtCore.QProcessEnvironment.systemEnvironment()
        own.settings = QtCore.QSettings()
        own.modules, own.files, own.options = qSlicerModuleManager(), qSlicerCoreIOManager(), CommandOptions()
        own.extensions = qSlicerExtensionsManagerModel()

    temporaryPath = host_property(
        "QString", "temporaryPath", get=lambda self: str(state(self).folder / "temporary")
    )
    slicerHome = host_property("QString", "slicerHome", get=lambda self: str(state(self).folder / "home"))
    cachePath = host_property("QString", "cachePath", get=lambda self: str(state(self).folder / "cache"))
    slicerUserSettingsFilePath = host_property(
        "QString", "slicerUserSettingsFilePath", get=lambda self: state(self).settings.fileName()
    )
    extensionsInstallPath = host_property(
        "QString", "extensionsInstallPath", get=lambda self: str(state(self).folder / "extensions")
    )
    majorVersion = host_property("int", "majorVersion", get=lambda self: 5)
    minorVersion = host_property("int", "minorVersion", get=lambda self: 13)
    revision = host_property("QString", "revision", get=lambda self: "host")
    os = host_property("QString", "os", get=lambda self: "linux")
    arch = host_property("QString", "arch", get=lambda self: "amd64")
    applicationLocaleName = host_property("QString", "applicationLocaleName", get=lambda self: "en_US")
    documentationVersion = host_property("QString", "documentationVersion", get=lambda self: "latest")
    documentationBaseUrl = host_property(
        "QString", "documentationBaseUrl", get=lambda self: "https://slicer.readthedocs.io/en/latest/"
    )

    def testingEnabled(self) -> bool:
        return state(self).testing

    def mrmlScene(self) -> Any:
        return state(self).scene

    def applicationLogic(self) -> Any:
        return state(self).logic

    def moduleManager(self) -> Any:
        return state(self).modules

    def moduleLogic(self, name: str) -> Any:
        return state(self).modules.module(name).logic()

    def coreIOManager(self) -> Any:
        return state(self).files

    def ioManager(self) -> Any:
        return state(self).files

    def extensionsManagerModel(self) -> Any:
        return state(self).extensions

    def layoutManager(self) -> None:
        """None, as in the application started with --no-main-window."""

    def commandOptions(self) -> Any:
        return state(self).options

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        """Of this process when the host was started; what was set since stands for what Slicer's launcher sets."""
        return QtCore.QProcessEnvironment(state(self).environment)

    def environment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def userSettings(self) -> QtCore.QSettings:
        return state(self).settings

    settings = revisionUserSettings = userSettings

    def restart(self) -> None:
        """Counted only; `state(app).restarts` is for tests."""
        state(self).restarts = state(self).__dict__.get("restarts", 0) + 1

    def pauseRender(self) -> None:
        state(self).paused = state(self).__dict__.get("paused", 0) + 1

    def resumeRender(self) -> None:
        if not state(self).__dict__.get("paused", 0):
            raise RuntimeError("resumeRender() without pauseRender().")
        state(self).paused -= 1

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"


class CommandOptions(host_class("qSlicerCommandOptions")):
    """As if started with --testing --no-main-window."""

    noMainWindow = host_property("bool", "noMainWindow", get=lambda self: True)
    testingEnabled = host_property("bool", "testingEnabled", get=lambda self: slicer.app.testingEnabled())


@register
class qSlicerExtensionsManagerModel(from_facts("qSlicerExtensionsManagerModel", QtCore.QObject)):
    """Has no extensions; what installing one does is up to the test (`Host.set_extension_installer`)."""

    interactive = host_property("bool", "interactive", default=True)
    installedExtensions = host_property(
        "QStringList",
        "installedExtensions",
        get=lambda self: tuple(state(self).__dict__.get("installed", ())),
    )

    def setInteractive(self, interactive: bool) -> None:
        self.interactive = interactive

    def isExtensionInstalled(self, name: str) -> bool:
        return name in self.installedExtensions

    def updateExtensionsMetadataFromServer(self, force: bool = False, wait: bool = False) -> bool:
        return state(self).__dict__.get("installer") is not None

    def installExtensionFromServer(self, name: str, restart: bool = True, dependencies: bool = True) -> bool:
        installer = state(self).__dict__.get("installer")
        if installer is None or not installer(name):
            return False
        state(self).installed = (*self.installedExtensions, name)
        self.extensionInstalled.emit(name)
        if restart:
            slicer.app.restart()
        return True


@register
class qSlicerCoreIOManager(from_facts("qSlicerCoreIOManager", QtCore.QObject)):
    def __init__(self) -> None:
        super().__init__()
        state(self).manager = FileManager()

    def fileType(self, name: str) -> str:
        return state(self).manager.file_type(str(name))

    def fileWriterFileType(self, node: Any, preferred: str = "") -> str:
        return preferred or node.GetClassName()

    def loadNodes(self, file_type: str, properties: dict, nodes: Any, messages: Any = None) -> bool:
        loaded = state(self).manager.load(file_type, dict(properties))
        for node in loaded:
            nodes.AddItem(node)
        return bool(loaded)

    def saveNodes(self, file_type: str, properties: dict, messages: Any = None) -> bool:
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        return state(self).manager.save(node, str(properties["fileName"]), dict(properties))


@register
class qSlicerAbstractCoreModule(from_facts("qSlicerAbstractCoreModule", QtCore.QObject)):
    pass


@register
class qSlicerLoadableModule(from_facts("qSlicerLoadableModule", host_class("qSlicerAbstractModule"))):
    """A module of the application, of which only the logic is here."""

    def __init__(self, name: str, logic: Any) -> None:
        super().__init__()
        state(self).logic = logic
        state(self).module_name = name

    name = host_property("QString", "name", get=lambda self: state(self).module_name)

    def logic(self) -> Any:
        return state(self).logic


@register
class qSlicerModuleFactoryManager(
    from_facts("qSlicerModuleFactoryManager", host_class("qSlicerAbstractModuleFactoryManager"))
):
    def loadedModuleNames(self) -> tuple[str, ...]:
        return slicer.app.moduleManager().modulesNames()

    def isLoaded(self, name: str) -> bool:
        return name in self.loadedModuleNames()

    def loadedModule(self, name: str) -> Any:
        return slicer.app.moduleManager().module(name)


@register
class qSlicerModuleManager(from_facts("qSlicerModuleManager", QtCore.QObject)):
    def __init__(self) -> None:
        super().__init__()
        state(self).loaded, state(self).factory = {}, qSlicerModuleFactoryManager()

    def module(self, name: str) -> Any:
        return state(self).loaded.get(name)

    def modulesNames(self) -> tuple[str, ...]:
        return tuple(state(self).loaded)

    def factoryManager(self) -> Any:
        return state(self).factory


def make_launcher(folder: Path, python: str) -> Path:
    """A PythonSlicer that, as the real launcher, is a process of its own with Python as its child."""
    folder.mkdir(parents=True, exist_ok=True)
    launcher = folder / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\n"{python}" "$@"\nexit $?\n')
    launcher.chmod(0o755)
    assert shutil.which(str(launcher))
    return launcher
