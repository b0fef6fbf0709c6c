"""Trainings by the section Train in the test host: real MRML, real child process, the bundled compact backbone."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from module_host import NAME, ORGANS, PATIENCE_S, Installed, refused, report_of, scene_nodes
from module_training import MINE, add_case, fill_in, nodes_of, priors_folder, wait_for_end, wait_for_losses

from DiffuSAMLib.prior_files import read_header

pytestmark = pytest.mark.usefixtures("no_priors")


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
    panel = installed.open_panel()
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
    result.organs = [organ["name"] for organ in report_of(segmentation)["organs"]]
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
    # By its name: titles are lists of organs, and may be alike.
    assert trained.starts[-1] == f"{MINE}: spleen, right kidney, left kidney, liver"


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


def test_stop_leaves_nothing_and_can_be_gone_on_from(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qt

    # Where other tests keep the disk busy.
    monkeypatch.setattr("DiffuSAMSegmentLib.worker_process.KILL_SAVING_AFTER_MS", 60_000)
    fill_in(panel)
    before = scene_nodes()
    panel.ui.trainButton.click()
    wait_for_losses(installed, panel)
    panel.ui.stopTrainingButton.click()
    installed.wait_for_processes()
    assert scene_nodes() == before
    assert installed.leftovers() == []
    assert "may go on from here" in panel.ui.trainStatusLabel.text
    assert panel.ui.trainButton.enabled
    assert not panel.ui.trainCurves.visible
    assert not (priors_folder() / f"{MINE}.safetensors").exists()

    asked: list[str] = []
    with user_says(installed, qt.QMessageBox.Cancel, asked):
        panel.ui.trainButton.click()
    assert "has a licence of its own" in asked.pop()
    assert "not accepted" in panel.ui.trainStatusLabel.text
    assert not panel.logic.training
    monkeypatch.setattr("DiffuSAMSegmentLib.train_section.acceptsLicence", lambda card: True)
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
    installed.wait_for_processes()
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
    assert logic.train([case], name=MINE, organs=["liver"], iterations=1, device="cpu") == MINE
    assert scene_nodes() == nodes
    assert installed.leftovers() == []
    header = read_header(priors_folder() / f"{MINE}.safetensors")
    assert [label.name for label in header.labels] == ["liver"]
    assert header.training["iterations"] == 1
