"""What the module checks of itself within the application: Reload and Test, the module Self Tests, CTest."""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable
from pathlib import Path

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from .installer import missingPackages
from .parameter_node import Device
from .sample_data import addProceduralAbdomen
from .segmentation_output import reportOf
from .segmentation_run import RunListener


class DiffuSAMSegmentTest(ScriptedLoadableModuleTest):
    """The main path, in the application; each test stands alone."""

    def setUp(self) -> None:
        # Not at the top: the module's file, which has the logic, imports this one.
        from DiffuSAMSegment import DiffuSAMSegmentLogic

        slicer.mrmlScene.Clear()
        resources = Path(__file__).resolve().parent.parent / "Resources"
        missing = missingPackages(resources / "requirements.txt")
        if missing:
            raise unittest.SkipTest(f"These Python packages are missing: {', '.join(missing)}")
        self.logic = DiffuSAMSegmentLogic()

    def tearDown(self) -> None:
        self.logic.close()

    def runTest(self) -> None:
        """What Reload and Test and the module Self Tests call; unittest calls the tests one by one."""
        tests = (
            self.test_organs_are_found,
            self.test_the_button_of_the_panel,
            self.test_stop_leaves_the_scene_as_it_was,
        )
        for test in tests:
            try:
                self.setUp()
            except unittest.SkipTest as reason:
                # Outside of unittest nobody catches it, and it would look like a failure.
                self.delayDisplay(str(reason))
                return
            try:
                test()
            finally:
                self.tearDown()

    def waitWhile(self, condition: Callable[[], bool]) -> None:
        while condition():
            slicer.app.processEvents()
            # Without a pause this loop would take a core from the child process.
            time.sleep(0.01)

    def test_organs_are_found(self) -> None:
        """The procedural abdomen, compared with its truth; then another organ without a second encoding."""
        volumeNode, truth = addProceduralAbdomen()
        segmentationNode = self.logic.segment(volumeNode, device="cpu")
        names = {1: "spleen", 2: "right kidney", 3: "left kidney", 4: "liver"}
        segmentation = segmentationNode.GetSegmentation()
        scores = []
        for value, name in names.items():
            identifier = segmentation.GetSegmentIdBySegmentName(name)
            self.assertTrue(identifier, name)
            found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, identifier, volumeNode) > 0
            scores.append(2 * (found & (truth == value)).sum() / (found.sum() + (truth == value).sum()))
        self.assertGreater(sum(scores) / len(scores), 0.9, scores)
        again = self.logic.segment(
            volumeNode, organs=["liver"], device="cpu", segmentationNode=segmentationNode
        )
        self.assertEqual(reportOf(again)["timings"]["encode"], 0)
        self.assertEqual(segmentation.GetNumberOfSegments(), len(names))

    def test_the_button_of_the_panel(self) -> None:
        """Segment organs, clicked as a user does."""
        volumeNode, _truth = addProceduralAbdomen()
        panel = slicer.modules.diffusamsegment.widgetRepresentation().self()
        # The scene was closed while another module may have been open, and the panel then waits to be entered.
        panel.enter()
        panel._parameterNode.inputVolume = volumeNode
        panel._parameterNode.device = Device.CPU
        panel.ui.segmentButton.click()
        self.assertTrue(panel.logic.running, panel.ui.statusLabel.text)
        self.waitWhile(lambda: panel.logic.running)
        segmentationNode = panel.ui.outputSelector.currentNode()
        self.assertIsNotNone(segmentationNode, panel.ui.statusLabel.text)
        self.assertEqual(segmentationNode.GetSegmentation().GetNumberOfSegments(), 4)
        self.assertEqual(panel.ui.resultTable.rowCount, 4)
        self.assertTrue(panel.ui.segmentButton.enabled)
        panel.logic.close()

    def test_stop_leaves_the_scene_as_it_was(self) -> None:
        """Stop in the middle of a run."""
        volumeNode, _truth = addProceduralAbdomen()
        before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
        stages: list[str] = []
        self.logic.segment(
            volumeNode,
            device="cpu",
            wait=False,
            listener=RunListener(lambda stage, *_counts: stages.append(stage)),
        )
        self.waitWhile(lambda: "encode" not in stages and self.logic.running)
        self.assertTrue(self.logic.running)
        self.logic.stop()
        self.assertFalse(self.logic.running)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), before)
