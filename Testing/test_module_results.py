"""Results in the test host: existing segmentations, volumes that lie anyhow, what scripts and saved scenes see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from module_host import (
    PATIENCE_S,
    Installed,
    add_volume,
    labels_of,
    refused,
    report_of,
    rotation,
    segment_names,
    small_volume,
    transform_node,
)
from scipy import ndimage

from DiffuSAMLib.procedural import make_abdomen


def test_an_existing_segmentation_keeps_its_other_segments(warm_logic: Any) -> None:
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
    returned = warm_logic.segment(volume, device="cpu", segmentationNode=segmentation)
    assert returned is segmentation
    first = segment_names(segmentation)
    assert first[:2] == ["tumour", "liver"]
    warm_logic.segment(volume, device="cpu", segmentationNode=segmentation)
    assert segment_names(segmentation) == first
    for identifier in ("tumour", "liver"):
        kept = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume)
        np.testing.assert_array_equal(kept, mask)


def test_organs_do_not_depend_on_how_the_volume_lies(warm_logic: Any) -> None:
    """Transformed, oblique and left-handed volumes give the labels of the plain one, voxel by voxel."""
    import slicer

    patient = make_abdomen(3, shape=(10, 96, 96), spacing=(3.5, 3.5, 20.0)).volume
    array, matrix = patient.array, patient.geometry.matrix
    plain = add_volume(array, matrix)
    expected = labels_of(warm_logic.segment(plain, device="cpu"), plain)

    moved = add_volume(array, matrix)
    moved.SetAndObserveTransformNodeID(transform_node(rotation(25)).GetID())
    segmentation = warm_logic.segment(moved, device="cpu")
    assert segmentation.GetTransformNodeID() == moved.GetTransformNodeID()
    np.testing.assert_array_equal(labels_of(segmentation, moved), expected)

    elsewhere = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    elsewhere.SetAndObserveTransformNodeID(transform_node(rotation(-40)).GetID())
    warm_logic.segment(moved, device="cpu", segmentationNode=elsewhere)
    # Resampled to the volume through both transforms: single voxels at an edge may go.
    changed = labels_of(elsewhere, moved) != expected
    assert changed.sum() <= 0.02 * (expected > 0).sum()

    oblique = add_volume(array, rotation(12) @ matrix)
    np.testing.assert_array_equal(labels_of(warm_logic.segment(oblique, device="cpu"), oblique), expected)

    for axis in (0, 2):
        turned = np.array(matrix)
        column = 2 - axis
        turned[:3, 3] += turned[:3, column] * (array.shape[axis] - 1)
        turned[:3, column] *= -1
        left_handed = add_volume(np.ascontiguousarray(np.flip(array, axis)), turned)
        found = labels_of(warm_logic.segment(left_handed, device="cpu"), left_handed)
        np.testing.assert_array_equal(np.flip(found, axis), expected)


def test_the_confidence_is_a_volume_that_lies_as_the_image_does(warm_logic: Any) -> None:
    import slicer
    import vtk

    patient = make_abdomen(3, shape=(10, 96, 96), spacing=(3.5, 3.5, 20.0)).volume
    volume = add_volume(patient.array, rotation(12) @ patient.geometry.matrix)
    volume.SetAndObserveTransformNodeID(transform_node(rotation(25)).GetID())
    assert warm_logic.segment(volume, device="cpu").GetNodeReference("DiffuSAM.Confidence") is None
    segmentation = warm_logic.segment(volume, device="cpu", confidence=True)
    shown = segmentation.GetNodeReference("DiffuSAM.Confidence")
    assert shown.GetName() == f"{volume.GetName()} confidence"
    assert shown.GetTransformNodeID() == volume.GetTransformNodeID()
    for place in ((0, 0, 0), (95, 20, 7)):
        at = np.zeros((2, 3))
        for node, row in zip((volume, shown), at, strict=True):
            matrix = vtk.vtkMatrix4x4()
            node.GetIJKToRASMatrix(matrix)
            row[:] = matrix.MultiplyPoint((*place, 1))[:3]
        np.testing.assert_allclose(*at, atol=1e-4)
    confidence = slicer.util.arrayFromVolume(shown)
    assert confidence.shape == (10, 96, 96)
    assert 0.4 < confidence.min() < 0.75 < confidence.max() <= 1
    # What it is least sure of lies at the edges of what it found.
    found = labels_of(segmentation, volume) > 0
    edge = ndimage.binary_dilation(found) & ~ndimage.binary_erosion(found)
    assert confidence[edge].mean() < confidence[~edge].mean()
    again = warm_logic.segment(
        volume, ["liver"], device="cpu", segmentationNode=segmentation, confidence=True
    )
    assert again.GetNodeReference("DiffuSAM.Confidence") is shown
    assert (slicer.util.arrayFromVolume(shown) != confidence).any()


# Scripts.


def test_a_script_is_told_what_cannot_be(warm_logic: Any) -> None:
    import slicer

    volume = small_volume()
    assert "empty" in refused(lambda: warm_logic.segment(None))
    assert "pancreas" in refused(lambda: warm_logic.segment(volume, organs=["pancreas"]))
    assert "No organ" in refused(lambda: warm_logic.segment(volume, organs=[]))
    assert "nothing" in refused(lambda: warm_logic.segment(volume, prior="nothing"))
    colour = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colour")
    slicer.util.updateVolumeFromArray(colour, np.zeros((4, 4, 4, 3), np.uint8))
    assert "colour" in refused(lambda: warm_logic.segment(colour, modality="CT"))
    assert "device" in refused(lambda: warm_logic.segment(volume, device="abacus"))
    flat = small_volume("flat")
    slicer.util.updateVolumeFromArray(flat, np.zeros((10, 96, 96), np.int16))
    assert "nothing" in refused(lambda: warm_logic.segment(flat))
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_script_may_go_on_while_organs_appear(installed: Installed, warm_logic: Any) -> None:
    volume = small_volume()
    segmentation = warm_logic.segment(volume, organs=["Liver"], device="cpu", wait=False)
    assert warm_logic.running
    assert "being segmented" in refused(lambda: warm_logic.segment(volume))
    installed.host.wait_until(lambda: not warm_logic.running, PATIENCE_S)
    assert [organ["name"] for organ in report_of(segmentation)["organs"]] == ["liver"]


def test_the_report_outlives_saving(warm_panel: Any, tmp_path: Path) -> None:
    import slicer

    segmentation = warm_panel.logic.segment(small_volume(), device="cpu")
    report = report_of(segmentation)
    assert report["options"]["seed"] == 0
    assert {"prior", "backbone", "timings", "organs", "versions"} <= set(report)
    assert report["inputs"][0]["path"] == "abdomen"
    slicer.mrmlScene.SetSaveToXMLString(True)
    slicer.mrmlScene.Commit()
    other = slicer.vtkMRMLScene()
    other.SetLoadFromXMLString(True)
    other.SetSceneXMLString(slicer.mrmlScene.GetSceneXMLString())
    other.Import()
    loaded = other.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert report_of(loaded) == report
    slicer.mrmlScene.SetSaveToXMLString(False)
