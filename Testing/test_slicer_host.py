"""The test host, tried with a small module: does it do what Slicer does?"""

from __future__ import annotations

import ctypes.util
import pathlib
from pathlib import Path

import pytest

TOY = Path(__file__).parent / "slicer_host" / "toy" / "ToySegment.py"


@pytest.fixture
def toy(host):
    host.load_module(TOY)
    return host.enter("ToySegment")


@pytest.fixture
def block(host, toy):
    host.startup_completed()
    import SampleData

    return SampleData.SampleDataLogic().downloadSample("ToyBlock")


# The panel and its parameter node.


def test_the_panel_shows_the_defaults(toy):
    ui = toy.ui
    assert (ui.thresholdSlider.value, ui.thresholdSlider.minimum, ui.thresholdSlider.maximum) == (
        50.0,
        -100.0,
        200.0,
    )
    assert (ui.repeatsSpinBox.value, ui.repeatsSpinBox.maximum) == (2, 5)
    assert [ui.qualityComboBox.itemText(i) for i in range(2)] == ["Fast", "Best"]
    assert ui.qualityComboBox.currentText == "Best"
    assert ui.nameLineEdit.text == "block"
    assert ui.advancedCollapsibleButton.collapsed
    assert not ui.adviceLabel.visible


def test_widgets_change_parameters(toy):
    ui, parameters = toy.ui, toy._parameterNode
    ui.thresholdSlider.value = 20
    ui.repeatsSpinBox.value = 3
    ui.invertCheckBox.checked = True
    ui.nameLineEdit.text = "liver"
    ui.qualityComboBox.currentIndex = 0
    ui.deviceComboBox.currentIndex = 1
    ui.modelPathEdit.currentPath = "/a/b.safetensors"
    assert (parameters.threshold, parameters.repeats, parameters.invert) == (20.0, 3, True)
    assert (parameters.label, parameters.quality.name, parameters.device) == ("liver", "FAST", "cpu")
    assert parameters.modelFile == pathlib.Path("/a/b.safetensors")
    assert parameters.parameterNode.GetParameter("quality") == "FAST"


def test_parameters_change_widgets(toy):
    toy._parameterNode.threshold = 30
    toy._parameterNode.label = "spleen"
    toy._parameterNode.parameterNode.SetParameter("repeats", "4")
    assert toy.ui.thresholdSlider.value == 30.0
    assert toy.ui.nameLineEdit.text == "spleen"
    assert toy.ui.repeatsSpinBox.value == 4
    assert toy._parameterNode.repeats == 4


def test_a_disconnected_panel_leaves_the_parameters_alone(host, toy):
    parameters = toy._parameterNode
    host.leave("ToySegment")
    toy.ui.thresholdSlider.value = 7
    assert parameters.threshold == 50.0


def test_lists_are_written_with_every_change(toy):
    toy._parameterNode.organs = ["liver"]
    toy._parameterNode.organs.append("spleen")
    assert toy._parameterNode.parameterNode.GetParameter("organs_len") == "2"
    assert type(toy._parameterNode)(toy._parameterNode.parameterNode).organs == ["liver", "spleen"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 1000.0),
        ("threshold", "3"),
        ("repeats", 2.5),
        ("invert", 1),
        ("label", None),
        ("device", "tpu"),
    ],
)
def test_wrong_values_are_refused(toy, name, value):
    with pytest.raises((TypeError, ValueError)):
        setattr(toy._parameterNode, name, value)


def test_a_misspelt_parameter_is_refused(toy):
    with pytest.raises(AttributeError, match="treshold"):
        toy._parameterNode.treshold = 3.0


def test_the_volume_that_comes_is_chosen_and_enables_the_button(toy, block):
    assert toy.ui.inputSelector.currentNode() is block
    assert toy._parameterNode.inputVolume is block
    assert toy.ui.applyButton.enabled
    assert toy.ui.applyButton.toolTip == "Segment the volume."


