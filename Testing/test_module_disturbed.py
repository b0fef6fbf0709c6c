"""What the user does with the segmentation while it is being made spoils neither the result nor what was there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from module_host import PATIENCE_S, Installed, add_sequence, held_at, segment_names, small_volume

MASK = np.zeros((10, 96, 96), np.uint8)
MASK[4:6, 40:50, 40:50] = 1


def segment_of(segmentation: Any, name: str) -> Any:
    content = segmentation.GetSegmentation()
    return content.GetSegment(content.GetSegmentIdBySegmentName(name))


def mask_of(segmentation: Any, name: str, volume: Any) -> np.ndarray:
    import slicer

    identifier = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    mask: np.ndarray = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume)
    return mask


def own_segmentation(volume: Any) -> Any:
    """With one segment that the user drew."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "own")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    add_drawn(node, volume)
    return node


def add_drawn(segmentation: Any, volume: Any, name: str = "mine") -> None:
    import slicer

    identifier = segmentation.GetSegmentation().AddEmptySegment("", name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(MASK, segmentation, identifier, volume)


def begin(
    installed: Installed, logic: Any, volume: Any, segmentation: Any, disturb: Callable[[], Any]
) -> list[str]:
    """Starts a run for the liver and disturbs it in the middle; the list tells how it ended."""
    from DiffuSAMSegmentLib.segmentation_run import RunListener

    stages: list[str] = []
    told: list[str] = []

    def take(stage: str, done: int, total: int) -> None:
        if stage == "propagate" and stage not in stages:
            disturb()
        stages.append(stage)

    listener = RunListener(take, lambda node: told.append("finished"), lambda error: told.append(str(error)))
    logic.segment(
        volume,
        organs=["liver"],
        device="cpu",
        segmentationNode=segmentation,
        wait=False,
        listener=listener,
    )
    with held_at(installed, logic, lambda: "propagate" in stages or told):
        return told


def wait(installed: Installed, logic: Any, told: list[str]) -> None:
    installed.host.wait_until(lambda: not logic.running, PATIENCE_S)
    assert told == ["finished"]


def frames(browser: Any, segmentation: Any, volume: Any) -> list[tuple[list[str], np.ndarray]]:
    found = []
    for number in (0, 1):
        browser.SetSelectedItemNumber(number)
        found.append((segment_names(segmentation), mask_of(segmentation, "liver", volume)))
    browser.SetSelectedItemNumber(0)
    return found


@pytest.mark.parametrize("end", ["finish", "stop", "keep"])
def test_another_frame_that_is_shown_meanwhile_stays_as_it_was(
    installed: Installed, logic: Any, end: str
) -> None:
    browser, volume = add_sequence()
    segmentation = logic.segment(volume, organs=["liver"], device="cpu", allFrames=True)
    before = frames(browser, segmentation, volume)
    told = begin(installed, logic, volume, segmentation, lambda: browser.SetSelectedItemNumber(1))
    if end == "finish":
        wait(installed, logic, told)
    else:
        labels = lambda: logic._run._labels  # noqa: E731
        with held_at(installed, logic, lambda: told or logic._run._boxes or labels() is not None):
            installed.host.wait_until(lambda: told or (labels() is not None and labels().any()), PATIENCE_S)
        assert not told
        logic.stop(keepPartial=end == "keep")
    assert browser.GetSelectedItemNumber() == 0
    after = frames(browser, segmentation, volume)
    assert [names for names, _mask in after] == [
        ["liver", "liver (incomplete)"] if end == "keep" else ["liver"],
        ["liver"],
    ]
    for (_names, mask), (_before, expected) in zip(after, before, strict=True):
        np.testing.assert_array_equal(mask, expected)


def paint(segmentation: Any, volume: Any) -> None:
    """As the Segment Editor does it: the stroke is put in, and the layer is cropped to what is in it."""
    import slicer

    logic = slicer.vtkSlicerSegmentationsModuleLogic
    content = segmentation.GetSegmentation()
    liver = content.GetSegmentIdBySegmentName("liver")
    stroke = slicer.vtkOrientedImageData()
    logic.GetSegmentBinaryLabelmapRepresentation(
        segmentation, content.GetSegmentIdBySegmentName("mine"), stroke
    )
    logic.SetBinaryLabelmapToSegment(stroke, segmentation, liver, logic.MODE_REPLACE)


def delete(segmentation: Any, _volume: Any) -> None:
    content = segmentation.GetSegmentation()
    content.RemoveSegment(content.GetSegmentIdBySegmentName("liver"))


def draw_beside(segmentation: Any, volume: Any) -> None:
    """A new segment is put into the layer that is there, if it has the same grid."""
    add_drawn(segmentation, volume, "new")


@pytest.mark.parametrize("edit", [paint, delete, draw_beside])
def test_an_edit_meanwhile_takes_nothing_from_the_result(
    installed: Installed, logic: Any, edit: Callable[[Any, Any], None]
) -> None:
    volume = small_volume()
    expected = mask_of(logic.segment(volume, organs=["liver"], device="cpu"), "liver", volume)
    segmentation = own_segmentation(volume)
    told = begin(installed, logic, volume, segmentation, lambda: edit(segmentation, volume))
    wait(installed, logic, told)
    np.testing.assert_array_equal(mask_of(segmentation, "liver", volume), expected)
    np.testing.assert_array_equal(mask_of(segmentation, "mine", volume), MASK)
    if edit is draw_beside:
        np.testing.assert_array_equal(mask_of(segmentation, "new", volume), MASK)
    assert segment_of(segmentation, "liver").GetName() == "liver"


def test_an_undo_meanwhile_takes_nothing_from_the_result(installed: Installed, logic: Any) -> None:
    import slicer

    volume = small_volume()
    expected = mask_of(logic.segment(volume, organs=["liver"], device="cpu"), "liver", volume)
    segmentation = own_segmentation(volume)
    history = slicer.vtkSegmentationHistory()
    history.SetSegmentation(segmentation.GetSegmentation())
    history.SaveState()

    def undo() -> None:
        history.RestorePreviousState()
        assert segment_names(segmentation) == ["mine"]

    told = begin(installed, logic, volume, segmentation, undo)
    wait(installed, logic, told)
    assert segment_names(segmentation) == ["mine", "liver"]
    np.testing.assert_array_equal(mask_of(segmentation, "liver", volume), expected)


def test_stop_takes_nothing_that_was_drawn_meanwhile(installed: Installed, logic: Any) -> None:
    volume = small_volume()
    segmentation = own_segmentation(volume)
    told = begin(installed, logic, volume, segmentation, lambda: draw_beside(segmentation, volume))
    assert not told
    logic.stop()
    assert segment_names(segmentation) == ["mine", "new"]
    np.testing.assert_array_equal(mask_of(segmentation, "new", volume), MASK)
