"""What ends a run in the test host: Stop in each stage, a closed scene, a reload, a child process that dies."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from module_host import (
    NAME,
    PATIENCE_S,
    Installed,
    click_and_wait,
    held_at,
    labels_in_layer,
    make_launcher,
    scene_nodes,
    segment_names,
    small_volume,
    wait_for_stage,
)


def wait_for_process(installed: Installed, panel: Any) -> None:
    """Until there is one: for what does not depend on how far it is."""
    installed.host.wait_until(lambda: panel.logic.process.pid, PATIENCE_S)
    assert panel.logic.running, panel.ui.statusLabel.text


@pytest.mark.parametrize("stage", ["read", "load", "generate", "propagate"])
def test_stop_leaves_everything_as_it_was(installed: Installed, panel: Any, stage: str) -> None:
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    panel.ui.segmentButton.click()
    wait_for_stage(installed, panel, stage)
    assert len(installed.processes()) == 2
    assert panel.ui.inputsCollapsibleButton.toolTip == "Stop the run first."
    started = time.monotonic()
    panel.ui.segmentButton.click()
    assert time.monotonic() - started < 10
    installed.wait_for_processes()
    assert scene_nodes() == before
    assert installed.leftovers() == []
    assert panel.ui.segmentButton.text == "Segment organs"
    assert panel.ui.segmentButton.enabled
    assert panel.ui.inputsCollapsibleButton.enabled
    assert panel.ui.inputsCollapsibleButton.toolTip == ""
    assert panel.ui.statusLabel.text == "Stopped."


def test_stop_right_after_the_click(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    panel.ui.segmentButton.click()
    panel.ui.segmentButton.click()
    assert scene_nodes() == before
    installed.wait_for_processes()


def test_stop_can_keep_what_was_found(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    panel.ui.segmentButton.click()
    segmentation = panel.ui.outputSelector.currentNode()
    # Whoever has waited for long decides then.
    assert panel.ui.keepPartialCheckBox.enabled
    assert not panel.ui.deviceComboBox.enabled
    panel.ui.keepPartialCheckBox.checked = True
    run = panel.logic._run
    with held_at(installed, panel.logic, lambda: run.ended or run._boxes or run._labels is not None):
        assert panel.logic.running, "nothing was found before the end"
        installed.host.wait_until(lambda: labels_in_layer(segmentation).any(), PATIENCE_S)
    panel.ui.segmentButton.click()
    installed.wait_for_processes()
    assert panel.ui.outputSelector.currentNode() is segmentation
    assert segment_names(segmentation)
    assert all(name.endswith("(incomplete)") for name in segment_names(segmentation))
    assert "kept" in panel.ui.statusLabel.text


def test_stop_does_not_claim_to_have_kept_what_was_not_there(installed: Installed, panel: Any) -> None:
    import slicer

    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    own.GetSegmentation().AddEmptySegment("", "mine")
    panel._parameterNode.inputVolume = small_volume()
    panel._parameterNode.outputSegmentation = own
    panel.ui.keepPartialCheckBox.checked = True
    panel.ui.segmentButton.click()
    panel.ui.segmentButton.click()
    assert panel.ui.statusLabel.text == "Stopped."
    assert segment_names(own) == ["mine"]


def test_a_run_of_a_script_on_the_panels_logic_can_be_stopped(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    panel.logic.segment(small_volume("other"), device="cpu", wait=False)
    assert panel.ui.segmentButton.text == "Stop"
    panel.logic.stop()
    assert panel.ui.segmentButton.text == "Segment organs"
    assert panel.ui.segmentButton.enabled


def test_a_scene_closed_while_running_ends_the_run(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    panel.ui.segmentButton.click()
    wait_for_stage(installed, panel, "encode")
    installed.host.close_scene()
    installed.wait_for_processes()
    assert not panel.logic.running
    assert installed.leftovers() == []
    assert panel.ui.segmentButton.text == "Segment organs"
    assert not panel.ui.segmentButton.enabled
    # And the panel goes on working.
    panel._parameterNode.inputVolume = small_volume()
    assert panel.ui.segmentButton.enabled


def test_reload_while_running_ends_the_run(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    panel.ui.segmentButton.click()
    wait_for_process(installed, panel)
    panel.onReload()
    installed.wait_for_processes()
    assert scene_nodes() == before
    fresh = installed.host.enter(NAME)
    assert fresh is not panel
    assert fresh.ui.segmentButton.enabled
    assert fresh._parameterNode.inputVolume is not None


def test_a_child_process_that_dies_is_told(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    panel.ui.segmentButton.click()
    wait_for_stage(installed, panel, "encode")
    os.kill(panel.logic.process.pid, signal.SIGKILL)
    installed.host.wait_until(lambda: not panel.logic.running, 10)
    assert "ended unexpectedly" in panel.ui.statusLabel.text
    assert scene_nodes() == before
    assert installed.leftovers() == []


def test_a_python_that_cannot_be_started_is_told(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSAM_PYTHON", "/nowhere/python")
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    panel.ui.segmentButton.click()
    installed.host.wait_until(lambda: not panel.logic.running, 10)
    assert "/nowhere/python" in panel.ui.statusLabel.text
    assert scene_nodes() == before


@pytest.mark.parametrize("which", ["volume", "segmentation"])
def test_a_node_deleted_while_running_ends_the_run(installed: Installed, panel: Any, which: str) -> None:
    import slicer

    volume = small_volume()
    panel._parameterNode.inputVolume = volume
    panel.ui.segmentButton.click()
    wait_for_process(installed, panel)
    slicer.mrmlScene.RemoveNode(volume if which == "volume" else panel.ui.outputSelector.currentNode())
    installed.host.wait_until(lambda: not panel.logic.running, PATIENCE_S)
    assert "deleted" in panel.ui.statusLabel.text
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_another_module_may_be_opened_while_a_run_goes_on(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    panel.ui.segmentButton.click()
    installed.host.leave(NAME)
    installed.host.wait_until(lambda: not panel.logic.running, PATIENCE_S)
    installed.host.enter(NAME)
    assert panel.ui.resultTable.rowCount == 4
    assert panel.ui.segmentButton.text == "Segment organs"


# Packages and weights.


def test_a_package_that_the_child_misses_is_named(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    monkeypatch.setenv("DIFFUSAM_PYTHON", str(make_launcher(tmp_path, PYTHONPATH=str(tmp_path))))
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    click_and_wait(installed, panel)
    assert "torch" in panel.ui.statusLabel.text
    assert scene_nodes() == before


def test_closing_slicer_stops_a_script_that_waits(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qt
    import slicer

    window = qt.QWidget()
    window.show()
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: window)
    events = slicer.app.processEvents

    def close_once_it_runs(*flags: Any) -> None:
        events(*flags)
        if panel.logic.process.pid:
            window.close()

    monkeypatch.setattr(slicer.app, "processEvents", close_once_it_runs)
    volume = small_volume()
    before = scene_nodes()
    with pytest.raises(RuntimeError, match="was stopped"):
        panel.logic.segment(volume)
    assert scene_nodes() == before
    installed.wait_for_processes()
