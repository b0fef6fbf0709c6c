"""The module in the test host: real MRML, real child process, bundled weights; see slicer_host/README.md.

The Python of the child process is this one, or what DIFFUSAM_PYTHON names.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_module_packaging import cmake_list

from DiffuSAMLib.procedural import DEMO_SEED, make_abdomen

pytest_plugins = ["slicer_host.fixtures"]

PYTHON = os.environ.get("DIFFUSAM_PYTHON") or sys.executable
if sys.executable == PYTHON and importlib.util.find_spec("torch") is None:
    pytest.skip("the child process needs PyTorch", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
NAME = "DiffuSAMSegment"
ORGANS = ("spleen", "right kidney", "left kidney", "liver")
STAGES = ("read", "load", "encode", "generate", "propagate")
PATIENCE_S = 300
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are looked up as Linux shows them")


# What the tests stand on.


@dataclass
class Installed:
    """The module as CMake installs it."""

    host: Any
    folder: Path
    elsewhere: Path

    def processes(self) -> list[int]:
        """Every process that runs a file of the installed module: the worker and its launcher."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def leftovers(self) -> list[str]:
        """What is left in the temporary folder of the application, or in that of the system."""
        folders = (Path(self.host.app.temporaryPath), self.elsewhere)
        # PyTorch makes a folder for compiled code, one for each user of the computer.
        names = sorted(path.name for folder in folders for path in folder.iterdir())
        return [name for name in names if not name.startswith("torchinductor_")]


def make_launcher(folder: Path, **environment: str) -> Path:
    """As in the application, a launcher stands between the module and the Python that computes.

    Args:
        folder: Where to put it.
        environment: Variables that it sets.
    """
    launcher = folder / "PythonSlicer"
    exports = "".join(f'export {name}="{value}"\n' for name, value in environment.items())
    launcher.write_text(f'#!/bin/sh\n{exports}"{PYTHON}" "$@"\nexit $?\n', encoding="utf-8")
    launcher.chmod(0o755)
    return launcher


@pytest.fixture(scope="module")
def installed(started_host: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("qt-scripted-modules with ä")
    for base in (ROOT, ROOT / NAME):
        kind = "MODULE" if base.name == NAME else "LIBRARY"
        for name in (f"{kind}_PYTHON_SCRIPTS", f"{kind}_PYTHON_RESOURCES"):
            for file in cmake_list(base / "CMakeLists.txt", name):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(base / file, folder / file)
    launcher = make_launcher(tmp_path_factory.mktemp("bin"))
    elsewhere = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSAM_PYTHON", str(launcher))
        patch.setenv("DIFFUSAM_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TMPDIR", str(elsewhere))
        patch.setattr(tempfile, "tempdir", str(elsewhere))
        # The library that is tested is the installed one.
        for module in [name for name in sys.modules if name.split(".")[0] == "DiffuSAMLib"]:
            patch.delitem(sys.modules, module)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        yield Installed(started_host, folder, elsewhere)


@pytest.fixture
def panel(host: Any, installed: Installed) -> Iterator[Any]:
    """The panel, entered, in an empty scene; afterwards nothing of it may be left."""
    host.load_module(installed.folder / f"{NAME}.py")
    host.startup_completed()
    yield host.enter(NAME)
    host.unload_module(NAME)
    assert installed.processes() == []
    assert installed.leftovers() == []


@pytest.fixture
def logic(panel: Any) -> Any:
    return panel.logic


def add_volume(array: np.ndarray, lps: np.ndarray, name: str = "abdomen") -> Any:
    import slicer
    import vtk

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, array)
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy((np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps).ravel().tolist())
    node.SetIJKToRASMatrix(matrix)
    node.CreateDefaultDisplayNodes()
    return node


def small_volume(name: str = "abdomen", seed: int = 3) -> Any:
    """10 slices of 96 x 96 pixels that hold all four organs."""
    volume = make_abdomen(seed, shape=(10, 96, 96), spacing=(3.5, 3.5, 20.0)).volume
    return add_volume(volume.array, volume.geometry.matrix, name)


