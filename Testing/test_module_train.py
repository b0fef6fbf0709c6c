"""The section Train in the test host: real MRML, real child process, the bundled compact backbone."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import module_host
import numpy as np
import pytest
from module_host import (
    NAME,
    ORGANS,
    PATIENCE_S,
    Installed,
    add_volume,
    refused,
    rotation,
    scene_nodes,
    segment_names,
    transform_node,
)

from DiffuSAMLib.prior_files import read_header
from DiffuSAMLib.procedural import make_abdomen

pytest_plugins = ["slicer_host.fixtures"]
pytestmark = module_host.pytestmark

installed = module_host.installed
panel = module_host.panel
logic = module_host.logic
MINE = "my-organs"


@pytest.fixture(autouse=True)
def no_priors(installed: Installed) -> Iterator[None]:
    """What a test leaves in the user's folder of priors goes."""
    yield
    shutil.rmtree(priors_folder(), ignore_errors=True)


def priors_folder() -> Path:
    return Path(os.environ["DIFFUSAM_HOME"]) / "priors"


def add_case(seed: int = 3, name: str = "patient", organs: tuple[str, ...] = ORGANS) -> tuple[Any, Any]:
    """10 slices of 96 x 96 pixels, and a segmentation with some of the organs."""
    abdomen = make_abdomen(seed, shape=(10, 96, 96), spacing=(3.5, 3.5, 20.0))
    volume = add_volume(abdomen.volume.array.astype(np.int16), abdomen.volume.geometry.matrix, name)
    return volume, add_segmentation(volume, abdomen.labels.array, organs)


def add_segmentation(volume: Any, labels: np.ndarray, organs: tuple[str, ...]) -> Any:
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume.GetName()} drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name in organs:
        identifier = node.GetSegmentation().AddEmptySegment("", name)
        mask = (labels == ORGANS.index(name) + 1).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identifier, volume)
    return node


def fill_in(panel: Any, cases: int = 1) -> list[tuple[Any, Any]]:
    """Cases in the scene and in the table, and a name."""
    nodes = [add_case(seed=3 + n, name=f"patient {n}") for n in range(cases)]
    for _ in nodes:
        panel.ui.addCaseButton.click()
    panel.ui.trainNameLineEdit.text = MINE
    assert panel.ui.trainButton.enabled, panel.ui.trainButton.toolTip
    return nodes


def listed(panel: Any) -> dict[str, bool]:
    """The organs of the list, and whether they are checked."""
    import qt

    items = [panel.ui.trainOrganList.item(row) for row in range(panel.ui.trainOrganList.count)]
    return {item.text(): item.checkState() == qt.Qt.Checked for item in items}


def wait_for_losses(installed: Installed, panel: Any) -> None:
    installed.host.wait_until(
        lambda: panel.ui.trainStatusLabel.text.startswith("Iteration") or not panel.logic.training, PATIENCE_S
    )
    assert panel.logic.training, panel.ui.trainStatusLabel.text


def wait_for_end(installed: Installed, panel: Any) -> None:
    installed.host.wait_until(lambda: not panel.logic.training, PATIENCE_S)


def nodes_of(kind: str) -> list[Any]:
    import slicer

    return list(slicer.util.getNodesByClass(kind))


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
    assert installed.processes() == []


# A training.


@dataclass
class Trained:
    """What was seen of a training by the panel that was stopped and kept, and of what came after."""

    rows: list[int] = field(default_factory=list)
    views: list[bool] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    left: list[str] = field(default_factory=list)
    prior: str = ""
    shown: str = ""
    organs: list[str] = field(default_factory=list)
    refused: str = ""
    starts: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def trained(installed: Installed) -> Trained:
    import slicer

    host = installed.host
    host.clean()
    host.load_module(installed.folder / f"{NAME}.py")
    host.startup_completed()
    panel = host.enter(NAME)
    ui, result = panel.ui, Trained()
    nodes = fill_in(panel)
    panel._parameterNode.inputVolume = nodes[0][0]
    before = scene_nodes()
    result.seen["start"] = ui.trainStartComboBox.currentText
    ui.trainButton.click()
    result.seen["choices"] = ui.trainChoices.enabled
    result.seen["keep at first"] = ui.keepTrainingButton.enabled
    wait_for_losses(installed, panel)
    result.seen["keep later"] = ui.keepTrainingButton.enabled
    result.seen["left"] = ui.trainStatusLabel.text
    ui.keepTrainingButton.click()
    wait_for_end(installed, panel)
    result.text = ui.trainStatusLabel.text
    result.rows = [node.GetTable().GetNumberOfRows() for node in nodes_of("vtkMRMLTableNode")]
    result.views = [view.isVisibleTo(ui.trainCurves) for view in panel._train._plotViews]
    new = [node for node in nodes_of("vtkMRMLNode") if node.GetID() not in before]
    result.seen["new nodes"] = {node.GetClassName() for node in new}
    result.left = installed.leftovers()
    result.prior = panel._parameterNode.prior
    result.seen["started from"] = read_header(priors_folder() / f"{MINE}.safetensors").training[
        "started_from"
    ]
    result.shown = ui.priorCardLabel.text
    result.starts = [ui.trainStartComboBox.itemText(row) for row in range(ui.trainStartComboBox.count)]
    result.refused = refused(lambda: panel.logic.train(nodes, name=MINE))
    # The warm process goes on to segment with the new prior.
    pid = panel.logic.process.pid
    segmentation = panel.logic.segment(nodes[0][0], prior=MINE, device="cpu")
    result.seen["same process"] = panel.logic.process.pid == pid
    result.organs = [organ["name"] for organ in module_host.report_of(segmentation)["organs"]]
    slicer.mrmlScene.RemoveNode(segmentation)
    host.unload_module(NAME)
    result.seen["views gone"] = not nodes_of("vtkMRMLPlotViewNode")
    shutil.rmtree(priors_folder())
    return result


