"""A small scripted module, written as Slicer's template asks, to test the test host with."""

from __future__ import annotations

import enum
import pathlib
import shutil
from typing import Annotated

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class ToySegment(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Toy Segment")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.contributors = ["DiffuSAM Segment contributors"]
        self.parent.helpText = _("Thresholds a volume.")
        slicer.app.connect("startupCompleted()", register_sample_data)


def make_sample(source):
    import numpy as np

    array = np.zeros((8, 9, 10), dtype=np.float32)
    array[2:6, 3:7, 2:8] = 100.0
    return slicer.util.addVolumeFromArray(array, name="ToyBlock")


def register_sample_data():
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="Toy", sampleName="ToyBlock", customDownloader=make_sample
    )


class Quality(enum.Enum):
    FAST = "fast"
    BEST = "best"

    def label(self):
        return self.value.capitalize()


@parameterNodeWrapper
class ToySegmentParameterNode:
    inputVolume: vtkMRMLScalarVolumeNode
    outputSegmentation: vtkMRMLSegmentationNode
    threshold: Annotated[float, WithinRange(-100.0, 200.0)] = 50.0
    repeats: Annotated[int, WithinRange(1, 5)] = 2
    invert: bool = False
    label: str = "block"
    quality: Quality = Quality.BEST
    device: Annotated[str, Choice(["auto", "cpu"])] = "auto"
    modelFile: pathlib.Path
    organs: list[str]


class ToySegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._guiTag = None
        self.ticks = 0

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/ToySegment.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = ToySegmentLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.timer = qt.QTimer()
        self.timer.setInterval(10)
        self.timer.connect("timeout()", self.onTimer)
        self.initializeParameterNode()

    def cleanup(self):
        self.timer.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
        self._parameterNode = parameterNode
        if self._parameterNode:
            named = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
            widgets = {name: widget for name, widget in named.items() if name}
            self._guiTag = self._parameterNode.connectParametersToGui(widgets)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
            self.checkCanApply()

    def checkCanApply(self, caller=None, event=None):
        ready = self._parameterNode is not None and self._parameterNode.inputVolume is not None
        self.ui.applyButton.enabled = ready
        self.ui.applyButton.toolTip = _("Segment the volume.") if ready else _("Choose an input volume.")

    def onApplyButton(self):
        with slicer.util.tryWithErrorDisplay(_("Failed to segment."), waitCursor=True):
            if self._parameterNode.outputSegmentation is None:
                self._parameterNode.outputSegmentation = slicer.mrmlScene.AddNewNodeByClass(
                    "vtkMRMLSegmentationNode"
                )
            self.logic.segment(
                self._parameterNode.inputVolume,
                self._parameterNode.outputSegmentation,
                self._parameterNode.threshold,
                name=self._parameterNode.label,
            )
            self.ui.segmentsTable.setSegmentationNode(self._parameterNode.outputSegmentation)
            self.ui.show3DButton.setSegmentationNode(self._parameterNode.outputSegmentation)

    def onTimer(self):
        self.ticks += 1
        if self.ticks == 3:
            self.timer.stop()


class ToySegmentLogic(ScriptedLoadableModuleLogic):
    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.process = None
        self.lines = []
        self.exitCode = None

    def getParameterNode(self):
        return ToySegmentParameterNode(super().getParameterNode())

    def segment(self, volume, segmentation, threshold, *, name="block"):
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segment = segmentation.GetSegmentation().AddEmptySegment(name, name)
        mask = (slicer.util.arrayFromVolume(volume) > threshold).astype("uint8")
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment, volume)
        return segment

    def startProcess(self, code):
        self.process = qt.QProcess()
        self.process.setProcessChannelMode(qt.QProcess.MergedChannels)
        self.process.connect("readyReadStandardOutput()", self.onOutput)
        self.process.connect("finished(int,QProcess::ExitStatus)", self.onFinished)
        self.process.start(shutil.which("PythonSlicer"), ["-u", "-c", code])

    def onOutput(self):
        self.lines += bytes(self.process.readAllStandardOutput().data()).decode("ascii").split()

    def onFinished(self, exitCode, exitStatus):
        self.exitCode = exitCode


class ToySegmentTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        self.setUp()
        self.test_block()

    def test_block(self):
        self.delayDisplay("Segment the block")
        volume = make_sample(None)
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        segment = ToySegmentLogic().segment(volume, segmentation, 50.0)
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume)
        self.assertEqual(int(mask.sum()), 4 * 4 * 6)
