"""Results in the test host: existing segmentations, volumes that lie anyhow, scripts, the module's self-test."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import module_host
import numpy as np
import pytest
from module_host import (
    NAME,
    PATIENCE_S,
    ROOT,
    Installed,
    add_volume,
    labels_of,
    refused,
    report_of,
    rotation,
    segment_names,
    small_volume,
    transform_node,
    wait_for_stage,
)

from DiffuSAMLib.procedural import make_abdomen

pytest_plugins = ["slicer_host.fixtures"]
pytestmark = module_host.pytestmark

installed = module_host.installed
panel = module_host.panel
logic = module_host.logic


def test_an_existing_segmentation_keeps_its_other_segments(logic: Any) -> None:
    import slicer

    volume = small_volume()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    mask = np.zeros((10, 96, 96), np.uint8)
    mask[4:6, 30:50, 30:60] = 1
    for name in ("tumour", "liver"):
        identifier = segmentation.GetSegmentation().AddEmptySegment(name, name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)
    returned = logic.segment(volume, device="cpu", segmentationNode=segmentation)
    assert returned is segmentation
    first = segment_names(segmentation)
    assert first[:2] == ["tumour", "liver"]
    logic.segment(volume, device="cpu", segmentationNode=segmentation)
    assert segment_names(segmentation) == first
    for identifier in ("tumour", "liver"):
        kept = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume)
        np.testing.assert_array_equal(kept, mask)


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


def test_organs_do_not_depend_on_how_the_volume_lies(logic: Any) -> None:
    """Transformed, oblique and left-handed volumes give the labels of the plain one, voxel by voxel."""
    import slicer

    patient = make_abdomen(3, shape=(10, 96, 96), spacing=(3.5, 3.5, 20.0)).volume
    array, matrix = patient.array, patient.geometry.matrix
    plain = add_volume(array, matrix)
    expected = labels_of(logic.segment(plain, device="cpu"), plain)

    moved = add_volume(array, matrix)
    moved.SetAndObserveTransformNodeID(transform_node(rotation(25)).GetID())
    segmentation = logic.segment(moved, device="cpu")
    assert segmentation.GetTransformNodeID() == moved.GetTransformNodeID()
    np.testing.assert_array_equal(labels_of(segmentation, moved), expected)

    elsewhere = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    elsewhere.SetAndObserveTransformNodeID(transform_node(rotation(-40)).GetID())
    logic.segment(moved, device="cpu", segmentationNode=elsewhere)
    # Resampled to the volume through both transforms: single voxels at an edge may go.
    changed = labels_of(elsewhere, moved) != expected
    assert changed.sum() <= 0.02 * (expected > 0).sum()

    oblique = add_volume(array, rotation(12) @ matrix)
    np.testing.assert_array_equal(labels_of(logic.segment(oblique, device="cpu"), oblique), expected)

    for axis in range(3):
        turned = np.array(matrix)
        column = 2 - axis
        turned[:3, 3] += turned[:3, column] * (array.shape[axis] - 1)
        turned[:3, column] *= -1
        left_handed = add_volume(np.ascontiguousarray(np.flip(array, axis)), turned)
        found = labels_of(logic.segment(left_handed, device="cpu"), left_handed)
        np.testing.assert_array_equal(np.flip(found, axis), expected)


# Scripts.


def test_a_script_is_told_what_cannot_be(logic: Any) -> None:
    import slicer

    volume = small_volume()
    assert "empty" in refused(lambda: logic.segment(None))
    assert "pancreas" in refused(lambda: logic.segment(volume, organs=["pancreas"]))
    assert "No organ" in refused(lambda: logic.segment(volume, organs=[]))
    assert "nothing" in refused(lambda: logic.segment(volume, prior="nothing"))
    colour = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colour")
    slicer.util.updateVolumeFromArray(colour, np.zeros((4, 4, 4, 3), np.uint8))
    assert "colour" in refused(lambda: logic.segment(colour, modality="CT"))
    assert "device" in refused(lambda: logic.segment(volume, device="abacus"))
    flat = small_volume("flat")
    slicer.util.updateVolumeFromArray(flat, np.zeros((10, 96, 96), np.int16))
    assert "nothing" in refused(lambda: logic.segment(flat))
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_script_may_go_on_while_organs_appear(installed: Installed, logic: Any) -> None:
    volume = small_volume()
    segmentation = logic.segment(volume, organs=["Liver"], device="cpu", wait=False)
    assert logic.running
    assert "being segmented" in refused(lambda: logic.segment(volume))
    installed.host.wait_until(lambda: not logic.running, PATIENCE_S)
    assert [organ["name"] for organ in report_of(segmentation)["organs"]] == ["liver"]


def test_the_batch_example_of_the_readme_works(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import slicer

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = next(text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "slicer" in text)
    images, results = tmp_path / "images", tmp_path / "results"
    images.mkdir()
    results.mkdir()
    assert slicer.util.saveNode(small_volume(), str(images / "one.nii.gz"))
    slicer.mrmlScene.Clear()
    codes: list[int] = []
    monkeypatch.setattr(slicer.util, "exit", codes.append)
    monkeypatch.setattr(sys, "argv", ["batch.py", str(images), str(results)])
    exec(compile(example, "batch.py", "exec"), {})
    assert codes == [0]
    segmentation = slicer.util.loadSegmentation(str(results / "one.seg.nrrd"))
    assert set(segment_names(segmentation)) <= {"liver", "spleen"}
    assert installed.processes() == []


@pytest.mark.usefixtures("installed", "panel")
def test_the_self_test_of_the_module_runs() -> None:
    module = sys.modules[NAME]
    test = module.DiffuSAMSegmentTest()
    test.runTest()