def test_stop_and_keep_gives_a_prior_that_segments(trained: Trained) -> None:
    assert f"{MINE} is ready" in trained.text
    assert trained.prior == MINE
    assert "spleen, right kidney, left kidney, liver" in trained.shown
    assert trained.organs == list(ORGANS)
    assert trained.seen["same process"]
    assert trained.left == []
    assert "already" in trained.refused
    assert len(trained.starts) == 3


def test_a_training_continues_the_bundled_prior(trained: Trained) -> None:
    assert trained.seen["start"].startswith("Abdomen")
    assert "chaos_01" in trained.seen["started from"]["training"]["cases"]


def test_curves_grow_while_it_trains(trained: Trained) -> None:
    assert trained.rows[0] > 0
    assert trained.views[0]
    assert "left" in trained.seen["left"]
    kinds = {"vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLPlotViewNode", "vtkMRMLTableNode"}
    assert trained.seen["new nodes"] == kinds
    assert trained.seen["views gone"]


def test_choices_and_buttons_follow_the_training(trained: Trained) -> None:
    assert not trained.seen["choices"]
    assert not trained.seen["keep at first"]
    assert trained.seen["keep later"]


def test_stop_leaves_nothing_and_can_be_gone_on_from(installed: Installed, panel: Any) -> None:
    import qt

    fill_in(panel)
    before = scene_nodes()
    panel.ui.trainButton.click()
    wait_for_losses(installed, panel)
    started = time.monotonic()
    panel.ui.stopTrainingButton.click()
    assert installed.processes() == []
    assert time.monotonic() - started < 2
    assert scene_nodes() == before
    assert installed.leftovers() == []
    assert "may go on from here" in panel.ui.trainStatusLabel.text
    assert panel.ui.trainButton.enabled
    assert not panel.ui.trainCurves.visible
    assert not (priors_folder() / f"{MINE}.safetensors").exists()

    asked: list[str] = []
    with user_says(installed, qt.QMessageBox.Cancel, asked):
        panel.ui.trainButton.click()
        wait_for_end(installed, panel)
        installed.host.wait_until(lambda: asked, 5)
    assert "unfinished" in asked[0]
    assert not panel.logic.training
    assert scene_nodes() == before
    with user_says(installed, qt.QMessageBox.Yes, asked):
        panel.ui.trainButton.click()
        installed.host.wait_until(lambda: len(asked) == 2, PATIENCE_S)
        wait_for_losses(installed, panel)
    assert nodes_of("vtkMRMLTableNode")[0].GetTable().GetValueByName(0, "iteration").ToInt() > 1
    panel.ui.stopTrainingButton.click()


@contextmanager
def user_says(installed: Installed, answer: Any, asked: list[str]) -> Iterator[None]:
    from slicer_host.dialogs import answering

    installed.host.set_testing(False)
    try:
        with answering(lambda _what, text, *_: asked.append(text) or answer):
            yield
    finally:
        installed.host.set_testing(True)


@pytest.mark.parametrize("how", ["scene", "reload", "unload"])
def test_what_ends_the_panel_ends_the_training(installed: Installed, panel: Any, how: str) -> None:
    fill_in(panel)
    panel.ui.trainButton.click()
    installed.host.wait_until(lambda: panel.logic.process.pid, PATIENCE_S)
    if how == "scene":
        installed.host.close_scene()
    elif how == "reload":
        panel.onReload()
    else:
        installed.host.leave(NAME)
        panel.cleanup()
    assert installed.processes() == []
    assert installed.leftovers() == []
    for kind in ("Chart", "Series", "View"):
        assert nodes_of(f"vtkMRMLPlot{kind}Node") == []
    if how == "scene":
        assert not panel.logic.training
        assert panel.ui.trainStatusLabel.text == ""
        assert panel.ui.trainCasesTable.rowCount == 0
        fill_in(panel)


def test_a_child_process_that_dies_is_told(installed: Installed, panel: Any) -> None:
    fill_in(panel)
    before = scene_nodes()
    panel.ui.trainButton.click()
    installed.host.wait_until(lambda: panel.logic.process.pid, PATIENCE_S)
    os.kill(panel.logic.process.pid, signal.SIGKILL)
    wait_for_end(installed, panel)
    assert "ended unexpectedly" in panel.ui.trainStatusLabel.text
    assert scene_nodes() == before
    assert installed.leftovers() == []
    assert panel.ui.trainButton.enabled


def test_a_script_trains_in_a_line(installed: Installed, logic: Any) -> None:
    case = add_case(organs=("spleen", "liver"))
    nodes = scene_nodes()
    assert logic.train([case], name=MINE, organs=["liver"], iterations=2, device="cpu") == MINE
    assert scene_nodes() == nodes
    assert installed.leftovers() == []
    segmentation = logic.segment(case[0], prior=MINE, device="cpu")
    assert set(segment_names(segmentation)) <= {"liver"}


@pytest.mark.usefixtures("started_host")
def test_a_plot_view_of_the_host_wants_an_owner() -> None:
    """Without one, the view would appear in the layout of the application."""
    import slicer

    view = slicer.qMRMLPlotView()
    view.setMRMLScene(slicer.mrmlScene)
    node = slicer.vtkMRMLPlotViewNode()
    with pytest.raises(ValueError, match="layout"):
        view.setMRMLPlotViewNode(node)
    view.delete()
    assert "slicer" in sys.modules
