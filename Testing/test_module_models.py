"""Weights in the test host: broken ones are told, the dialog lists, imports and removes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import module_host
from module_host import (
    PATIENCE_S,
    Installed,
    click_and_wait,
    scene_nodes,
    small_volume,
)

pytest_plugins = ["slicer_host.fixtures"]
pytestmark = module_host.pytestmark

installed = module_host.installed
panel = module_host.panel
logic = module_host.logic


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