def test_ui_connections_between_qt_widgets_work(toy):
    toy.ui.invertCheckBox.checked = True
    assert not toy.ui.nameLineEdit.enabled


# The run.


def test_a_click_makes_a_segmentation(toy, block):
    import slicer

    toy.ui.applyButton.click()
    segmentation = toy._parameterNode.outputSegmentation
    assert toy.ui.outputSelector.currentNode() is segmentation
    assert slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "block", block).sum() == 96
    assert toy.ui.segmentsTable.segmentCount == 1
    toy.ui.segmentsTable.setSelectedSegmentIDs(["block"])
    assert toy.ui.segmentsTable.selectedSegmentIDs() == ("block",)
    toy.ui.show3DButton.click()
    assert toy.ui.show3DButton.checked
    assert segmentation.GetSegmentation().ContainsRepresentation("Closed surface")


def test_nodes_have_an_item_in_the_subject_hierarchy_while_they_exist(host, block):
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(block)
    assert hierarchy.GetItemName(item) == "ToyBlock"
    slicer.mrmlScene.RemoveNode(block)
    assert not hierarchy.GetItemDataNode(item)


def test_timers_reach_python(host, toy):
    toy.timer.start()
    host.wait_until(lambda: toy.ticks == 3)
    assert not toy.timer.active


def test_process_signals_reach_python(host, toy):
    toy.logic.startProcess("print('hello world'); raise SystemExit(3)")
    host.wait_until(lambda: toy.logic.exitCode is not None, timeout=60)
    assert toy.logic.lines == ["hello", "world"]
    assert toy.logic.exitCode == 3


def test_console_processes_report_line_by_line(host):
    import shutil

    import slicer

    lines, codes = [], []
    command = [shutil.which("PythonSlicer"), "-u", "-c", "print('a'); print('b')"]
    slicer.util.launchConsoleProcess(
        command, blocking=False, logCallback=lines.append, completedCallback=codes.append
    )
    host.wait_until(lambda: codes, timeout=60)
    assert (lines, codes) == (["a", "b"], [0])


def test_the_launcher_is_not_python_itself(host, toy):
    """Killing PythonSlicer alone leaves its child, as with the real launcher."""
    import os
    import signal

    from slicer_host.guard import child_processes

    toy.logic.startProcess("import time; time.sleep(60)")
    host.wait_until(lambda: len(child_processes(toy.logic.process.processId())) == 1)
    (python,) = child_processes(toy.logic.process.processId())
    toy.logic.process.kill()
    host.wait_until(lambda: toy.logic.exitCode is not None)
    os.kill(python, 0)
    assert any("process" in what for what in host.guard.leftovers())
    os.kill(python, signal.SIGKILL)


def test_what_is_set_after_the_start_stands_for_the_launcher(host, monkeypatch):
    import slicer

    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert slicer.app.environment().value("PYTHONHOME") == "/nowhere"
    assert "PYTHONHOME" not in slicer.util.startupEnvironment()


def test_a_closed_scene_resets_the_panel(host, toy, block):
    toy.ui.thresholdSlider.value = 70
    host.close_scene()
    assert toy._parameterNode.inputVolume is None
    assert toy._parameterNode.threshold == 50.0
    assert toy.ui.thresholdSlider.value == 50.0
    assert not toy.ui.applyButton.enabled


def test_reload_makes_a_new_panel(host, toy):
    import slicer

    slicer.util.reloadScriptedModule("ToySegment")
    again = host.panel("ToySegment")
    assert again is not toy
    assert type(again) is not type(toy)
    assert slicer.modules.ToySegmentWidget is again
    again.ui.thresholdSlider.value = 11
    assert again._parameterNode.threshold == 11.0
    assert toy._parameterNode is None


def test_the_self_test_runs(host, toy):
    import slicer

    slicer.selfTests["ToySegment"]()


def test_a_scene_comes_back_from_its_file(host, toy, block, tmp_path):
    import slicer

    toy.ui.applyButton.click()
    toy._parameterNode.threshold = 33.0
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.close_scene()
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    host.process_events()
    assert toy.logic.getParameterNode().threshold == 33.0
    assert slicer.util.getNode("Segmentation").GetSegmentation().GetNumberOfSegments() == 1