def labels_of(segmentation: Any, volume: Any) -> np.ndarray:
    """Labels `(z, y, x)` on the volume's grid, 1 for the first organ."""
    import slicer

    labels = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    for value, name in enumerate(ORGANS, start=1):
        if identifier := segmentation.GetSegmentation().GetSegmentIdBySegmentName(name):
            labels[slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume) > 0] = value
    return labels


def segment_names(segmentation: Any) -> list[str]:
    content = segmentation.GetSegmentation()
    return [content.GetNthSegment(n).GetName() for n in range(content.GetNumberOfSegments())]


def tags(segment: Any, name: str) -> str:
    import vtk

    value = vtk.mutable("")
    segment.GetTag(name, value)
    return str(value)


def report_of(segmentation: Any) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(segmentation.GetAttribute("DiffuSAM.Report"))
    return report


def scene_nodes() -> list[str]:
    import slicer

    return sorted(node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode"))


def wait_for_stage(installed: Installed, panel: Any, stage: str) -> None:
    """Until a run has reached a stage."""
    seen: list[str] = []
    take = panel._progress.take
    panel._progress.take = lambda name, done, total: (seen.append(name), take(name, done, total))
    installed.host.wait_until(lambda: stage in seen or not panel.logic.running, PATIENCE_S)
    assert panel.logic.running, panel.ui.statusLabel.text


def click_and_wait(installed: Installed, panel: Any) -> Any:
    panel.ui.segmentButton.click()
    installed.host.wait_until(lambda: not panel.logic.running, PATIENCE_S)
    return panel.ui.outputSelector.currentNode()


# The panel.


@pytest.mark.usefixtures("started_host")
def test_the_static_check_finds_nothing() -> None:
    from slicer_host.check_module import check

    assert list(check(ROOT / NAME)) == []


def test_the_panel_and_the_parameters_follow_each_other(panel: Any) -> None:
    import slicer

    parameters, ui = panel._parameterNode, panel.ui
    volume = small_volume()
    ui.inputSelector.setCurrentNode(volume)
    assert parameters.inputVolume is volume
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    parameters.outputSegmentation = segmentation
    assert ui.outputSelector.currentNode() is segmentation
    for name in ("modality", "device", "quality", "frames"):
        box = getattr(ui, f"{name}ComboBox")
        before = getattr(parameters, name)
        box.currentIndex = box.count - 1
        last = getattr(parameters, name)
        assert last is not before
        assert box.currentText == last.label()
        setattr(parameters, name, before)
        assert box.currentText == before.label()
    ui.keepPartialCheckBox.checked = True
    assert parameters.keepPartial
    ui.organList.item(3).setCheckState(_unchecked())
    assert parameters.skippedOrgans == ["liver"]
    parameters.skippedOrgans = ["spleen"]
    assert ui.organList.item(0).checkState() == _unchecked()
    assert ui.organList.item(3).checkState() != _unchecked()
    assert parameters.prior == "abdomen"


def _unchecked() -> Any:
    import qt

    return qt.Qt.Unchecked


def test_reset_leaves_only_the_input_and_the_output(panel: Any) -> None:
    parameters, ui = panel._parameterNode, panel.ui
    volume = small_volume()
    parameters.inputVolume = volume
    for name in ("modality", "device", "quality"):
        getattr(ui, f"{name}ComboBox").currentIndex = 1
    ui.noOrgansButton.click()
    ui.keepPartialCheckBox.checked = True
    ui.resetButton.click()
    assert [ui.modalityComboBox.currentIndex, ui.deviceComboBox.currentIndex] == [0, 0]
    assert ui.qualityComboBox.currentIndex == 0
    assert parameters.skippedOrgans == []
    assert not ui.keepPartialCheckBox.checked
    assert parameters.inputVolume is volume


def test_a_disabled_button_says_what_is_missing(panel: Any) -> None:
    ui = panel.ui
    assert not ui.segmentButton.enabled
    assert "input volume" in ui.segmentButton.toolTip
    panel._parameterNode.inputVolume = small_volume()
    assert ui.segmentButton.enabled
    ui.noOrgansButton.click()
    assert not ui.segmentButton.enabled
    assert "organ" in ui.segmentButton.toolTip
    ui.allOrgansButton.click()
    assert ui.segmentButton.enabled
    assert not ui.show3DButton.enabled
    assert ui.show3DButton.toolTip


def test_a_prior_shows_its_card(panel: Any) -> None:
    text = panel.ui.priorCardLabel.text
    for part in (*ORGANS, "CT", "MR", "Licence", "compact", "comes with the extension"):
        assert part in text


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_modality_is_guessed_and_shown(panel: Any, modality: Any) -> None:
    volume = make_abdomen(3, modality=modality, shape=(10, 96, 96), spacing=(3.5, 3.5, 20.0)).volume
    panel._parameterNode.inputVolume = add_volume(volume.array, volume.geometry.matrix)
    assert modality in panel.ui.modalityGuessLabel.text


def test_what_dicom_says_is_believed(panel: Any) -> None:
    import slicer

    volume = small_volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(volume), "DICOM.Modality", "MR")
    panel._parameterNode.inputVolume = volume
    assert "MR" in panel.ui.modalityGuessLabel.text


