"""What tests of the module in the test host stand on: real MRML, real child process; see slicer_host/README.md.

The Python of the child process is this one, or what DIFFUSAM_PYTHON names.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cmake_files import cmake_list

from DiffuSAMLib.procedural import make_abdomen

PYTHON = os.environ.get("DIFFUSAM_PYTHON") or sys.executable
ROOT = Path(__file__).resolve().parents[1]
NAME = "DiffuSAMSegment"
ORGANS = ("spleen", "right kidney", "left kidney", "liver")
PATIENCE_S = 300


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

    def wait_for_processes(self) -> None:
        """Until none is left: one that was only starting ends by itself, and a killed one needs a moment."""
        self.host.wait_until(lambda: not self.processes(), 10)

    def open_panel(self) -> Any:
        """The panel, entered, after the application has started."""
        self.host.load_module(self.folder / f"{NAME}.py")
        self.host.startup_completed()
        return self.host.enter(NAME)

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
    if sys.platform == "win32":
        pytest.skip("processes are looked up as Linux shows them")
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
        # What is tested is the installed one, not the repository's nor that of another file of tests.
        for module in [name for name in sys.modules if name.split(".")[0] in ("DiffuSAMLib", f"{NAME}Lib")]:
            patch.delitem(sys.modules, module)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        yield Installed(started_host, folder, elsewhere)


@pytest.fixture
def panel(host: Any, installed: Installed) -> Iterator[Any]:
    """The panel, entered, in an empty scene; afterwards nothing of it may be left."""
    yield installed.open_panel()
    host.unload_module(NAME)
    installed.wait_for_processes()
    assert installed.leftovers() == []


@pytest.fixture(scope="module")
def opened(installed: Installed) -> Iterator[Any]:
    """A panel whose child process is warm, open as long as the tests of a file; then nothing of it may be left."""
    installed.host.clean()
    panel = installed.open_panel()
    with nodes_go():
        panel.logic.segment(small_volume(), organs=["liver"], device="cpu")
    yield panel
    installed.host.unload_module(NAME)
    installed.wait_for_processes()
    assert installed.leftovers() == []


@pytest.fixture
def warm_panel(opened: Any, installed: Installed) -> Iterator[Any]:
    """That panel in an empty scene, for tests that do not ask how its child process begins or ends.

    A file has either these or tests with a `panel` of their own.
    """
    from slicer_host.guard import Guard

    with Guard(installed.host) as guard:
        installed.host.guard = guard
        with nodes_go():
            yield opened
        installed.host.process_events()
        guard.wait_for_leftovers()
    if problems := guard.problems():
        pytest.fail("\n\n".join(problems), pytrace=False)


@contextmanager
def nodes_go() -> Iterator[None]:
    """Nodes that are new at its end are removed; to close the scene would end the child process."""
    import slicer

    before = scene_nodes()
    yield
    for node in slicer.util.getNodesByClass("vtkMRMLNode"):
        if node.GetID() not in before:
            slicer.mrmlScene.RemoveNode(node)


@pytest.fixture
def logic(panel: Any) -> Any:
    return panel.logic


@pytest.fixture
def warm_logic(warm_panel: Any) -> Any:
    return warm_panel.logic


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


def add_sequence() -> tuple[Any, Any]:
    """Two frames, each another patient; returns the browser and the volume that shows the present one."""
    import slicer

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "patients")
    for number in range(2):
        frame = small_volume(seed=number)
        sequence.SetDataNodeAtValue(frame, str(number))
        slicer.mrmlScene.RemoveNode(frame)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    browser.SetSelectedItemNumber(0)
    return browser, browser.GetProxyNode(sequence)


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


@contextmanager
def held_at(installed: Installed, logic: Any, reached: Callable[[], Any]) -> Iterator[None]:
    """The child process stands still from the moment at which a run has come so far, and goes on afterwards.

    It never computes while this process looks: on a quick computer it would be at the end before it is looked at.
    """
    end = time.monotonic() + PATIENCE_S
    try:
        # It may have come so far before: it has to stand still all the same.
        let_compute(logic.process.pid, False)
        while not reached():
            if time.monotonic() > end:
                raise TimeoutError(f"Not within {PATIENCE_S} s.")
            let_compute(logic.process.pid, True)
            time.sleep(0.01)
            let_compute(logic.process.pid, False)
            installed.host.process_events()
        yield
    finally:
        let_compute(logic.process.pid, True)


def let_compute(pid: int, goes_on: bool) -> None:
    """Nothing happens while there is no process yet."""
    if pid:
        os.kill(pid, signal.SIGCONT if goes_on else signal.SIGSTOP)


def wait_for_stage(installed: Installed, panel: Any, stage: str) -> None:
    """Until a run has reached a stage."""
    seen: list[str] = []
    take = panel._run.progress.take
    panel._run.progress.take = lambda name, done, total: (seen.append(name), take(name, done, total))
    with held_at(installed, panel.logic, lambda: stage in seen or not panel.logic.running):
        assert panel.logic.running, panel.ui.statusLabel.text


def click_and_wait(installed: Installed, panel: Any) -> Any:
    panel.ui.segmentButton.click()
    installed.host.wait_until(lambda: not panel.logic.running, PATIENCE_S)
    return panel.ui.outputSelector.currentNode()


def labels_in_layer(segmentation: Any) -> np.ndarray:
    """What a run shows at this moment."""
    from vtk.util.numpy_support import vtk_to_numpy

    image = segmentation.GetSegmentation().GetLayerDataObject(0, "Binary labelmap")
    labels: np.ndarray = vtk_to_numpy(image.GetPointData().GetScalars())
    return labels


def transform_node(matrix: np.ndarray) -> Any:
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 30], [s, c, 0, -20], [0, 0, 1, 10], [0, 0, 0, 1.0]])


def refused(call: Callable[[], Any]) -> str:
    from DiffuSAMSegmentLib.errors import SegmentationError

    with pytest.raises(SegmentationError) as caught:
        call()
    return str(caught.value)
