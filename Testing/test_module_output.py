"""Which segmentation a run in the test host writes into, and that nothing found earlier is lost by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from module_host import (
    Installed,
    click_and_wait,
    labels_of,
    segment_names,
    small_volume,
)


def reference_volume(segmentation: Any) -> Any:
    return segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())


def test_another_input_gets_an_output_of_its_own(installed: Installed, warm_panel: Any) -> None:
    first, second = small_volume("first"), small_volume("second", seed=1)
    warm_panel._parameterNode.inputVolume = first
    organs = click_and_wait(installed, warm_panel)
    found = labels_of(organs, first)
    warm_panel._parameterNode.inputVolume = second
    assert warm_panel.ui.outputSelector.currentNode() is None
    assert warm_panel.ui.resultTable.rowCount == 0
    others = click_and_wait(installed, warm_panel)
    assert others is not organs
    assert others.GetName() == "second organs"
    assert reference_volume(others) is second
    np.testing.assert_array_equal(labels_of(organs, first), found)
    # Back at the first volume, what was found in it is shown, and would be replaced.
    warm_panel._parameterNode.inputVolume = first
    assert warm_panel.ui.outputSelector.currentNode() is organs
    assert warm_panel.ui.resultTable.rowCount > 0


def test_organs_of_two_volumes_in_one_segmentation_stand_side_by_side(warm_logic: Any) -> None:
    import slicer

    first, second = small_volume("first"), small_volume("second", seed=1)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty")
    warm_logic.segment(first, organs=["liver"], device="cpu", segmentationNode=segmentation)
    assert reference_volume(segmentation) is first
    before = labels_of(segmentation, first)
    for _again in range(2):
        warm_logic.segment(second, organs=["liver"], device="cpu", segmentationNode=segmentation)
        assert segment_names(segmentation) == ["liver", "liver"]
        np.testing.assert_array_equal(labels_of(segmentation, first), before)


def test_the_table_follows_edits_and_counts_organs_of_earlier_runs(
    installed: Installed, warm_panel: Any
) -> None:
    import slicer

    def table() -> dict[str, tuple[str, str]]:
        items = warm_panel.ui.resultTable
        texts = [[items.item(row, column).text() for column in range(3)] for row in range(items.rowCount)]
        return {name: (volume, confidence) for name, volume, confidence in texts}

    def choose(*organs: str) -> None:
        card = warm_panel._card()
        warm_panel._parameterNode.skippedOrgans = [name for name in card.organs if name not in organs]

    volume = small_volume()
    warm_panel._parameterNode.inputVolume = volume
    choose("liver", "spleen")
    organs = click_and_wait(installed, warm_panel)
    first = table()
    assert list(first) == ["spleen", "liver"]
    assert all(confidence.endswith("%") for _volume, confidence in first.values())
    choose("spleen")
    click_and_wait(installed, warm_panel)
    assert table()["liver"] == (first["liver"][0], "")
    assert table()["spleen"][1]
    segmentation = organs.GetSegmentation()
    identifier = segmentation.GetSegmentIdBySegmentName("spleen")
    box = np.zeros_like(slicer.util.arrayFromVolume(volume), np.uint8)
    box[2:4, 10:20, 10:20] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(box, organs, identifier, volume)
    installed.host.leave("DiffuSAMSegment")
    installed.host.enter("DiffuSAMSegment")
    millilitres = 200 * np.prod(volume.GetSpacing()) / 1000
    assert float(table()["spleen"][0]) == pytest.approx(millilitres, rel=0.01)
    assert table()["spleen"][1] == ""
    segmentation.RemoveSegment(segmentation.GetSegmentIdBySegmentName("liver"))
    warm_panel._onParametersModified()
    assert list(table()) == ["spleen"]


def test_a_segmentation_of_the_users_own_stays_chosen(warm_panel: Any) -> None:
    import slicer

    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    warm_panel._parameterNode.inputVolume = small_volume("first")
    warm_panel._parameterNode.outputSegmentation = own
    warm_panel._parameterNode.inputVolume = small_volume("second", seed=1)
    assert warm_panel._parameterNode.outputSegmentation is own


def test_a_damaged_report_in_a_scene_is_passed_over(warm_panel: Any) -> None:
    import slicer

    damaged = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "damaged")
    damaged.SetAttribute("DiffuSAM.Report", "{")
    warm_panel._parameterNode.inputVolume = small_volume()
    warm_panel._parameterNode.outputSegmentation = damaged
    assert warm_panel.ui.resultTable.rowCount == 0
    assert warm_panel.ui.segmentButton.enabled