def test_a_modality_of_dicom_that_no_prior_knows_is_told(panel: Any) -> None:
    import slicer

    volume = small_volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(volume), "DICOM.Modality", "PT")
    panel._parameterNode.inputVolume = volume
    assert panel.ui.modalityGuessLabel.text == "taken for CT, but DICOM says PT"
    assert "CT and MR only" in panel.ui.modalityGuessLabel.toolTip
    panel._parameterNode.inputVolume = small_volume("another")
    assert panel.ui.modalityGuessLabel.text == "taken for CT"
    assert "CT and MR only" not in panel.ui.modalityGuessLabel.toolTip


def test_sample_data_offers_a_patient_that_never_lived(panel: Any) -> None:
    import SampleData
    import slicer

    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    node = SampleData.downloadSample("ProceduralAbdomenMR")
    assert view.GetBackgroundVolumeID() == node.GetID()
    assert node.GetImageData().GetDimensions() == (160, 160, 48)
    sources = SampleData.SampleDataLogic.sampleDataSourcesByCategory("DiffuSAM Segment")
    assert [source.sampleName for source in sources] == [
        "ProceduralAbdomenCT",
        "ProceduralAbdomenMR",
        "CTLiver",
    ]


# One click.


@dataclass
class Clicked:
    """What was seen of a run of the whole procedural abdomen, and of a second one with other organs."""

    seconds: float = 0.0
    longest_block: float = 0.0
    seen: list[int] = field(default_factory=list)
    text: str = ""
    dice: dict[str, float] = field(default_factory=dict)
    table: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    second: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def clicked(installed: Installed) -> Clicked:
    import SampleData
    import slicer

    host = installed.host
    host.clean()
    host.load_module(installed.folder / f"{NAME}.py")
    host.startup_completed()
    panel = host.enter(NAME)
    volume = SampleData.downloadSample("ProceduralAbdomenCT")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    panel._parameterNode.inputVolume = volume
    result = Clicked()
    started = time.monotonic()
    panel.ui.segmentButton.click()
    segmentation = panel.ui.outputSelector.currentNode()
    assert panel.ui.segmentButton.text == "Stop"
    voxels = -1
    while panel.logic.running:
        assert time.monotonic() - started < PATIENCE_S
        time.sleep(0.002)
        before = time.monotonic()
        slicer.app.processEvents()
        if panel.logic.running:
            result.longest_block = max(result.longest_block, time.monotonic() - before)
            now = int((labels_in_layer(segmentation) > 0).sum())
            if now != voxels:
                voxels = now
                result.seen.append(now)
    result.seconds = time.monotonic() - started
    result.text = panel.ui.statusLabel.text
    truth = make_abdomen(DEMO_SEED).labels.array
    found = labels_of(segmentation, volume)
    for value, name in enumerate(ORGANS, start=1):
        overlap = (found == value) & (truth == value)
        result.dice[name] = 2 * overlap.sum() / ((found == value).sum() + (truth == value).sum())
    result.report = report_of(segmentation)
    rows = range(panel.ui.resultTable.rowCount)
    result.table = [panel.ui.resultTable.item(row, 1).text() for row in rows]
    content = segmentation.GetSegmentation()
    segments = [content.GetNthSegment(n) for n in range(content.GetNumberOfSegments())]
    reference = segmentation.GetNodeReferenceID(segmentation.GetReferenceImageGeometryReferenceRole())
    result.facts = {
        "layers": content.GetNumberOfLayers("Binary labelmap"),
        "reference": reference == volume.GetID(),
        "parent": hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation)) == study,
        "terminology": {s.GetName(): tags(s, s.GetTerminologyEntryTagName()) for s in segments},
        "colours": {s.GetName(): tuple(round(255 * part) for part in s.GetColor()) for s in segments},
    }
    # Again, with the liver alone, into the same segmentation.
    panel._parameterNode.skippedOrgans = [name for name in ORGANS if name != "liver"]
    pid = panel.logic.process.pid
    names = segment_names(segmentation)
    again = click_and_wait(installed, panel)
    result.second = {
        "same node": again is segmentation,
        "same process": panel.logic.process.pid == pid,
        "same organs": sorted(segment_names(again)) == sorted(names),
        # Without rivals the liver may win a few voxels at its edge.
        "same labels": bool((labels_of(again, volume) == found).mean() > 0.999),
        "encode": report_of(again)["timings"]["encode"],
    }
    host.unload_module(NAME)
    return result


