"""Weights in the test host: broken ones are told, the dialog lists, imports, exports and removes."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from module_host import (
    PATIENCE_S,
    Installed,
    click_and_wait,
    scene_nodes,
    small_volume,
)
from test_downloads import FileHandler, FileServer


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


def test_the_models_dialog_lists_imports_exports_and_removes(
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
    shared = tmp_path / "shared"
    shared.mkdir()
    for told in ("Exported to", "Choose another folder"):
        with answering(lambda what, *arguments: str(shared)):
            dialog.exportButton.click()
        assert told in dialog.notes.text
        dialog.table.selectRow(dialog.table.rowCount - 1)
    assert [path.read_bytes() for path in shared.iterdir()] == [own.read_bytes()]
    dialog.table.selectRow(next(row for row, title in enumerate(licences) if title == "SAM2.1 tiny (Meta)"))
    assert not dialog.exportButton.enabled
    assert "Select a prior" in dialog.exportButton.toolTip
    dialog.table.selectRow(dialog.table.rowCount - 1)
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


class HaltingServer(FileServer):
    """Sends the first half of a file, and the rest only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = HaltingHandler
        self.content = bytes(8_000_000)
        self.goes_on = threading.Event()


class HaltingHandler(FileHandler):
    server: HaltingServer

    def do_GET(self) -> None:  # noqa: N802
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        content = self.server.content
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        try:
            middle = max(start, len(content) // 2)
            self.wfile.write(content[start:middle])
            self.server.goes_on.wait(PATIENCE_S)
            self.wfile.write(content[middle:])
        except OSError:
            pass  # whoever downloads has gone


@contextmanager
def weights_from(server: FileServer, installed: Installed) -> Iterator[str]:
    """Within it, one of Meta's checkpoints comes from a server of the test; gives its title."""
    path = installed.folder / "Resources" / "Weights" / "catalogue.json"
    good = path.read_text(encoding="utf-8")
    catalogue = json.loads(good)
    entry = next(each for each in catalogue["weights"] if each["name"] == "sam2.1_small")
    entry["url"] = server.url("/file")
    entry["bytes"] = len(server.content)
    entry["sha256"] = hashlib.sha256(server.content).hexdigest()
    path.write_text(json.dumps(catalogue), encoding="utf-8")
    try:
        yield entry["title"]
    finally:
        path.write_text(good, encoding="utf-8")


def test_a_download_shows_its_progress_can_be_stopped_and_goes_on(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qt
    from slicer_host.dialogs import answering

    monkeypatch.setenv("no_proxy", "*")
    asked: list[str] = []

    def agree(_what: str, text: str, _box: Any) -> Any:
        asked.append(text)
        return qt.QMessageBox.Ok

    def state(row: int) -> str:
        return str(dialog.table.item(row, 2).text())

    with HaltingServer() as server, weights_from(server, installed) as title:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        panel.ui.modelsButton.click()
        dialog = panel._dialog
        row = next(n for n in range(dialog.table.rowCount) if dialog.table.item(n, 0).text() == title)
        dialog.table.selectRow(row)
        installed.host.set_testing(False)
        with answering(agree):
            dialog.downloadButton.click()
            installed.host.wait_until(lambda: 0 < dialog.progressBar.value < 100, PATIENCE_S)
            assert "Downloading" in dialog.notes.text
            assert "of 8 MB" in dialog.notes.text
            assert dialog.downloadButton.text == "Stop download"
            assert not dialog.removeButton.enabled
            dialog.downloadButton.click()
            assert "goes on from here" in dialog.notes.text
            installed.wait_for_processes()
            assert state(row) == "not downloaded"
            server.goes_on.set()
            dialog.table.selectRow(row)
            dialog.downloadButton.click()
            installed.host.wait_until(lambda: not dialog._busy, PATIENCE_S)
            assert "is ready" in dialog.notes.text
            assert state(row) == "downloaded"
            assert server.ranges[0] is None
            assert server.ranges[-1] is not None
            assert "Licence: Apache-2.0" in asked[0]
            dialog.table.selectRow(row)
            dialog.removeButton.click()
            assert state(row) == "not downloaded"
        installed.host.set_testing(True)
        dialog.onClose()
        server.shutdown()
