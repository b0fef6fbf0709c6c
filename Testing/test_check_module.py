"""The static check of a scripted module: nothing in a right one, every planted fault in a wrong one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from slicer_host import missing_packages

if missing := missing_packages():
    pytest.skip(f"The static check of the Slicer module needs: {missing}", allow_module_level=True)

from slicer_host.check_module import check

TOY = Path(__file__).parent / "slicer_host" / "toy"
MODULE = Path(__file__).parents[1] / "DiffuSAMSegment"
PY, UI = "ToySegment.py", "Resources/UI/ToySegment.ui"

# File, what stands there, what is planted instead, the kind of finding.
FAULTS = [
    (UI, 'class="ctkSliderWidget" name', 'class="ctkSlideWidget" name', "ui-class"),
    (UI, 'class="qMRMLWidget" name', 'class="qMRMLPanel" name', "ui-class"),
    (UI, 'name="singleStep"', 'name="singlestep"', "ui-property"),
    (UI, 'name="collapsed"', 'name="isCollapsed"', "ui-property"),
    (UI, 'name="nameLineEdit"', 'name="repeatsSpinBox"', "ui-name"),
    (UI, "<receiver>inputSelector<", "<receiver>inputSelectr<", "ui-connection"),
    (UI, "<signal>toggled(bool)<", "<signal>toggled(int)<", "ui-connection"),
    (UI, "<slot>setMRMLScene(vtkMRMLScene*)<", "<slot>setScene(vtkMRMLScene*)<", "ui-connection"),
    (UI, "<string>threshold<", "<string>treshold<", "ui-parameter"),
    (PY, "self.ui.applyButton.enabled", "self.ui.okButton.enabled", "ui-object"),
    (PY, "self.ui.segmentsTable.setSegmentationNode", "self.ui.segmentsTable.setSegmentation", "widget-name"),
    (PY, "self.ui.applyButton.toolTip =", "self.ui.applyButton.setToolTip =", "widget-name"),
    (PY, "if self.parent.isEntered:", "if self.ui.thresholdSlider.value() > 3:", "property-called"),
    (PY, '"clicked(bool)"', '"clicked(int)"', "signal"),
    (PY, '"timeout()"', '"timedOut()"', "signal"),
    (PY, '"finished(int,QProcess::ExitStatus)"', '"finished(int,ExitStatus)"', "signal"),
    (PY, "self.timer.stop()", "self.timer.timeout.emit()", "emit"),
    (PY, "self._parameterNode.threshold,", "self._parameterNode.treshold,", "parameter"),
    (
        PY,
        "inputVolume: vtkMRMLScalarVolumeNode",
        "inputVolume: vtkMRMLScalarVolumeNode | None",
        "parameter-type",
    ),
    (PY, "slicer.util.addVolumeFromArray", "slicer.util.volumeFromArray", "util-name"),
    (PY, 'array, name="ToyBlock"', 'array, title="ToyBlock"', "util-argument"),
    (PY, "slicer.app.connect", "slicer.app.onStart", "app-name"),
    (PY, "slicer.mrmlScene.EndCloseEvent", "slicer.mrmlScene.AfterCloseEvent", "mrml-name"),
    (PY, "import vtkMRMLScalarVolumeNode,", "import vtkMRMLScalarVolume,", "slicer-name"),
    (PY, "qt.QTimer()", "qt.Timer()", "qt-name"),
    (PY, "qt.QProcess()", "qt.Signal()", "qt-name"),
    (PY, "import shutil\n", "import torch\n", "import"),
    (PY, '_("Thresholds a volume.")', '_(f"Thresholds {self}.")', "translation"),
    (PY, 'self.parent.title = _("Toy Segment")', 'self.parent.title = "Toy Segment"', "untranslated"),
    (PY, '_("Choose an input volume.")', '"Choose an input volume."', "untranslated"),
    (PY, "self.lines = []", 'self.button = qt.QPushButton("Go")', "untranslated"),
    (PY, "self.lines = []", 'self.box.addItem(f"{self} items")', "untranslated"),
    (PY, '"UI/ToySegment.ui"', '"UI/Toy.ui"', "resource"),
    (PY, "self.lines = []", "slicer.util.pip_install('torch')", "torch"),
]


def test_nothing_is_found_in_a_right_module():
    assert check(TOY) == []


@pytest.mark.skipif(not MODULE.is_dir(), reason="the Slicer module is not here")
def test_nothing_is_found_in_our_module():
    assert [str(f) for f in check(MODULE)] == []


@pytest.mark.parametrize(
    ("file", "right", "wrong", "kind"), FAULTS, ids=[f"{f[3]}-{i}" for i, f in enumerate(FAULTS)]
)
def test_a_planted_fault_is_found(tmp_path, file, right, wrong, kind):
    folder = tmp_path / "toy"
    shutil.copytree(TOY, folder)
    text = (folder / file).read_text()
    assert right in text
    (folder / file).write_text(text.replace(right, wrong, 1))
    found = check(folder)
    assert kind in {f.kind for f in found}
    assert all(f.file == folder / file or f.kind == "ui-object" for f in found)


def test_at_least_eight_kinds_are_planted():
    assert len({kind for *_, kind in FAULTS}) >= 8