def labels_in_layer(segmentation: Any) -> np.ndarray:
    """What a run shows at this moment."""
    from vtk.util.numpy_support import vtk_to_numpy

    image = segmentation.GetSegmentation().GetLayerDataObject(0, "Binary labelmap")
    labels: np.ndarray = vtk_to_numpy(image.GetPointData().GetScalars())
    return labels


def test_one_click_finds_the_organs(clicked: Clicked) -> None:
    assert np.mean(list(clicked.dice.values())) > 0.9, clicked.dice


def test_what_was_found_is_told(clicked: Clicked) -> None:
    assert "4 of 4" in clicked.text
    volumes = [f"{organ['volume_ml']:.1f}" for organ in clicked.report["organs"]]
    assert clicked.table == volumes
    assert clicked.seconds < 60


def test_slices_appear_while_the_run_goes_on(clicked: Clicked) -> None:
    assert len(clicked.seen) > 5
    assert clicked.seen[0] == 0
    assert clicked.seen == sorted(clicked.seen)


def test_slicer_stays_responsive(clicked: Clicked) -> None:
    assert clicked.longest_block < 0.15


def test_the_result_lies_where_slicer_wants_it(clicked: Clicked) -> None:
    assert clicked.facts["layers"] == 1
    assert clicked.facts["reference"]
    assert clicked.facts["parent"]
    table = json.loads((ROOT / "Resources" / "Terminology" / "organs.json").read_text(encoding="utf-8"))
    for name, entry in clicked.facts["terminology"].items():
        assert table["organs"][name]["type"][0] in entry
        assert clicked.facts["colours"][name] == tuple(table["organs"][name]["color"])


def test_a_second_run_does_not_encode_again(clicked: Clicked) -> None:
    assert clicked.second.pop("encode") == 0
    assert all(clicked.second.values()), clicked.second
    assert clicked.report["timings"]["encode"] > 0


def test_the_report_outlives_saving(panel: Any, tmp_path: Path) -> None:
    import slicer

    segmentation = panel.logic.segment(small_volume(), device="cpu")
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


# Stop, and what else may end a run.


@pytest.mark.parametrize("stage", STAGES)
def test_stop_leaves_everything_as_it_was(installed: Installed, panel: Any, stage: str) -> None:
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    panel.ui.segmentButton.click()
    wait_for_stage(installed, panel, stage)
    assert len(installed.processes()) == 2
    assert panel.ui.inputsCollapsibleButton.toolTip == "Stop the run first."
    started = time.monotonic()
    panel.ui.segmentButton.click()
    assert installed.processes() == []
    assert time.monotonic() - started < 2
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
    installed.host.wait_until(lambda: not installed.processes(), 2)


