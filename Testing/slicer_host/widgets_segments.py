"""Slicer's widgets for the segments of a segmentation."""

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt

from .host_class import from_facts, host_property, register, state
from .observers import Observers
from .widgets_ctk import ctkMenuButton, row
from .widgets_mrml import qMRMLWidget


def _column(name: str, index: int) -> Any:
    return host_property(
        "bool",
        name,
        get=lambda self: not state(self).table.isColumnHidden(index),
        put=lambda self, value: state(self).table.setColumnHidden(index, not value),
    )


@register
class qMRMLSegmentsTableView(from_facts("qMRMLSegmentsTableView", qMRMLWidget)):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        own = state(self)
        own.table, own.node, own.ids, own.observers = QtWidgets.QTableWidget(0, 4), None, (), Observers(self)
        own.table.setHorizontalHeaderLabels(["", "", "Opacity", "Name"])
        own.table.horizontalHeader().setStretchLastSection(True)
        own.table.verticalHeader().hide()
        own.table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectionBehavior.SelectRows)
        own.table.itemChanged.connect(self._edited)
        row(self, own.table)
        own.table.selectionModel().selectionChanged.connect(
            lambda new, old: self.selectionChanged.emit(new, old)
        )

    def _update(self) -> None:
        own, chosen = state(self), self.selectedSegmentIDs()
        segmentation = own.node.GetSegmentation() if own.node else None
        display = own.node.GetDisplayNode() if own.node else None
        own.ids = tuple(segmentation.GetSegmentIDs()) if segmentation else ()
        blocked = own.table.blockSignals(True)
        own.table.setRowCount(len(own.ids))
        for index, segment_id in enumerate(own.ids):
            segment = segmentation.GetSegment(segment_id)
            shown = QtWidgets.QTableWidgetItem()
            visible = bool(display and display.GetSegmentVisibility(segment_id))
            shown.setCheckState(Qt.CheckState.Checked if visible else Qt.CheckState.Unchecked)
            colour = QtWidgets.QTableWidgetItem()
            colour.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            opacity = display.GetSegmentOpacity3D(segment_id) if display else 1.0
            cells = [shown, colour, QtWidgets.QTableWidgetItem(f"{opacity:.2f}")]
            for column, cell in enumerate([*cells, QtWidgets.QTableWidgetItem(segment.GetName())]):
                own.table.setItem(index, column, cell)
        own.table.resizeColumnsToContents()
        own.table.blockSignals(blocked)
        self.setSelectedSegmentIDs([i for i in chosen if i in own.ids])

    def _edited(self, item: QtWidgets.QTableWidgetItem) -> None:
        own, segment_id = state(self), state(self).ids[item.row()]
        self.segmentAboutToBeModified.emit(segment_id)
        if item.column() == 0:
            visible = item.checkState() == Qt.CheckState.Checked
            own.node.GetDisplayNode().SetSegmentVisibility(segment_id, visible)
        elif item.column() == 3:
            own.node.GetSegmentation().GetSegment(segment_id).SetName(item.text())

    def segmentationNode(self) -> Any:
        return state(self).node

    def setSegmentationNode(self, node: Any) -> None:
        if node is not None and not node.IsA("vtkMRMLSegmentationNode"):
            raise TypeError(f"qMRMLSegmentsTableView.setSegmentationNode(): {node.GetClassName()}")
        own = state(self)
        own.observers.clear()
        own.node = node
        if node is not None:
            events = slicer.vtkSegmentation
            for event in (
                events.SegmentAdded,
                events.SegmentRemoved,
                events.SegmentModified,
                events.SegmentsOrderModified,
            ):
                own.observers.add(node.GetSegmentation(), event, "_update")
            own.observers.add(node, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent, "_update")
        self._update()

    segmentCount = host_property("int", "segmentCount", get=lambda self: len(state(self).ids))
    headerVisible = host_property(
        "bool",
        "headerVisible",
        get=lambda self: not state(self).table.horizontalHeader().isHidden(),
        put=lambda self, value: state(self).table.horizontalHeader().setVisible(value),
    )
    selectionMode = host_property(
        "QVariant",
        "selectionMode",
        get=lambda self: state(self).table.selectionMode,
        put=lambda self, value: state(self).table.setSelectionMode(
            QtWidgets.QAbstractItemView.SelectionMode(value)
        ),
    )

    visibilityColumnVisible = _column("visibilityColumnVisible", 0)
    colorColumnVisible = _column("colorColumnVisible", 1)
    opacityColumnVisible = _column("opacityColumnVisible", 2)
    statusColumnVisible = host_property("bool", "statusColumnVisible", default=False)
    layerColumnVisible = host_property("bool", "layerColumnVisible", default=False)
    filterBarVisible = host_property("bool", "filterBarVisible", default=False)
    jumpToSelectedSegmentEnabled = host_property("bool", "jumpToSelectedSegmentEnabled", default=False)
    readOnly = host_property("bool", "readOnly", default=False)

    def setReadOnly(self, value: bool) -> None:
        self.readOnly = value
        triggers = QtWidgets.QAbstractItemView.EditTrigger
        state(self).table.setEditTriggers(triggers.NoEditTriggers if value else triggers.DoubleClicked)

    def setSelectionMode(self, mode: int) -> None:
        self.selectionMode = mode

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        own = state(self)
        return tuple(
            own.ids[i.row()] for i in own.table.selectionModel().selectedRows() if i.row() < len(own.ids)
        )

    def setSelectedSegmentIDs(self, segment_ids: Any) -> None:
        own = state(self)
        flags = QtCore.QItemSelectionModel.SelectionFlag
        chosen = QtCore.QItemSelection()
        last = own.table.columnCount - 1
        for segment_id in segment_ids:
            index = own.ids.index(segment_id)
            chosen.select(own.table.model().index(index, 0), own.table.model().index(index, last))
        own.table.selectionModel().select(chosen, flags.ClearAndSelect)

    def clearSelection(self) -> None:
        state(self).table.clearSelection()

    def displayedSegmentIDs(self) -> tuple[str, ...]:
        return state(self).ids

    def rowForSegmentID(self, segment_id: str) -> int:
        return state(self).ids.index(segment_id) if segment_id in state(self).ids else -1

    def segmentIDForRow(self, index: int) -> str:
        return state(self).ids[index]

    def tableWidget(self) -> QtWidgets.QTableView:
        return state(self).table


