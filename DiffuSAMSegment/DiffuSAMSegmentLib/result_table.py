"""The table of what there is of each organ."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from .found_organs import FoundOrgans
from .lib_location import addLibraryToPath


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