def test_stop_can_keep_what_was_found(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    panel.ui.keepPartialCheckBox.checked = True
    panel.ui.segmentButton.click()
    segmentation = panel.ui.outputSelector.currentNode()
    installed.host.wait_until(
        lambda: not panel.logic.running or labels_in_layer(segmentation).any(), PATIENCE_S
    )
    assert panel.logic.running, "nothing was found before the end"
    panel.ui.segmentButton.click()
    assert installed.processes() == []
    assert panel.ui.outputSelector.currentNode() is segmentation
    assert segment_names(segmentation)
    assert segmentation.GetAttribute("DiffuSAM.Partial") == "1"
    assert "kept" in panel.ui.statusLabel.text


def test_a_scene_closed_while_running_ends_the_run(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    panel.ui.segmentButton.click()
    wait_for_stage(installed, panel, "encode")
    installed.host.close_scene()
    assert installed.processes() == []
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
    wait_for_stage(installed, panel, "encode")
    panel.onReload()
    assert installed.processes() == []
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
    wait_for_stage(installed, panel, "load")
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


@dataclass
class OwnPython:
    """As if the module had to install packages into this Python; `answers` are what the user says."""

    host: Any
    missing: set[str]
    asked: list[str] = field(default_factory=list)
    pip: list[list[str]] = field(default_factory=list)

    def version(self, name: str) -> str | None:
        return None if name in self.missing else "99"

    def install(self, arguments: list[str], _options: dict[str, Any]) -> None:
        self.pip.append(arguments)
        self.missing -= {"sam2"} if any("requirements-sam2" in each for each in arguments) else {"tqdm"}

    @contextmanager
    def user_says(self, answer: Any) -> Iterator[None]:
        from slicer_host.dialogs import answering
        from slicer_host.packaging import allowing_install

        self.host.set_testing(False)
        try:
            with (
                allowing_install(self.install),
                answering(lambda what, *_: self.asked.append(what) or answer),
            ):
                yield
        finally:
            self.host.set_testing(True)


@pytest.fixture
def own_python(panel: Any, installed: Installed, monkeypatch: pytest.MonkeyPatch) -> OwnPython:
    from DiffuSAMSegmentLib import installer

    own = OwnPython(installed.host, {"sam2", "tqdm"})
    monkeypatch.delenv("DIFFUSAM_PYTHON")
    monkeypatch.setattr(installer, "_version", own.version)
    panel._parameterNode.inputVolume = small_volume()
    return own


def test_missing_packages_are_found_before_a_run(panel: Any, own_python: OwnPython) -> None:
    panel.ui.segmentButton.click()
    assert not panel.logic.running
    assert "tqdm" in panel.ui.statusLabel.text
    assert "sam2" in panel.ui.statusLabel.text
    assert "torch" not in panel.ui.statusLabel.text
    assert own_python.pip == []


def test_packages_are_installed_only_if_the_user_agrees(panel: Any, own_python: OwnPython) -> None:
    import qt

    with own_python.user_says(qt.QMessageBox.Cancel):
        panel.ui.segmentButton.click()
    assert own_python.asked
    assert own_python.pip == []
    assert "not installed" in panel.ui.statusLabel.text
    assert not panel.logic.running


def test_an_installation_leaves_slicers_packages_alone(panel: Any, own_python: OwnPython) -> None:
    import qt
    from slicer_host.packaging import pretending_missing

    constraints: list[str] = []
    install = own_python.install

    def reading(arguments: list[str], options: dict[str, Any]) -> None:
        if "-c" in arguments:
            constraints.extend(Path(arguments[arguments.index("-c") + 1]).read_text().split())
        install(arguments, options)

    own_python.install = reading  # type: ignore[method-assign]
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"):
        panel._installer.ensure()
    assert len(own_python.asked) == 1
    packages, sam2 = own_python.pip
    assert any(each.startswith("tqdm") for each in packages)
    assert not any(each.startswith("torch") for each in packages)
    assert {"numpy==99", "SimpleITK==99", "torch==99"} <= set(constraints)
    assert sam2[:2] == ["--no-deps", "--no-build-isolation"]
    assert Path(sam2[-1]).is_file()
    assert not panel._installer.pending()


def test_pytorch_comes_through_its_own_extension(panel: Any, own_python: OwnPython) -> None:
    import qt

    own_python.missing.add("torch")
    with own_python.user_says(qt.QMessageBox.Ok):
        panel.ui.segmentButton.click()
    # The test host has no Extensions Manager to get it from.
    assert "extension PyTorch" in panel.ui.statusLabel.text
    assert own_python.pip == []


def test_an_installation_goes_on_after_the_restart(
    installed: Installed, panel: Any, own_python: OwnPython
) -> None:
    import qt
    from slicer_host.packaging import pretending_missing

    qt.QSettings().setValue("DiffuSAMSegment/InstallationPending", True)
    assert panel._installer.pending()
    installed.host.leave(NAME)
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"):
        installed.host.enter(NAME)
        installed.host.wait_until(lambda: not panel._installer.pending(), 5)
    assert own_python.missing == set()


def test_an_installation_that_a_restart_cuts_off_goes_on(
    installed: Installed, panel: Any, own_python: OwnPython
) -> None:
    import qt
    from slicer_host.packaging import pretending_missing

    class Quit(BaseException):
        """The application goes while pip is at work."""

    def cut_off(_arguments: list[str], _options: dict[str, Any]) -> None:
        assert panel._installer.pending()
        raise Quit

    install, own_python.install = own_python.install, cut_off  # type: ignore[method-assign]
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"), pytest.raises(Quit):
        panel._installer.ensure()
    assert panel._installer.pending()
    own_python.install = install  # type: ignore[method-assign]
    installed.host.leave(NAME)
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"):
        installed.host.enter(NAME)
        installed.host.wait_until(lambda: not panel._installer.pending(), 5)
    assert own_python.missing == set()


def test_an_installation_that_fails_is_not_taken_up_by_itself(panel: Any, own_python: OwnPython) -> None:
    import qt
    from slicer_host.packaging import pretending_missing

    def fail(_arguments: list[str], _options: dict[str, Any]) -> None:
        raise OSError("no route to host")

    own_python.install = fail  # type: ignore[method-assign]
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"):
        panel.ui.segmentButton.click()
    assert "no route to host" in panel.ui.statusLabel.text
    assert not panel._installer.pending()


def test_the_whole_installation_from_the_first_click(
    installed: Installed, panel: Any, own_python: OwnPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is there: the extension PyTorch, a restart, PyTorch through it, then the other packages."""
    import qt
    import slicer
    from slicer_host.dialogs import answering
    from slicer_host.packaging import allowing_install, pretending_missing

    host = installed.host
    own_python.missing.add("torch")
    host.set_extension_installer(lambda name: name == "PyTorch")
    texts: list[str] = []

    def agree(_what: str, text: str, box: Any) -> Any:
        texts.append(text)
        yes = qt.QMessageBox.Yes
        return yes if box.standardButtons & yes else qt.QMessageBox.Ok

    wanted: list[dict[str, Any]] = []

    class TorchLogic:
        """What the extension offers after the restart."""

        def installTorch(self, **options: Any) -> object:  # noqa: N802
            wanted.append(options)
            own_python.missing.discard("torch")
            return object()

    host.set_testing(False)
    with answering(agree), allowing_install(own_python.install):
        panel.ui.segmentButton.click()
        assert host.restarts() == 1
        assert len(texts) == 2
        assert own_python.pip == []
        assert "restart" in panel.ui.statusLabel.text
        # The application comes back with the extension.
        assert panel._installer.pending()
        host.leave(NAME)
        monkeypatch.setattr(slicer.modules, "pytorchutils", object(), raising=False)
        monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=TorchLogic))
        with pretending_missing("tqdm"):
            host.enter(NAME)
            host.wait_until(lambda: not panel._installer.pending(), 5)
    host.set_testing(True)
    assert wanted == [{"askConfirmation": False, "torchVersionRequirement": ">=2.5.1"}]
    assert own_python.missing == set()
    assert not any(each.startswith("torch") for call in own_python.pip for each in call)


@contextmanager
def broken_weights(installed: Installed) -> Iterator[None]:
    """Within it, the end of the installed prior is overwritten."""
    path = installed.folder / "Resources" / "Weights" / "abdomen-prior.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1000] + bytes(1000))
    try:
        yield
    finally:
        path.write_bytes(good)


def test_broken_weights_are_told_before_the_click(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    with broken_weights(installed):
        panel._onModelsChanged()
    assert not panel.ui.segmentButton.enabled
    assert "abdomen-prior" in panel.ui.segmentButton.toolTip
    assert "abdomen-prior" in panel.ui.priorCardLabel.text
    assert "Install DiffuSAM Segment again." in panel.ui.priorCardLabel.text


def test_weights_that_break_later_are_told_too(installed: Installed, panel: Any) -> None:
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    with broken_weights(installed):
        click_and_wait(installed, panel)
    assert "Install DiffuSAM Segment again." in panel.ui.statusLabel.text
    assert scene_nodes() == before


def test_the_models_dialog_lists_imports_and_removes(
    installed: Installed, panel: Any, tmp_path: Path
) -> None:
    import qt
    from slicer_host.dialogs import answering

    panel.ui.modelsButton.click()
    dialog = panel._dialog
    rows = range(dialog.table.rowCount)
    licences = {dialog.table.item(row, 0).text(): dialog.table.item(row, 4).text() for row in rows}
    assert licences["SAM2.1 tiny (Meta)"] == "Apache-2.0"
    assert all(licences.values())
    assert "kept in" in dialog.notes.text
    for row, (title, licence) in enumerate(licences.items()):
        dialog.table.selectRow(row)
        assert title in dialog.notes.text
        assert f"Licence: {licence}" in dialog.notes.text
    # The bundled prior under another name: its header is not part of the tensors' hash.
    bundled = installed.folder / "Resources" / "Weights" / "abdomen-prior.safetensors"
    content = bundled.read_bytes()
    name = re.search(rb'\\"name\\": \\"(abdomen[a-z-]*)\\"', content)
    assert name is not None
    own = tmp_path / "own.safetensors"
    own.write_bytes(content.replace(name[0], name[0].replace(b"abdomen", b"mine..."), 1))
    dialog.importFile(str(own))
    installed.host.wait_until(lambda: not dialog._busy, PATIENCE_S)
    imported = name[1].replace(b"abdomen", b"mine...").decode()
    assert imported in dialog.notes.text
    assert imported in [card.name for card in panel._cards]
    panel.ui.priorComboBox.currentIndex = len(panel._cards) - 1
    assert panel._parameterNode.prior == imported
    dialog.table.selectRow(dialog.table.rowCount - 1)
    assert dialog.removeButton.enabled
    installed.host.set_testing(False)
    with answering(lambda what, *arguments: qt.QMessageBox.Ok):
        dialog.removeButton.click()
    installed.host.set_testing(True)
    assert imported not in [card.name for card in panel._cards]
    assert not panel.ui.segmentButton.enabled
    dialog.importFile(str(tmp_path / "nothing.safetensors"))
    installed.host.wait_until(lambda: not dialog._busy, PATIENCE_S)
    assert "no file" in dialog.notes.text
    dialog.onClose()


# Scenes of every kind.


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


def transform_node(matrix: np.ndarray) -> Any:
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 30], [s, c, 0, -20], [0, 0, 1, 10], [0, 0, 0, 1.0]])


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


def refused(call: Callable[[], Any]) -> str:
    from DiffuSAMSegmentLib.errors import SegmentationError

    with pytest.raises(SegmentationError) as caught:
        call()
    return str(caught.value)


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
    segmentation = logic.segment(volume, organs=["liver"], device="cpu", wait=False)
    assert logic.running
    assert "being segmented" in refused(lambda: logic.segment(volume))
    installed.host.wait_until(lambda: not logic.running, PATIENCE_S)
    assert [organ["name"] for organ in report_of(segmentation)["organs"]] == ["liver"]


def test_the_batch_example_of_the_page_works(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import slicer

    page = (ROOT / "Docs" / "slicer-module.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
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


@pytest.mark.usefixtures("own_python")
def test_the_self_test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as an error: in the application, runTest() is called without unittest."""
    module = sys.modules[NAME]
    test = module.DiffuSAMSegmentTest()
    said: list[str] = []
    monkeypatch.setattr(test, "delayDisplay", said.append)
    test.runTest()
    assert len(said) == 1
    assert "tqdm" in said[0]
