"""What the computer does to the module: wrong environments, no space, no memory; told in the panel's words."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from module_host import (
    PATIENCE_S,
    Installed,
    click_and_wait,
    refused,
    scene_nodes,
    small_volume,
)
from module_training import fill_in


@pytest.fixture
def worker(installed: Installed, panel: Any) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """A child process, and the events that it tells."""
    from DiffuSAMSegmentLib.worker_process import WorkerProcess

    events: list[dict[str, Any]] = []
    process = WorkerProcess(events.append, lambda line: None)
    yield process, events
    process.end()


# The environment of the child process.


def test_a_python_of_its_own_is_not_hit_by_slicers_launcher(
    installed: Installed, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the launcher set for Slicer's Python would keep another one from starting."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    process, events = worker
    process.send({"job": "import", "file": "/nowhere/prior.safetensors"})
    installed.host.wait_until(lambda: events, PATIENCE_S)
    assert events[0]["code"] == "weights", events


def test_slicers_own_python_keeps_what_the_launcher_set(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer
    from DiffuSAMSegmentLib.worker_environment import workerEnvironment

    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert not workerEnvironment().contains("PYTHONHOME")
    before = slicer.util.startupEnvironment()
    assert workerEnvironment().value("PATH") == before["PATH"]
    monkeypatch.delenv("DIFFUSAM_PYTHON")
    assert workerEnvironment().value("PYTHONHOME") == "/nowhere"
    for name in ("TMPDIR", "TEMP", "TMP"):
        assert workerEnvironment().value(name) == slicer.app.temporaryPath


def test_temporary_files_lie_where_the_user_wants_them(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The folder of the application settings is made if it is missing."""
    import slicer

    wanted = tmp_path / "not yet" / "temporary"
    monkeypatch.setattr(type(slicer.app), "temporaryPath", str(wanted))
    panel._parameterNode.inputVolume = small_volume()
    panel.ui.segmentButton.click()
    assert [path.name[:9] for path in wanted.iterdir()] == ["DiffuSAM-"]
    panel.ui.segmentButton.click()
    assert [path for path in wanted.iterdir() if path.name.startswith("DiffuSAM-")] == []


# Whatever goes wrong at the start of a run, the panel can be used again.


def no_space(*_arguments: Any, **_options: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def no_memory(*_arguments: Any, **_options: Any) -> None:
    raise MemoryError


def something_else(*_arguments: Any, **_options: Any) -> None:
    raise RuntimeError("the moon is full")


FAULTS = [
    ("tempfile.mkdtemp", no_space, "cannot be written to the temporary folder"),
    ("{part}.exportVolume", no_memory, "too little memory"),
    ("DiffuSAMSegmentLib.worker_process.libRoot", something_else, "the moon is full"),
]


@pytest.mark.parametrize(("where", "fault", "sentence"), FAULTS, ids=["mkdtemp", "memory", "process"])
def test_a_run_that_cannot_start_leaves_the_panel_usable(
    installed: Installed, panel: Any, where: str, fault: Callable[..., None], sentence: str
) -> None:
    panel._parameterNode.inputVolume = small_volume()
    before = scene_nodes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where.format(part="DiffuSAMSegmentLib.segmentation_run"), fault)
        panel.ui.segmentButton.click()
    assert sentence in panel.ui.statusLabel.text
    assert panel.ui.segmentButton.text == "Segment organs"
    assert panel.ui.inputsCollapsibleButton.enabled
    assert not panel.logic.running
    assert scene_nodes() == before
    assert installed.leftovers() == []
    panel.ui.segmentButton.click()
    assert panel.logic.running
    panel.ui.segmentButton.click()
    assert scene_nodes() == before


@pytest.mark.parametrize(("where", "fault", "sentence"), FAULTS, ids=["mkdtemp", "memory", "process"])
def test_a_training_that_cannot_start_leaves_the_section_usable(
    installed: Installed, panel: Any, where: str, fault: Callable[..., None], sentence: str
) -> None:
    fill_in(panel)
    before = scene_nodes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where.format(part="DiffuSAMSegmentLib.training_export"), fault)
        panel.ui.trainButton.click()
    assert sentence in panel.ui.trainStatusLabel.text
    assert not panel.logic.training
    assert panel.ui.trainButton.enabled
    assert panel.ui.trainChoices.enabled
    assert panel.ui.trainChoices.toolTip == ""
    assert scene_nodes() == before
    assert installed.leftovers() == []


