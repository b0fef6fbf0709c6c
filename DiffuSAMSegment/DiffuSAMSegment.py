"""The module DiffuSAM Segment: wires the panel, the scene and the child process; computes nothing."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from DiffuSAMSegmentLib.errors import SegmentationError
from DiffuSAMSegmentLib.installer import Installer
from DiffuSAMSegmentLib.modality_choice import ModalityChoice
from DiffuSAMSegmentLib.models_dialog import ModelsDialog
from DiffuSAMSegmentLib.organ_list import OrganList
from DiffuSAMSegmentLib.parameter_node import DiffuSAMSegmentParameterNode, resetToDefaults
from DiffuSAMSegmentLib.priors import PriorCard, priorCards
from DiffuSAMSegmentLib.result_table import ResultTable
from DiffuSAMSegmentLib.run_section import RunSection, RunSectionCalls
from DiffuSAMSegmentLib.sample_data import registerSampleData
from DiffuSAMSegmentLib.segmentation_logic import SegmentationLogic
from DiffuSAMSegmentLib.segmentation_output import outputFor, reportOf
from DiffuSAMSegmentLib.self_test import DiffuSAMSegmentTest  # noqa: F401 - Slicer looks for it in this file
from DiffuSAMSegmentLib.sequence_frame import browserOf
from DiffuSAMSegmentLib.temporary_folder import removeAbandonedFolders
from DiffuSAMSegmentLib.train_section import TrainSection, TrainSectionCalls
from DiffuSAMSegmentLib.training_logic import TrainingLogic
from DiffuSAMSegmentLib.worker_process import WorkerProcess

OWN_PACKAGES = ("DiffuSAMSegmentLib", "DiffuSAMLib")
HOMEPAGE = "https://github.com/OWNER/SlicerDiffuSAMSegment"
# Lines of the log: a chatty library shall not fill the memory.
LARGEST_LOG = 5000


class DiffuSAMSegment(ScriptedLoadableModule):
    """What the application shows of the module."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("DiffuSAM Segment")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["DiffuSAM Segment contributors"]
        self.parent.helpText = _(
            "Segments organs in CT and MR with one click: no points, no boxes, no server. "
            "Not for clinical use. No data leaves this computer."
        )
        manual, title = f"{HOMEPAGE}/blob/main/Docs/slicer-module.md", _("Manual and tutorial")
        self.parent.helpText += f'<p><a href="{manual}">{title}</a></p>'
        self.parent.acknowledgementText = _(
            "An implementation of the method of arXiv 2604.24719: a frozen SAM2 and a diffusion prior over its memory. "
            "SAM2 is by Meta AI (Apache License 2.0). The bundled weights were trained on BTCV (registered access, "
            "research) and CHAOS (CC BY-NC-SA 4.0): research, non-commercial."
        )
        slicer.app.connect("startupCompleted()", _onStartupCompleted)


def _onStartupCompleted() -> None:
    registerSampleData(str(Path(__file__).resolve().parent / "Resources" / "Icons"))
    if Installer.pending() and slicer.util.mainWindow() is not None:
        # The restart was ours: the panel goes on with the installation.
        slicer.util.selectModule("DiffuSAMSegment")


class DiffuSAMSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._cards: list[PriorCard] = []
        self._dialog = None
        self._updating = False
        # The last input volume; it is observed. VTKObservationMixin would keep it after that, and so its voxels.
        self._volumeNode = None
        self._volumeTag = 0
        self._hadVolume = False

    def setup(self) -> None:
        """Called when the panel is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/DiffuSAMSegment.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = DiffuSAMSegmentLogic()
        self.logic.onLog = self._appendLog
        requirements = [Path(self.resourcePath(name)) for name in ("requirements.txt", "constraints.txt")]
        self._installer = Installer(*requirements, self._showIdleOrInstalling)
        self._organs = OrganList(self.ui.organList, self._onOrgansChanged)
        self._results = ResultTable(self.ui.resultTable)
        self._modality = ModalityChoice(self.ui.modalityGuessLabel)
        self.ui.logText.setMaximumBlockCount(LARGEST_LOG)
        runCalls = RunSectionCalls(
            lambda: self._install(self._run.fail),
            lambda: self._installer.installing,
            self._appendLog,
            self._card,
            lambda: self._train.update(),
            self._onParametersModified,
        )
        self._run = RunSection(self.ui, self.logic, self._modality, runCalls)
        trainCalls = TrainSectionCalls(
            lambda: self._install(self._train.fail),
            lambda: self._installer.installing,
            self._appendLog,
            self._run.update,
            self._onTrained,
        )
        self._train = TrainSection(self.ui, self.logic, trainCalls)
        self.logic.onRunning = self._run.update

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.ui.modelsButton.connect("clicked(bool)", self.onModelsButton)
        self.ui.resetButton.connect("clicked(bool)", self.onResetButton)
        self.ui.allOrgansButton.connect("clicked(bool)", lambda _checked=False: self._organs.checkAll(True))
        self.ui.noOrgansButton.connect("clicked(bool)", lambda _checked=False: self._organs.checkAll(False))
        self.ui.priorComboBox.connect("currentIndexChanged(int)", self._onPriorChanged)
        self._readPriors()
        removeAbandonedFolders()
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the panel goes: at the end of the application, and on Reload."""
        if self.logic is not None:
            self.logic.close()
            self._train.close()
        if self._dialog is not None:
            self._dialog.cleanup()
        self.setParameterNode(None)
        self._observeVolume(None)
        self.removeObservers()

    def onReload(self) -> None:
        """Reload in developer mode takes our packages along."""
        for name in [n for n in sys.modules if n.split(".")[0] in OWN_PACKAGES]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self) -> None:
        """Called each time the user opens the module."""
        self.initializeParameterNode()
        if Installer.pending():
            qt.QTimer.singleShot(0, self._resumeInstallation)

    def exit(self) -> None:
        """Called each time the user opens another module; a run goes on."""
        if self._parameterNode is not None:
            self._disconnectParameterNode()

    def onSceneStartClose(self, _caller=None, _event=None) -> None:
        self.logic.close()
        self._train.close()
        self.setParameterNode(None)
        self._observeVolume(None)

    def onSceneEndClose(self, _caller=None, _event=None) -> None:
        self._showIdleOrInstalling()
        self._results.show(None)
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartImport(self, _caller=None, _event=None) -> None:
        # Half a scene says nothing: the panel would take its choices for the user's, or put its own into it.
        if self._parameterNode is not None:
            self._disconnectParameterNode()
        self._observeVolume(None)

    def onSceneEndImport(self, _caller=None, _event=None) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Makes sure that there is a parameter node, and chooses the first volume as the input."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            # Label maps and vector volumes are scalar volumes too, but none that the selector offers.
            kind = "vtkMRMLScalarVolumeNode"
            volumes = [node for node in slicer.util.getNodesByClass(kind) if node.GetClassName() == kind]
            if volumes:
                self._parameterNode.inputVolume = volumes[0]

    def setParameterNode(self, node: DiffuSAMSegmentParameterNode | None) -> None:
        """Binds the panel to a parameter node, or to none."""
        if self._parameterNode is not None:
            self._disconnectParameterNode()
        self._parameterNode = node
        if node is not None:
            # Not connectGui, which keeps its tag to itself (Slicer issue 7547): nothing could be disconnected.
            named = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
            self._parameterNodeGuiTag = node.connectParametersToGui(
                {name: named[name] for name in named if name}
            )
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
            self._run.setParameterNode(node)
            self._train.setParameterNode(node)
            self._onParametersModified()

    def onModelsButton(self, _checked: bool = False) -> None:
        if self._dialog is None:
            self._dialog = ModelsDialog(self.ui.modelsButton.window(), self._onModelsChanged)
        self._dialog.show()

    def onResetButton(self, _checked: bool = False) -> None:
        resetToDefaults(self._parameterNode)

    def _install(self, fail: Callable[[SegmentationError], None], *, ask: bool = True) -> bool:
        """Whether the packages are there, if need be after an installation; no while one is under way.

        :param fail: told why they are not there
        """
        if self._installer.installing:
            return False
        try:
            self._installer.ensure(ask)
        except SegmentationError as error:
            fail(error)
            return False
        return True

    def _resumeInstallation(self) -> None:
        # Not twice, should the panel have been left and entered again meanwhile.
        if Installer.pending():
            self._install(self._run.fail, ask=False)

    def _showIdleOrInstalling(self) -> None:
        if self._installer.installing:
            self._run.showInstalling()
        else:
            self._run.showIdle("")

    def _appendLog(self, line: str) -> None:
        self.ui.logText.appendPlainText(line)

    def _disconnectParameterNode(self) -> None:
        self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
        self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self._parameterNode = None
        self._run.setParameterNode(None)
        self._train.setParameterNode(None)

    def _onParametersModified(self, _caller=None, _event=None) -> None:
        """Brings what is not bound by name in line with the parameter node."""
        if self._parameterNode is None or self._updating or slicer.mrmlScene.IsImporting():
            return
        self._updating = True
        try:
            self._onInputChanged()
            self._showParameters()
        finally:
            self._updating = False
        self._run.update()
        self._train.update()

    def _onInputChanged(self) -> None:
        """Follows another input volume: organs of the one before are not to be replaced by its own."""
        volumeNode = self._parameterNode.inputVolume
        if volumeNode is self._volumeNode:
            return
        followsAnother = self._hadVolume
        self._observeVolume(volumeNode)
        if volumeNode is None:
            self._hadVolume = followsAnother  # it was deleted, perhaps; the next one is another nevertheless
            return
        segmentationNode = self._parameterNode.outputSegmentation
        if followsAnother and (segmentationNode is None or reportOf(segmentationNode) is not None):
            self._parameterNode.outputSegmentation = outputFor(volumeNode)

    def _observeVolume(self, volumeNode) -> None:
        if self._volumeNode is not None:
            self._volumeNode.RemoveObserver(self._volumeTag)
        self._volumeNode = volumeNode
        self._hadVolume = volumeNode is not None
        if volumeNode is not None:
            event = slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
            self._volumeTag = volumeNode.AddObserver(event, self._onParametersModified)

    def _showParameters(self) -> None:
        card = self._card()
        names = [each.name for each in self._cards]
        self.ui.priorComboBox.currentIndex = names.index(card.name) if card is not None else -1
        self.ui.priorCardLabel.text = card.html() if card is not None else ""
        self._organs.show(card.organs if card is not None else (), self._parameterNode.skippedOrgans)
        self._modality.show(self._parameterNode, card)
        inSequence = browserOf(self._parameterNode.inputVolume) is not None
        self.ui.framesComboBox.visible = inSequence
        self.ui.framesLabel.visible = inSequence
        segmentationNode = self._parameterNode.outputSegmentation
        self._results.show(segmentationNode)
        self.ui.show3DButton.setSegmentationNode(segmentationNode)

    def _card(self) -> PriorCard | None:
        return next((card for card in self._cards if card.name == self._parameterNode.prior), None)

    def _onOrgansChanged(self, skipped: list[str]) -> None:
        if self._parameterNode is not None:
            self._parameterNode.skippedOrgans = skipped

    def _onPriorChanged(self, row: int) -> None:
        if self._parameterNode is not None and not self._updating and 0 <= row < len(self._cards):
            self._parameterNode.prior = self._cards[row].name

    def _readPriors(self) -> None:
        self._cards = priorCards()
        self._updating = True
        self.ui.priorComboBox.clear()
        for card in self._cards:
            self.ui.priorComboBox.addItem(card.title)
        self._updating = False
        self._train.setPriors(self._cards)

    def _onModelsChanged(self) -> None:
        self._readPriors()
        self._onParametersModified()

    def _onTrained(self, name: str) -> None:
        """A new prior is there; it is the one to segment with."""
        self._readPriors()
        self.logic.getParameterNode().prior = name
        self._onParametersModified()


class DiffuSAMSegmentLogic(ScriptedLoadableModuleLogic, SegmentationLogic, TrainingLogic):
    """Segments volumes and trains priors; for the panel and for scripts.

    From a script, without the panel::

        segmentationNode = DiffuSAMSegmentLogic().segment(volumeNode, organs=["liver"], wait=True)
        prior = DiffuSAMSegmentLogic().train([(volumeNode, segmentationNode)], name="my-organs", minutes=30)
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.process = WorkerProcess(self._onEvent, self._onLogLine)
        self.onLog = lambda line: None
        # Called when a segmentation has begun or ended, a script's too.
        self.onRunning = lambda: None

    def getParameterNode(self) -> DiffuSAMSegmentParameterNode:
        return DiffuSAMSegmentParameterNode(super().getParameterNode())

    def close(self) -> None:
        """Ends a run, a training and the warm process."""
        self.stop()
        self.stopTraining()
        self.process.end()
        self._trainingRun = None

    def _onEvent(self, event: dict) -> None:
        if self.training:
            self.takeTrainingEvent(event)
        else:
            self.takeSegmentationEvent(event)

    def _onLogLine(self, line: str) -> None:
        logging.debug("DiffuSAM: %s", line)
        self.onLog(line)
