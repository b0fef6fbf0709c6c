"""The dialog "Models...": which weights there are, under which licence, and how to get or remove them."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from .errors import hintInModels, unforeseen
from .lib_location import addLibraryToPath
from .priors import shownTitle
from .progress_text import stageText
from .worker_process import WorkerProcess


class ModelsDialog:
    """Lists the catalogue; downloads and checks run in a process of their own, so that Slicer stays quick.

    :param parent: widget to centre on, or None
    :param onChanged: called when weights came or went
    """

    def __init__(self, parent, onChanged) -> None:
        self._onChanged = onChanged
        self._process = WorkerProcess(self._take, lambda line: None)
        self._busy = False
        self.dialog = qt.QDialog(parent)
        self.dialog.setWindowTitle(_("Models"))
        self.dialog.resize(1060, 360)
        layout = qt.QVBoxLayout(self.dialog)
        self.table = qt.QTableWidget()
        self.table.setColumnCount(5)
        self.table.setHorizontalHeaderLabels([_("Name"), _("Kind"), _("State"), _("Size"), _("Licence")])
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.verticalHeader().hide()
        layout.addWidget(self.table)
        self.notes = qt.QLabel()
        self.notes.setWordWrap(True)
        layout.addWidget(self.notes)
        self.progressBar = qt.QProgressBar()
        self.progressBar.setRange(0, 100)
        layout.addWidget(self.progressBar)
        row = qt.QHBoxLayout()
        layout.addLayout(row)
        self.downloadButton = self._button(row, _("Download"), self.onDownload)
        self.importButton = self._button(row, _("Import from file..."), self.onImport)
        self.exportButton = self._button(row, _("Export..."), self.onExport)
        self.removeButton = self._button(row, _("Remove"), self.onRemove)
        self.closeButton = self._button(row, _("Close"), self.onClose)
        self.table.connect("itemSelectionChanged()", self._updateButtons)
        self.dialog.connect("finished(int)", self._onFinished)
        self.refresh()

    def refresh(self) -> None:
        """Reads the catalogue again."""
        addLibraryToPath()
        from DiffuSAMLib.catalogue import list_weights
        from DiffuSAMLib.weights_folders import cache_folder

        self._listed = list_weights()
        self._folder = str(cache_folder())
        self.table.setRowCount(len(self._listed))
        for row, weights in enumerate(self._listed):
            entry = weights.entry
            size = _("{size} MB").format(size=round(entry.bytes / 1e6))
            for column, text in enumerate(
                (shownTitle(weights), _kindText(entry.kind), _stateText(weights.status), size, entry.licence)
            ):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(f"{text}\n{entry.notes}".strip())
                self.table.setItem(row, column, item)
        self.table.resizeColumnsToContents()
        self.table.resizeRowsToContents()
        self._updateButtons()

    def onDownload(self) -> None:
        """Downloads the selected weights, or breaks the download off; it goes on next time."""
        if self._busy:
            self._process.end()
            self._finish(_("Stopped. The next download goes on from here."))
            return
        entry = self._selected().entry
        text = _("Download {title}, {size} MB, from {url}? Licence: {licence}.").format(
            title=entry.title, size=round(entry.bytes / 1e6), url=entry.url, licence=entry.licence
        )
        if slicer.util.confirmOkCancelDisplay(text, _("Models"), parent=self.dialog):
            self._send({"job": "download", "name": entry.name})

    def onImport(self) -> None:
        """Takes a file that came here by other means."""
        path = qt.QFileDialog.getOpenFileName(
            self.dialog, _("Import weights"), "", _("Weights (*.safetensors *.pt)")
        )
        if path:
            self.importFile(str(path))

    def importFile(self, path: str) -> None:
        """Checks and copies a file of weights into the cache."""
        self._send({"job": "import", "file": path})

    def onExport(self) -> None:
        """Copies the selected prior into a folder, for another computer."""
        weights = self._selected()
        folder = qt.QFileDialog.getExistingDirectory(
            self.dialog, _("Export {title} into a folder").format(title=shownTitle(weights))
        )
        if folder:
            from DiffuSAMLib.catalogue import export_file

            self._try(
                lambda: _("Exported to {file}.").format(file=export_file(weights.entry.name, str(folder)))
            )

    def onRemove(self) -> None:
        """Deletes the selected weights from this computer."""
        weights = self._selected()
        title = shownTitle(weights)
        text = _("Remove {title} from this computer?").format(title=title)
        if not slicer.util.confirmOkCancelDisplay(text, _("Models"), parent=self.dialog):
            return
        from DiffuSAMLib.catalogue import remove

        def removed() -> str:
            remove(weights.entry.name)
            return _("Removed {title}.").format(title=title)

        self._try(removed)

    def onClose(self) -> None:
        self.dialog.close()

    def show(self) -> None:
        self.refresh()
        self.dialog.show()

    def cleanup(self) -> None:
        """Ends what is under way and lets go of the window."""
        self._process.end()
        self.dialog.close()
        self.dialog.deleteLater()

    def _button(self, row, text: str, slot):
        button = qt.QPushButton(text)
        button.connect("clicked()", slot)
        row.addWidget(button)
        return button

    def _selected(self):
        row = self.table.currentRow()
        return self._listed[row] if 0 <= row < len(self._listed) else None

    def _updateButtons(self) -> None:
        weights = self._selected()
        can_download = (
            weights is not None and weights.entry.url is not None and weights.status != "downloaded"
        )
        self.downloadButton.text = _("Stop download") if self._busy else _("Download")
        self.downloadButton.enabled = self._busy or can_download
        self.downloadButton.toolTip = (
            "" if self.downloadButton.enabled else _("Select weights that are not here yet.")
        )
        exportable = weights is not None and weights.entry.kind == "prior" and weights.status == "imported"
        self.exportButton.enabled = exportable and not self._busy
        self.exportButton.toolTip = (
            self._waiting() if exportable else _("Select a prior that was trained here, or imported.")
        )
        removable = weights is not None and not weights.entry.bundled and weights.path.exists()
        self.removeButton.enabled = removable and not self._busy
        self.removeButton.toolTip = (
            self._waiting() if removable else _("Select weights that were downloaded or imported.")
        )
        self.importButton.enabled = not self._busy
        self.importButton.toolTip = self._waiting()
        self.progressBar.visible = self._busy
        if not self._busy:
            self.notes.text = self._about(weights)

    def _about(self, weights) -> str:
        """What the table has no room for: of the selected weights all that is known, else where weights lie."""
        if weights is None:
            return _("Weights are kept in {folder}.").format(folder=self._folder)
        text = _("{title}. Licence: {licence}.").format(
            title=weights.entry.title, licence=weights.entry.licence or _("not stated")
        )
        return f"{text} {weights.entry.notes}".strip()

    def _try(self, action) -> None:
        """Does what takes no time, and says what it returns, or why it cannot be done."""
        from DiffuSAMLib.errors import DiffuSAMError

        try:
            text = action()
        except DiffuSAMError as error:
            text = f"{error.message} {hintInModels(error.code, error.hint)}".strip()
        self._finish(text)

    def _waiting(self) -> str:
        """Why a button is disabled that could be used otherwise."""
        return _("Wait for the end of what is under way, or stop it.") if self._busy else ""

    def _send(self, job: dict) -> None:
        self._busy = True
        self.progressBar.value = 0
        self._updateButtons()
        self.notes.text = stageText(job["job"])
        try:
            self._process.send(job)
        except Exception as error:  # whatever it is, the dialog must be usable again
            self._finish(str(unforeseen(error)))

    def _take(self, event: dict) -> None:
        if event["event"] == "progress":
            self.progressBar.value = round(100 * event["done"] / max(1, event["total"]))
            self.notes.text = _("{stage}: {done} of {total} MB").format(
                stage=stageText(event["stage"]),
                done=round(event["done"] / 1e6),
                total=round(event["total"] / 1e6),
            )
        elif event["event"] == "done":
            self._finish(_("{name} is ready.").format(name=event["name"]))
        elif event["event"] == "error":
            self._finish(f"{event['message']} {hintInModels(event['code'], event['hint'])}".strip())

    def _finish(self, text: str) -> None:
        self._busy = False
        self.refresh()
        self.notes.text = text
        self._onChanged()

    def _onFinished(self, _result: int) -> None:
        self._process.end()
        self._busy = False


def _kindText(kind: str) -> str:
    return {"backbone": _("backbone"), "prior": _("prior")}[kind]


def _stateText(status: str) -> str:
    return {
        "bundled": _("bundled"),
        "downloaded": _("downloaded"),
        "imported": _("imported"),
        "not downloaded": _("not downloaded"),
        "damaged": _("damaged"),
    }[status]
