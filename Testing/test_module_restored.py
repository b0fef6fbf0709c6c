"""What Stop brings back in the test host: an existing segmentation, and every frame of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
from module_host import (
    Installed,
    add_sequence,
    held_at,
    labels_of,
    report_of,
    scene_nodes,
    segment_names,
    small_volume,
    wait_for_stage,
)


def test_stop_brings_an_existing_segmentation_back(installed: Installed, panel: Any) -> None:
    volume = small_volume()
    segmentation = panel.logic.segment(volume, device="cpu")
    names, found = segment_names(segmentation), labels_of(segmentation, volume)
    segmentation.CreateClosedSurfaceRepresentation()
    panel._parameterNode.inputVolume = volume
    panel._parameterNode.outputSegmentation = segmentation
    panel.ui.segmentButton.click()
    wait_for_stage(installed, panel, "propagate")
    panel.ui.segmentButton.click()
    assert segment_names(segmentation) == names
    np.testing.assert_array_equal(labels_of(segmentation, volume), found)
    display = segmentation.GetDisplayNode()
    content = segmentation.GetSegmentation()
    assert all(display.GetSegmentVisibility(content.GetNthSegmentID(n)) for n in range(len(names)))
    assert content.ContainsRepresentation("Closed surface") or not names


def test_stop_in_a_sequence_leaves_nothing(installed: Installed, panel: Any) -> None:
    browser, volume = add_sequence()
    panel._parameterNode.inputVolume = volume
    panel.ui.framesComboBox.currentIndex = 1
    before = scene_nodes()
    panel.ui.segmentButton.click()
    with held_at(installed, panel.logic, lambda: panel._run.frame[0] == 1 or not panel.logic.running):
        assert panel.logic.running
    panel.ui.segmentButton.click()
    installed.wait_for_processes()
    assert scene_nodes() == before
    assert browser.GetSelectedItemNumber() == 0


def test_stop_in_a_sequence_brings_an_existing_segmentation_back(installed: Installed, panel: Any) -> None:
    import slicer

    _browser, volume = add_sequence()
    segmentation = panel.logic.segment(volume, organs=["liver"], device="cpu")
    mask = np.zeros((10, 96, 96), np.uint8)
    mask[4:6, 30:50, 30:60] = 1
    content = segmentation.GetSegmentation()
    tumour = content.AddEmptySegment("tumour", "tumour")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, tumour, volume)
    segmentation.GetDisplayNode().SetSegmentVisibility(tumour, False)
    report = report_of(segmentation)
    liver = content.GetSegmentIdBySegmentName("liver")
    before = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, liver, volume)
    panel._parameterNode.inputVolume = volume
    panel._parameterNode.outputSegmentation = segmentation
    panel.ui.framesComboBox.currentIndex = 1
    panel.ui.segmentButton.click()
    with held_at(installed, panel.logic, lambda: panel._run.frame[0] == 1 or not panel.logic.running):
        assert panel.logic.running
    panel.ui.segmentButton.click()
    assert segment_names(segmentation) == ["liver", "tumour"]
    assert report_of(segmentation) == report
    for identifier, expected in ((liver, before), (tumour, mask)):
        found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume)
        np.testing.assert_array_equal(found, expected)
    display = segmentation.GetDisplayNode()
    assert display.GetSegmentVisibility(liver)
    assert not display.GetSegmentVisibility(tumour)
