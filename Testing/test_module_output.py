"""Which segmentation a run in the test host writes into, and that nothing found earlier is lost by it."""

from __future__ import annotations

from typing import Any

import module_host
import numpy as np
import pytest
from module_host import (
    Installed,
    click_and_wait,
    labels_of,
    scene_nodes,
    segment_names,
    small_volume,
)

pytest_plugins = ["slicer_host.fixtures"]
pytestmark = module_host.pytestmark

installed = module_host.installed
panel = module_host.panel
logic = module_host.logic


def reference_volume(segmentation: Any) -> Any:
    return segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())


def test_another_input_gets_an_output_of_its_own(installed: Installed, panel: Any) -> None:
    first, second = small_volume("first"), small_volume("second", seed=1)
    panel._parameterNode.inputVolume = first
    organs = click_and_wait(installed, panel)
    found = labels_of(organs, first)
    panel._parameterNode.inputVolume = second
    assert panel.ui.outputSelector.currentNode() is None
    assert panel.ui.resultTable.rowCount == 0
    others = click_and_wait(installed, panel)
    assert others is not organs
    assert others.GetName() == "second organs"
    assert reference_volume(others) is second
    np.testing.assert_array_equal(labels_of(organs, first), found)
    # Back at the first volume, what was found in it is shown, and would be replaced.
    panel._parameterNode.inputVolume = first
    assert panel.ui.outputSelector.currentNode() is organs
    assert panel.ui.resultTable.rowCount > 0


def test_organs_of_two_volumes_in_one_segmentation_stand_side_by_side(logic: Any) -> None:
    first, second = small_volume("first"), small_volume("second", seed=1)
    segmentation = logic.segment(first, organs=["liver"], device="cpu")
    before = labels_of(segmentation, first)
    logic.segment(second, organs=["liver"], device="cpu", segmentationNode=segmentation)
    assert segment_names(segmentation) == ["liver", "liver"]
    np.testing.assert_array_equal(labels_of(segmentation, first), before)
    logic.segment(second, organs=["liver"], device="cpu", segmentationNode=segmentation)
    assert segment_names(segmentation) == ["liver", "liver"]


def test_a_segmentation_of_the_users_own_stays_chosen(panel: Any) -> None:
    import slicer

    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    panel._parameterNode.inputVolume = small_volume("first")
    panel._parameterNode.outputSegmentation = own
    panel._parameterNode.inputVolume = small_volume("second", seed=1)
    assert panel._parameterNode.outputSegmentation is own


def test_an_empty_segmentation_gets_the_geometry_of_the_volume(logic: Any) -> None:
    import slicer

    volume = small_volume()
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty")
    logic.segment(volume, organs=["liver"], device="cpu", segmentationNode=empty)
    assert reference_volume(empty) is volume


def test_a_damaged_report_in_a_scene_is_passed_over(panel: Any) -> None:
    import slicer

    damaged = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "damaged")
    damaged.SetAttribute("DiffuSAM.Report", "{")
    panel._parameterNode.inputVolume = small_volume()
    panel._parameterNode.outputSegmentation = damaged
    assert panel.ui.resultTable.rowCount == 0
    assert panel.ui.segmentButton.enabled


@pytest.mark.parametrize("waiting", [True, False])
def test_an_error_at_the_very_end_is_a_sentence(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch, waiting: bool
) -> None:
    """The final import may need more memory than there is."""
    from DiffuSAMSegmentLib.segmentation_output import SegmentationOutput

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(SegmentationOutput, "finish", fail)
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    if waiting:
        text = module_host.refused(lambda: panel.logic.segment(panel._parameterNode.inputVolume))
    else:
        click_and_wait(installed, panel)
        text = panel.ui.statusLabel.text
        assert panel.ui.segmentButton.text == "Segment organs"
        assert panel.ui.segmentButton.enabled
    assert "too little memory" in text
    assert scene_nodes() == before


def test_an_error_while_slices_appear_ends_the_run(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from DiffuSAMSegmentLib.segmentation_output import SegmentationOutput

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(SegmentationOutput, "update", fail)
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    click_and_wait(installed, panel)
    assert "too little memory" in panel.ui.statusLabel.text
    assert installed.processes() == []
    assert scene_nodes() == before
