"""The table of labelled volumes in the section Train."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from .segmentation_output import reportOf
from .training_export import TrainingCase

_COLUMNS = ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode")


class CaseTable:
    """A QTableWidget with a volume and its segmentation in each row.

    :param table: of the panel
    :param onChanged: called with the cases, after the user changed one
    """

    def __init__(self, table, onChanged: Callable[[list[TrainingCase]], None]) -> None:
        self._table = table
        self._onChanged = onChanged
        self._rows: list[tuple] = []
        self._updating = False
        table.setColumnCount(len(_COLUMNS))
        table.setHorizontalHeaderLabels([_("Volume"), _("Segmentation")])
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        table.verticalHeader().hide()
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)

    def show(self, cases: list[TrainingCase]) -> None:
        """Shows cases; a node may be None."""
        self._updating = True
        while len(self._rows) > len(cases):
            self._rows.pop()
            self._table.setRowCount(len(self._rows))
        while len(self._rows) < len(cases):
            self._addRow()
        for selectors, case in zip(self._rows, cases):
            for selector, node in zip(selectors, (case.volumeNode, case.segmentationNode)):
                if selector.currentNode() is not node:
                    selector.setCurrentNode(node)
        self._updating = False

    def addCase(self) -> None:
        """Appends the next volume that has a segmentation of its own, else an empty row."""
        cases = self._cases()
        self._onChanged([*cases, nextCase([case.volumeNode for case in cases])])

    def removeCase(self) -> None:
        """Removes the selected row, else the last one."""
        cases = self._cases()
        row = self._table.currentRow()
        if cases:
            del cases[row if 0 <= row < len(cases) else -1]
            self._onChanged(cases)

    def _addRow(self) -> None:
        row = len(self._rows)
        self._table.setRowCount(row + 1)
        selectors = tuple(self._selector(kind) for kind in _COLUMNS)
        for column, selector in enumerate(selectors):
            self._table.setCellWidget(row, column, selector)
        self._rows.append(selectors)

    def _selector(self, kind: str):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = [kind]
        selector.showChildNodeTypes = False
        selector.noneEnabled = True
        selector.addEnabled = False
        selector.removeEnabled = False
        selector.setMRMLScene(slicer.mrmlScene)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", self._onNodeChanged)
        return selector

    def _onNodeChanged(self, _node: object) -> None:
        if self._updating or slicer.mrmlScene.IsClosing() or slicer.mrmlScene.IsImporting():
            return
        cases = self._cases()
        for number, case in enumerate(cases):
            if case.volumeNode is not None and case.segmentationNode is None:
                cases[number] = TrainingCase(case.volumeNode, segmentationOf(case.volumeNode))
        self._onChanged(cases)

    def _cases(self) -> list[TrainingCase]:
        return [TrainingCase(*(selector.currentNode() for selector in row)) for row in self._rows]


def segmentationOf(volumeNode):
    """The first segmentation that was drawn on a volume, or None; what this module found does not count."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetNodeReference(role) is volumeNode and reportOf(node) is None:
            return node
    return None


def nextCase(taken: list) -> TrainingCase:
    """The first volume of the scene that is not taken and has a segmentation; an empty case if there is none."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node not in taken and segmentationOf(node) is not None:
            return TrainingCase(node, segmentationOf(node))
    return TrainingCase(None, None)
