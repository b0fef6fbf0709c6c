"""The lists and tables of the panel."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from .found_organs import FoundOrgans
from .library_location import addLibraryToPath

LARGEST_LOG = 5000


class OrganList:
    """A QListWidget with a check box for each organ of the prior.

    :param listWidget: of the panel
    :param onChanged: called with the names that are not checked, after the user changed one
    """

    def __init__(self, listWidget, onChanged: Callable[[list[str]], None]) -> None:
        self._list = listWidget
        self._onChanged = onChanged
        self._names: tuple[str, ...] = ()
        self._list.connect("itemChanged(QListWidgetItem*)", self._onItemChanged)

    def show(self, names: tuple[str, ...], skipped: list[str]) -> None:
        """Shows organs, with all but the skipped ones checked."""
        self._list.blockSignals(True)
        if names != self._names:
            self._names = names
            self._list.clear()
            for name in names:
                self._list.addItem(name)
        for row, name in enumerate(names):
            self._list.item(row).setCheckState(qt.Qt.Unchecked if name in skipped else qt.Qt.Checked)
        self._list.blockSignals(False)

    def checkAll(self, checked: bool) -> None:
        """Checks or unchecks every organ."""
        self._onChanged([] if checked else list(self._names))

    def _onItemChanged(self, _item: object) -> None:
        rows = range(len(self._names))
        self._onChanged([self._names[r] for r in rows if self._list.item(r).checkState() != qt.Qt.Checked])


class ResultTable:
    """A QTableWidget with what there is of each organ that was found.

    :param table: of the panel
    """

    def __init__(self, table) -> None:
        self._table = table
        self._found = FoundOrgans()
        self._table.setColumnCount(3)
        self._table.setHorizontalHeaderLabels([_("Organ"), _("Volume (ml)"), _("Confidence")])
        self._table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self._table.horizontalHeader().setStretchLastSection(True)
        self._table.verticalHeader().hide()

    def show(self, segmentationNode) -> None:
        """Shows the organs of a segmentation; None empties the table."""
        organs = self._found.of(segmentationNode)
        self._table.setRowCount(len(organs))
        for row, organ in enumerate(organs):
            texts = [organ.name, _("not found"), ""]
            if organ.volumeMl is not None:
                texts[1] = _volumeText(organ.volumeMl)
            if organ.confidence is not None:
                texts[2] = f"{100 * organ.confidence:.0f} %"
            for column, text in enumerate(texts):
                self._table.setItem(row, column, qt.QTableWidgetItem(text))


def _volumeText(volume_ml: float) -> str:
    addLibraryToPath()
    from DiffuSAMLib.volume_text import volume_text

    return volume_text(volume_ml)


class Lock:
    """Disables parts of the panel while something runs; whatever of them is hovered then says why.

    :param parts: widgets of the panel
    :param reason: a sentence on what to do
    """

    def __init__(self, parts: list, reason: str) -> None:
        self._parts = parts
        self._reason = reason
        self._toolTips: list[tuple[object, str]] = []

    def close(self) -> None:
        """Disables the parts."""
        self.open()
        for part in self._parts:
            part.enabled = False
            # The part itself is among them. Qt shows the tooltip of the innermost widget that has one.
            named = vars(slicer.util.childWidgetVariables(part))
            for widget in (named[name] for name in named if _isOurs(name)):
                if hasattr(widget, "toolTip"):
                    self._toolTips.append((widget, widget.toolTip))
                    widget.toolTip = self._reason

    def open(self) -> None:
        """Enables them again."""
        for part in self._parts:
            part.enabled = True
        for widget, toolTip in self._toolTips:
            widget.toolTip = toolTip
        self._toolTips = []


def _isOurs(name: str) -> bool:
    """Whether a widget is named in the .ui file; Qt's own parts and cells of tables may go at any time."""
    return bool(name) and not name.startswith("qt_")


def prepareLog(textWidget) -> None:
    """Bounds the log, so that a chatty library does not fill the memory."""
    textWidget.setMaximumBlockCount(LARGEST_LOG)
