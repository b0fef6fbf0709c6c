"""What a run of the module holds goes with the scene, and a logic with its last reference."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest
from module_host import NAME, PATIENCE_S, Installed, click_and_wait, small_volume, wait_for_stage


class Watched:
    """A volume in the scene whose voxels are watched."""

    def __init__(self) -> None:
        self.node = small_volume()
        self.deleted: list[bool] = []
        self.node.GetImageData().AddObserver("DeleteEvent", lambda *_: self.deleted.append(True))

    def gone(self) -> bool:
        """Whether the voxels are gone, once nothing here holds them."""
        self.node = None
        gc.collect()
        return self.deleted == [True]


def new_logic() -> Any:
    return sys.modules[NAME].DiffuSAMSegmentLogic()


def collected(logics: list[Any]) -> bool:
    """Whether a logic is gone, once the list does not hold it any more."""
    reference = weakref.ref(logics.pop())
    gc.collect()
    return reference() is None


@pytest.mark.usefixtures("panel")
def test_a_script_keeps_neither_its_volumes_nor_its_logic(installed: Installed) -> None:
    """Else a folder of images would fill the memory."""
    logics = [new_logic()]
    watched = Watched()
    logics[0].segment(watched.node, organs=["liver"], device="cpu")
    installed.host.close_scene()
    assert watched.gone()
    logics[0].close()
    assert collected(logics)


@pytest.mark.parametrize("how", ["finished", "stopped"])
def test_the_panel_keeps_no_volume_of_a_closed_scene(installed: Installed, panel: Any, how: str) -> None:
    watched = Watched()
    panel._parameterNode.inputVolume = watched.node
    if how == "finished":
        click_and_wait(installed, panel)
    else:
        panel.ui.segmentButton.click()
        wait_for_stage(installed, panel, "encode")
        panel.ui.segmentButton.click()
    installed.host.close_scene()
    assert watched.gone()


def test_the_panel_keeps_no_volume_that_was_deleted(panel: Any) -> None:
    import slicer

    volume = small_volume()
    panel._parameterNode.inputVolume = volume
    assert panel._volumeNode is volume
    slicer.mrmlScene.RemoveNode(volume)
    assert panel._volumeNode is None


def test_a_volume_after_a_deleted_one_gets_an_output_of_its_own(installed: Installed, panel: Any) -> None:
    import slicer

    first = small_volume("first")
    panel._parameterNode.inputVolume = first
    organs = click_and_wait(installed, panel)
    slicer.mrmlScene.RemoveNode(first)
    panel._parameterNode.inputVolume = small_volume("second", seed=1)
    assert panel._parameterNode.outputSegmentation is not organs


@pytest.mark.usefixtures("panel")
def test_a_process_that_ends_by_itself_lets_the_logic_go(installed: Installed) -> None:
    logics = [new_logic()]
    logics[0].segment(small_volume(), organs=["liver"], device="cpu")
    assert logics[0].process.running
    logics[0].process._idleTimer.start(1)
    installed.host.wait_until(lambda: not logics[0].process.running, PATIENCE_S)
    assert collected(logics)


@pytest.mark.usefixtures("panel")
def test_a_process_that_never_began_lets_the_logic_go(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSAM_PYTHON", "/nowhere/python")
    logics = [new_logic()]
    logics[0].segment(small_volume(), organs=["liver"], device="cpu", wait=False)
    installed.host.wait_until(lambda: not logics[0].running, PATIENCE_S)
    assert collected(logics)