@register
class qMRMLSegmentationShow3DButton(from_facts("qMRMLSegmentationShow3DButton", ctkMenuButton)):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        own = state(self)
        own.node, own.observers = None, Observers(self)
        self.setText("Show 3D")
        self.setCheckable(True)
        self.setEnabled(False)
        self.clicked.connect(self._clicked)

    def segmentationNode(self) -> Any:
        return state(self).node

    def setSegmentationNode(self, node: Any) -> None:
        own = state(self)
        own.observers.clear()
        own.node = node
        if node is not None:
            events = slicer.vtkSegmentation
            for event in (
                events.SegmentAdded,
                events.SegmentRemoved,
                events.ContainedRepresentationNamesModified,
            ):
                own.observers.add(node.GetSegmentation(), event, "_update")
            own.observers.add(node, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent, "_update")
        self._update()

    def _surface(self) -> str:
        return slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()

    def _update(self) -> None:
        node = state(self).node
        self.enabled = bool(node and not self.locked and node.GetSegmentation().GetNumberOfSegments())
        display = node.GetDisplayNode() if node else None
        contained = bool(node and node.GetSegmentation().ContainsRepresentation(self._surface()))
        self.checked = bool(contained and display and display.GetVisibility() and display.GetVisibility3D())

    def _clicked(self, checked: bool) -> None:
        node = state(self).node
        node.CreateDefaultDisplayNodes()
        if checked:
            node.CreateClosedSurfaceRepresentation()
            node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(self._surface())
            node.GetDisplayNode().SetVisibility(True)
            node.GetDisplayNode().SetVisibility3D(True)
        else:
            node.RemoveClosedSurfaceRepresentation()
        self._update()

    locked = host_property("bool", "locked", default=False)

    def setLocked(self, locked: bool) -> None:
        self.locked = locked
        self._update()