def test_ctk_widgets_keep_and_report_values(host, tmp_path):
    import ctk
    import qt
    import slicer

    said = []
    combo = ctk.ctkCheckableComboBox()
    combo.connect("checkedIndexesChanged()", lambda: said.append([i.data() for i in combo.checkedIndexes()]))
    combo.addItems(["liver", "spleen"])
    combo.setCheckState(combo.checkableModel().index(1, 0), qt.Qt.Checked)
    combo.setCheckState(combo.checkableModel().index(1, 0), qt.Qt.Checked)
    span = ctk.ctkRangeWidget()
    span.connect("valuesChanged(double,double)", lambda low, high: said.append((low, high)))
    span.setValues(0.0, 5.0)
    folder = ctk.ctkDirectoryButton()
    folder.connect("directoryChanged(QString)", said.append)
    folder.directory = str(tmp_path)
    path = ctk.ctkPathLineEdit()
    path.connect("validInputChanged(bool)", said.append)
    path.currentPath = str(tmp_path)
    assert said == [["spleen"], (0.0, 5.0), str(tmp_path), True]
    nodes = slicer.qMRMLCheckableNodeComboBox()
    nodes.nodeTypes = ["vtkMRMLTextNode"]
    nodes.setMRMLScene(slicer.mrmlScene)
    text = nodes.addNode()
    nodes.check(text)
    assert nodes.checkedNodes() == (text,)


def test_node_lists_follow_the_scene(host):
    import slicer

    combo, said = slicer.qMRMLNodeComboBox(), []
    combo.nodeTypes = ["vtkMRMLVolumeNode"]
    combo.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: said.append(node and node.GetName()))
    combo.setMRMLScene(slicer.mrmlScene)
    add = slicer.mrmlScene.AddNewNodeByClass
    first, second = add("vtkMRMLScalarVolumeNode", "a"), add("vtkMRMLLabelMapVolumeNode", "b")
    add("vtkMRMLTextNode", "c")
    hidden = slicer.vtkMRMLScalarVolumeNode()
    hidden.SetHideFromEditors(True)
    slicer.mrmlScene.AddNode(hidden)
    assert combo.nodeCount() == 2
    combo.setCurrentNode(second)
    slicer.mrmlScene.RemoveNode(second)
    combo.noneEnabled = True
    combo.setCurrentNode(None)
    first.SetAttribute("kind", "x")
    combo.addAttribute("vtkMRMLVolumeNode", "kind", "y")
    assert combo.nodeCount() == 0
    assert said == ["a", "b", "a", None]
    with pytest.raises(TypeError):
        combo.setCurrentNode(5)


def test_a_picture_shows_panel_slices_and_surface(host, toy, block, tmp_path):
    import qt
    from slicer_host.render import save_picture

    if ctypes.util.find_library("EGL") is None:
        pytest.skip("Rendering without a display needs libegl1 and libgl1-mesa-dri.")
    toy.ui.applyButton.click()
    segment = toy._parameterNode.outputSegmentation.GetSegmentation().GetSegment("block")
    segment.SetColor(1.0, 0.0, 0.0)
    block.CreateDefaultDisplayNodes()
    image = qt.QImage(str(save_picture(host, tmp_path / "picture.png", panel=toy, view_size=200)))
    left = image.width() - 400
    assert left > 100

    def red(x, y):
        colour = image.pixelColor(left + x, y)
        return colour.red() > 1.5 * max(colour.green(), colour.blue(), 40)

    for corner in ((0, 0), (200, 0), (0, 200), (200, 200)):
        found = sum(red(corner[0] + x, corner[1] + y) for x in range(20, 180, 5) for y in range(20, 180, 5))
        assert found > 50, f"The segment is not in the view at {corner}."
    assert image.pixelColor(5, 395).lightness() > 200
