"""The section Train in the test host before a training, and what is written for the child process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from module_host import ORGANS, Installed, add_volume, refused, rotation, scene_nodes, transform_node
from module_training import MINE, add_case, add_segmentation, fill_in

from DiffuSAMLib.procedural import make_abdomen

pytestmark = pytest.mark.usefixtures("no_priors")


def listed(panel: Any) -> dict[str, bool]:
    """The organs of the list, and whether they are checked."""
    import qt

    items = [panel.ui.trainOrganList.item(row) for row in range(panel.ui.trainOrganList.count)]
    return {item.text(): item.checkState() == qt.Qt.Checked for item in items}


# The panel before a training.


def test_the_section_is_closed_at_first_and_says_what_is_missing(panel: Any) -> None:
    ui = panel.ui
    assert ui.trainCollapsibleButton.collapsed
    assert "at least one volume" in ui.trainButton.toolTip
    ui.addCaseButton.click()
    assert "volume of row 1" in ui.trainButton.toolTip
    ui.removeCaseButton.click()
    fill_in(panel)
    ui.trainNameLineEdit.text = ""
    assert "name" in ui.trainButton.toolTip
    ui.trainNameLineEdit.text = "../up"
    assert "letters" in ui.trainButton.toolTip
    ui.trainNameLineEdit.text = "abdomen"
    assert "choose another" in ui.trainButton.toolTip
    assert not ui.trainButton.enabled
    ui.trainNameLineEdit.text = MINE
    assert ui.trainButton.enabled


def test_rows_are_found_and_chosen(panel: Any) -> None:
    import slicer

    first, second = add_case(name="first"), add_case(seed=4, name="second")
    lonely = add_volume(np.zeros((4, 8, 8), np.int16), np.eye(4), "lonely")
    ui, parameters = panel.ui, panel._parameterNode
    for _ in range(3):
        ui.addCaseButton.click()
    cases = panel._train.cases()
    assert [(c.volumeNode, c.segmentationNode) for c in cases] == [first, second, (None, None)]
    ui.trainCasesTable.cellWidget(2, 0).setCurrentNode(lonely)
    assert list(parameters.trainingVolumes) == [first[0], second[0], lonely]
    assert "segmentation of lonely" in ui.trainButton.toolTip
    ui.trainCasesTable.cellWidget(2, 0).setCurrentNode(first[0])
    # A volume brings its segmentation along.
    assert parameters.trainingSegmentations[2] is first[1]
    assert "twice" in ui.trainButton.toolTip
    ui.trainCasesTable.selectRow(0)
    ui.removeCaseButton.click()
    assert list(parameters.trainingVolumes) == [second[0], first[0]]
    assert ui.trainCasesTable.cellWidget(0, 1).currentNode() is second[1]
    slicer.mrmlScene.RemoveNode(second[1])
    assert ui.trainCasesTable.rowCount == 2
    assert not ui.trainButton.enabled or panel._train.cases()[0].segmentationNode is not None


def test_organs_that_all_segmentations_have_are_checked(panel: Any) -> None:
    import qt

    add_case(name="first", organs=("spleen", "liver"))
    add_case(name="second", organs=("liver", "left kidney"))
    for _ in range(2):
        panel.ui.addCaseButton.click()
    panel.ui.trainNameLineEdit.text = MINE
    assert listed(panel) == {"spleen": False, "liver": True, "left kidney": False}
    assert panel.ui.trainButton.enabled
    assert "1 of 2" in panel.ui.trainOrganList.item(0).toolTip()
    panel.ui.trainOrganList.item(0).setCheckState(qt.Qt.Checked)
    assert panel._train.organs() == ["spleen", "liver"]
    assert "second drawn has no segment called spleen" in panel.ui.trainButton.toolTip
    panel.ui.trainOrganList.item(0).setCheckState(qt.Qt.Unchecked)
    panel.ui.trainOrganList.item(1).setCheckState(qt.Qt.Unchecked)
    assert "Check at least one organ" in panel.ui.trainButton.toolTip


def test_only_one_of_the_two_runs(installed: Installed, panel: Any) -> None:
    nodes = fill_in(panel)
    panel._parameterNode.inputVolume = nodes[0][0]
    panel.ui.segmentButton.click()
    assert not panel.ui.trainButton.enabled
    assert "being segmented" in panel.ui.trainButton.toolTip
    assert "being segmented" in refused(lambda: panel.logic.train(nodes, name=MINE))
    panel.ui.segmentButton.click()
    assert panel.ui.trainButton.enabled
    panel.ui.trainButton.click()
    assert not panel.ui.segmentButton.enabled
    assert "being trained" in panel.ui.segmentButton.toolTip
    assert "being trained" in refused(lambda: panel.logic.segment(nodes[0][0]))
    panel.ui.stopTrainingButton.click()
    assert panel.ui.segmentButton.enabled


# What is written for the child process.


def read_labels(folder: Path) -> np.ndarray:
    import SimpleITK as sitk

    labels: np.ndarray = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labels_1.nrrd")))
    return labels


def test_labels_lie_on_the_grid_of_the_volume(panel: Any, tmp_path: Path) -> None:
    """Also with the organs in another order, on another grid, under a transform, or as surfaces only."""
    import slicer
    from DiffuSAMSegmentLib.training_export import TrainingCase, exportCase

    abdomen = make_abdomen(3, shape=(10, 96, 96), spacing=(3.5, 3.5, 20.0))
    truth, matrix = abdomen.labels.array, abdomen.volume.geometry.matrix
    volume = add_volume(abdomen.volume.array, rotation(12) @ matrix)
    drawn = add_segmentation(volume, truth, ORGANS)
    organs = ["liver", "spleen"]
    expected = np.select([truth == 4, truth == 1], [1, 2])

    def exported(volume_node: Any, segmentation_node: Any) -> np.ndarray:
        before = scene_nodes()
        case = exportCase(TrainingCase(volume_node, segmentation_node), organs, tmp_path, 1, None)
        assert case["label_names"] == {"1": "liver", "2": "spleen"}
        assert case["modality"] == "CT"
        assert scene_nodes() == before
        return read_labels(tmp_path)

    np.testing.assert_array_equal(exported(volume, drawn), expected)

    move = transform_node(rotation(25))
    for node in (volume, drawn):
        node.SetAndObserveTransformNodeID(move.GetID())
    np.testing.assert_array_equal(exported(volume, drawn), expected)
    drawn.SetAndObserveTransformNodeID(None)
    moved = exported(volume, drawn)
    assert (moved != expected).any()
    drawn.HardenTransform()
    volume.SetAndObserveTransformNodeID(None)

    fine = np.repeat(truth, 2, axis=2)
    half = matrix.copy()
    half[:3, 3] -= half[:3, 0] / 4
    half[:3, 0] /= 2
    other = add_volume(fine.astype(np.int16), rotation(12) @ half)
    np.testing.assert_array_equal(exported(volume, add_segmentation(other, fine, ORGANS)), expected)

    drawn.CreateClosedSurfaceRepresentation()
    content = drawn.GetSegmentation()
    content.SetSourceRepresentationName("Closed surface")
    content.RemoveRepresentation("Binary labelmap")
    surfaces = exported(volume, drawn)
    assert not content.ContainsRepresentation("Binary labelmap")
    assert (
        2 * ((surfaces == 1) & (expected == 1)).sum() / ((surfaces == 1).sum() + (expected == 1).sum()) > 0.8
    )
    slicer.mrmlScene.RemoveNode(drawn)


def test_bad_input_is_told_in_a_sentence(logic: Any, installed: Installed) -> None:
    import slicer

    volume, drawn = case = add_case()
    nodes = scene_nodes()
    assert "at least one volume" in refused(lambda: logic.train([], name=MINE))
    assert "twice" in refused(lambda: logic.train([case, case], name=MINE))
    assert "segmentation of patient" in refused(lambda: logic.train([(volume, None)], name=MINE))
    assert "pancreas" in refused(lambda: logic.train([case], name=MINE, organs=["pancreas"]))
    assert "at least one organ" in refused(lambda: logic.train([case], name=MINE, organs=[]))
    assert "name" in refused(lambda: logic.train([case], name=""))
    assert "choose another" in refused(lambda: logic.train([case], name="abdomen"))
    assert scene_nodes() == nodes
    for name in ORGANS:
        identifier = drawn.GetSegmentation().GetSegmentIdBySegmentName(name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            np.zeros((10, 96, 96), np.uint8), drawn, identifier, volume
        )
    assert "no voxel" in refused(lambda: logic.train([case], name=MINE))
    drawn.GetSegmentation().RemoveAllSegments()
    assert "no segments" in refused(lambda: logic.train([case], name=MINE))
    assert installed.leftovers() == []
    installed.wait_for_processes()