def test_a_download_that_cannot_start_leaves_the_dialog_usable(panel: Any) -> None:
    panel.ui.modelsButton.click()
    dialog = panel._dialog
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("DiffuSAMSegmentLib.worker_process.libRoot", something_else)
        dialog.importFile("/nowhere")
    assert "the moon is full" in dialog.notes.text
    assert dialog.importButton.enabled
    dialog.onClose()


def test_a_script_gets_what_was_raised(logic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("DiffuSAMSegmentLib.segmentation_run.exportVolume", no_memory)
    with pytest.raises(MemoryError):
        logic.segment(small_volume())
    assert not logic.running


def test_an_error_of_the_panels_own_process_is_a_sentence(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The final import, or slices that appear, may need more memory than there is."""
    from DiffuSAMSegmentLib.segmentation_output import SegmentationOutput

    def fail(*_: object) -> None:
        raise MemoryError

    def refused_by_click() -> str:
        click_and_wait(installed, panel)
        assert panel.ui.segmentButton.text == "Segment organs"
        assert panel.ui.segmentButton.enabled
        return str(panel.ui.statusLabel.text)

    volume = small_volume()
    panel._parameterNode.inputVolume = volume
    before = scene_nodes()
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationOutput, "finish", fail)
        assert "too little memory" in refused_by_click()
        assert scene_nodes() == before
        assert "too little memory" in refused(lambda: panel.logic.segment(volume))
        assert scene_nodes() == before
    monkeypatch.setattr(SegmentationOutput, "update", fail)
    assert "too little memory" in refused_by_click()
    assert scene_nodes() == before
    installed.wait_for_processes()


# Words.


@pytest.mark.parametrize(
    ("code", "hint", "told"),
    [
        ("input", "Use --device cpu.", 'Choose the device "CPU".'),
        ("input", "Load another one.", "Load another one."),
        ("input", "Run with --check-only to see all that was found.", ""),
        ("output", "Free some space there, or point TMPDIR at a larger disk.", "Application Settings"),
        ("output", "Free some space, or set DIFFUSAM_HOME to a folder on another disk.", "Free some space."),
        ("weights", 'Run "diffusam models list" to see the names.', 'Open "Models..."'),
        ("weights", "Install DiffuSAM Segment again.", "Install DiffuSAM Segment again."),
        ("oom", "Close other programs, or run with --device cpu.", 'device "CPU"'),
        ("oom", "Close other programs.", "Close other programs."),
    ],
)
@pytest.mark.usefixtures("panel")
def test_hints_speak_of_the_panel(code: str, hint: str, told: str) -> None:
    from DiffuSAMSegmentLib.errors import hintOf

    found = hintOf(code, hint)
    assert told in found
    assert bool(told) == bool(found)
    for term in ("--", "TMPDIR", "DIFFUSAM_HOME", "diffusam "):
        assert term not in found


@pytest.mark.usefixtures("panel")
def test_the_dialog_of_models_does_not_send_to_itself_or_to_the_command_line() -> None:
    from DiffuSAMSegmentLib.errors import hintInModels

    taken = 'Give this one another name, or remove the other with "diffusam models remove".'
    assert hintInModels("weights", taken) == "Remove the other one first."
    offline = 'Try again to resume, or fetch http://a by other means and run "diffusam models import FILE".'
    assert "Import from file" in hintInModels("weights", offline)
    assert "diffusam" not in hintInModels("weights", offline)


def test_an_error_names_the_volume_instead_of_its_file(installed: Installed, panel: Any) -> None:
    import numpy as np
    import slicer

    flat = small_volume("flat one")
    slicer.util.updateVolumeFromArray(flat, np.zeros((10, 96, 96), np.int16))
    panel._parameterNode.inputVolume = flat
    click_and_wait(installed, panel)
    assert panel.ui.statusLabel.text.startswith("flat one shows nothing")
