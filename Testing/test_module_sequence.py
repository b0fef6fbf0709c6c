"""Sequences in the test host: every frame segmented, edits kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from module_host import PATIENCE_S, Installed, add_sequence, click_and_wait, held_at, report_of, segment_names


def show_frame(browser: Any, number: int) -> None:
    import slicer

    browser.SetSelectedItemNumber(number)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)


def livers(browser: Any, segmentation: Any, volume: Any) -> list[np.ndarray]:
    """Of each frame; the first one is shown afterwards."""
    import slicer

    found = []
    for number in (0, 1):
        show_frame(browser, number)
        identifier = segmentation.GetSegmentation().GetSegmentIdBySegmentName("liver")
        found.append(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume))
    show_frame(browser, 0)
    return found


def test_every_frame_of_a_sequence(installed: Installed, warm_panel: Any) -> None:
    browser, volume = add_sequence()
    warm_panel._parameterNode.inputVolume = volume
    assert warm_panel.ui.framesComboBox.isVisibleTo(warm_panel.ui.inputsCollapsibleButton)
    warm_panel.ui.framesComboBox.currentIndex = 1
    segmentation = click_and_wait(installed, warm_panel)
    assert "found" in warm_panel.ui.statusLabel.text
    assert browser.GetSelectedItemNumber() == 0
    sequence = browser.GetSequenceNode(segmentation)
    assert sequence.GetNumberOfDataNodes() == 2
    frames = []
    for number in range(2):
        show_frame(browser, number)
        frames.append(report_of(segmentation)["inputs"][0]["sha256"])
    assert len(set(frames)) == 2


def test_an_edit_of_a_frame_outlives_another_frame(warm_logic: Any) -> None:
    import slicer

    browser, volume = add_sequence()
    segmentation = warm_logic.segment(volume, organs=["liver"], device="cpu", allFrames=True)
    first, second = livers(browser, segmentation, volume)
    edited = np.zeros_like(first)
    edited[4:6, 30:50, 30:60] = 1
    identifier = segmentation.GetSegmentation().GetSegmentIdBySegmentName("liver")
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, segmentation, identifier, volume)
    kept = livers(browser, segmentation, volume)
    np.testing.assert_array_equal(kept[0], edited)
    np.testing.assert_array_equal(kept[1], second)
    assert (first != edited).any()


def test_all_frames_have_no_volume_of_the_confidence(warm_logic: Any) -> None:
    _browser, volume = add_sequence()
    segmentation = warm_logic.segment(volume, organs=["liver"], device="cpu", allFrames=True, confidence=True)
    assert segmentation.GetNodeReference("DiffuSAM.Confidence") is None


def test_a_second_run_of_all_frames_makes_a_segmentation_of_its_own(warm_logic: Any) -> None:
    browser, volume = add_sequence()
    segmentation = warm_logic.segment(volume, organs=["liver"], device="cpu", allFrames=True)
    before = livers(browser, segmentation, volume)
    again = warm_logic.segment(
        volume, organs=["spleen"], device="cpu", allFrames=True, segmentationNode=segmentation
    )
    assert again is not segmentation
    assert browser.GetSequenceNode(again) is not browser.GetSequenceNode(segmentation)
    np.testing.assert_array_equal(livers(browser, segmentation, volume), before)
    assert segment_names(again) == ["spleen"]


def test_a_second_run_of_one_frame_changes_that_frame_only(warm_logic: Any) -> None:
    browser, volume = add_sequence()
    segmentation = warm_logic.segment(volume, organs=["liver"], device="cpu", allFrames=True)
    before = livers(browser, segmentation, volume)
    again = warm_logic.segment(volume, organs=["spleen"], device="cpu", segmentationNode=segmentation)
    assert again is segmentation
    np.testing.assert_array_equal(livers(browser, segmentation, volume), before)
    show_frame(browser, 0)
    assert segment_names(segmentation) == ["liver", "spleen"]
    show_frame(browser, 1)
    assert segment_names(segmentation) == ["liver"]


def run_until_the_second_frame(installed: Installed, panel: Any) -> tuple[Any, Any]:
    browser, volume = add_sequence()
    panel._parameterNode.inputVolume = volume
    panel.ui.framesComboBox.currentIndex = 1
    panel.ui.segmentButton.click()
    with held_at(installed, panel.logic, lambda: panel._run.frame[0] == 1 or not panel.logic.running):
        return browser, volume


def test_stopped_frames_have_no_organs_of_others(installed: Installed, warm_panel: Any) -> None:
    browser, _volume = run_until_the_second_frame(installed, warm_panel)
    warm_panel.ui.keepPartialCheckBox.checked = True
    warm_panel.ui.segmentButton.click()
    assert "kept" in warm_panel.ui.statusLabel.text
    segmentation = warm_panel._parameterNode.outputSegmentation
    show_frame(browser, 0)
    assert segment_names(segmentation)
    show_frame(browser, 1)
    assert segment_names(segmentation) == []
    assert segmentation.GetAttribute("DiffuSAM.Report") is None


def test_a_sequence_deleted_while_running_ends_the_run(installed: Installed, warm_panel: Any) -> None:
    import slicer

    browser, _volume = run_until_the_second_frame(installed, warm_panel)
    sequences = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSequenceNode")
    slicer.mrmlScene.RemoveNode(browser)
    installed.host.wait_until(lambda: not warm_panel.logic.running, PATIENCE_S)
    assert "deleted" in warm_panel.ui.statusLabel.text
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == sequences - 1
