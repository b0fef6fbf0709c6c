"""Slicer's MRML widgets, as far as a segmentation module's panel uses them."""

from __future__ import annotations

import weakref
from typing import Any

import shiboken6
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt

from .host_class import from_facts, host_property, register, state
from .widgets_ctk import ctkDoubleSpinBox, ctkMenuButton, ctkSliderWidget, row


class Observers:
    """VTK observers of a widget, which end with the widget."""

    def __init__(self, widget: QtCore.QObject) -> None:
        self._widget = weakref.ref(widget)
        self._tags: list[tuple[weakref.ref, int]] = []
        tags = self._tags
        widget.destroyed.connect(lambda: Observers._remove(tags))

    @staticmethod
    def _remove(tags: list[tuple[weakref.ref, int]]) -> None:
        for observed, tag in tags:
            if observed() is not None:
                observed().RemoveObserver(tag)
        tags.clear()

    def clear(self) -> None:
        self._remove(self._tags)

    def add(self, observed: Any, event: Any, method: str, *, call_data: bool = False) -> None:
        widget = self._widget

        def callback(caller: Any, event_name: str, data: Any = None) -> None:
            instance = widget()
            if instance is not None and shiboken6.isValid(instance):
                getattr(instance, method)(*([data] if call_data else []))

        if call_data:
            callback.CallDataType = vtk.VTK_OBJECT
        self._tags.append((weakref.ref(observed), observed.AddObserver(event, callback)))


@register
class qMRMLWidget(from_facts("qMRMLWidget", QtWidgets.QWidget)):
    def mrmlScene(self) -> Any:
        return state(self).__dict__.get("scene")

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self.mrmlScene():
            state(self).scene = scene
            self.mrmlSceneChanged.emit(scene)


@register
class qSlicerWidget(from_facts("qSlicerWidget", QtWidgets.QWidget)):
    def setMRMLScene(self, scene: Any) -> None:
        state(self).scene = scene
        self.mrmlSceneChanged.emit(scene)


def _filter(kind: str, name: str, default: Any) -> Any:
    """A property that decides which nodes are in the list."""

    def put(self: Any, value: Any) -> None:
        if state(self).__dict__.get(name) != value:
            state(self).__dict__[name] = value
            self._refill()

    return host_property(kind, name, get=lambda self: state(self).__dict__.setdefault(name, default), put=put)


@register
class qMRMLNodeComboBox(from_facts("qMRMLNodeComboBox", QtWidgets.QWidget)):
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        own = state(self)
        own.combo, own.scene, own.attributes, own.labels = QtWidgets.QComboBox(), None, {}, {}
        own.observers, own.node_observers, own.last = Observers(self), Observers(self), None
        own.combo.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        row(self, own.combo)
        own.combo.currentIndexChanged.connect(lambda index: self._report())
        own.combo.activated.connect(lambda index: self.nodeActivated.emit(self.currentNode()))
        self._refill()

    # What the list holds.

    def _fits(self, node: Any) -> bool:
        if node is None or (node.GetHideFromEditors() and not self.showHidden):
            return False
        for kind in self.nodeTypes:
            if not (node.IsA(kind) if self.showChildNodeTypes else node.GetClassName() == kind):
                continue
            if any(node.IsA(hidden) for hidden in self.hideChildNodeTypes):
                continue
            wanted = {name: value for (of, name), value in state(self).attributes.items() if of == kind}
            return all(
                node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name))
                for name, value in wanted.items()
            )
        return False

    def _refill(self) -> None:
        """Builds the list anew, with the node kept that was chosen; the first one is taken where one must be."""
        own, chosen = state(self), self.currentNodeID
        own.node_observers.clear()
        blocked = own.combo.blockSignals(True)
        own.combo.clear()
        if self.noneEnabled:
            own.combo.addItem(self.noneDisplay, "")
        nodes = own.scene.GetNodes() if own.scene is not None else None
        for index in range(nodes.GetNumberOfItems() if nodes else 0):
            self._append(nodes.GetItemAsObject(index))
        if own.combo.findData(chosen) >= 0:
            own.combo.setCurrentIndex(own.combo.findData(chosen))
        own.combo.blockSignals(blocked)
        self._report()

    def _append(self, node: Any) -> None:
        if self._fits(node) and state(self).combo.findData(node.GetID()) < 0:
            state(self).combo.addItem(node.GetName() or "", node.GetID())
            state(self).node_observers.add(node, vtk.vtkCommand.ModifiedEvent, "_rename")

    def _rename(self) -> None:
        combo = state(self).combo
        for index in range(combo.count):
            node = self._node(combo.itemData(index))
            if node is not None and combo.itemText(index) != node.GetName():
                combo.setItemText(index, node.GetName())
                if index == combo.currentIndex:
                    self.currentNodeRenamed.emit(node.GetName())

    def _added(self, node: Any) -> None:
        if not state(self).scene.IsBatchProcessing():
            self._append(node)
            if self._fits(node):
                self.nodeAdded.emit(node)

    def _removed(self, node: Any) -> None:
        index = state(self).combo.findData(node.GetID())
        if index >= 0:
            self.nodeAboutToBeRemoved.emit(node)
            # As in Qt, a neighbour is chosen when the chosen one goes.
            state(self).combo.removeItem(index)
            self._report()

    def _batch_ended(self) -> None:
        self._refill()

    def _report(self) -> None:
        node = self.currentNode()
        if (node and node.GetID()) == state(self).last:
            return
        state(self).last = node and node.GetID()
        self._currentNodeChanged_vtkMRMLNode_.emit(node)
        self._currentNodeChanged_bool_.emit(node is not None)
        self.currentNodeIDChanged.emit(state(self).last or "")

    def _node(self, node_id: str | None) -> Any:
        scene = state(self).scene
        return scene.GetNodeByID(node_id) if scene is not None and node_id else None

    nodeTypes = _filter("QStringList", "nodeTypes", ())
    showHidden = _filter("bool", "showHidden", False)
    showChildNodeTypes = _filter("bool", "showChildNodeTypes", True)
    hideChildNodeTypes = _filter("QStringList", "hideChildNodeTypes", ())
    noneEnabled = _filter("bool", "noneEnabled", False)
    noneDisplay = _filter("QString", "noneDisplay", "None")
    addEnabled = host_property("bool", "addEnabled", default=True)
    removeEnabled = host_property("bool", "removeEnabled", default=True)
    editEnabled = host_property("bool", "editEnabled", default=False)
    renameEnabled = host_property("bool", "renameEnabled", default=False)
    baseName = host_property("QString", "baseName", default="")
    selectNodeUponCreation = host_property("bool", "selectNodeUponCreation", default=True)
    currentNodeID = host_property(
        "QString",
        "currentNodeID",
        get=lambda self: state(self).combo.currentData or "",
        put=lambda self, value: self.setCurrentNodeID(value),
    )

    # What Python calls.

    def mrmlScene(self) -> Any:
        return state(self).scene

    def setMRMLScene(self, scene: Any) -> None:
        own = state(self)
        own.observers.clear()
        own.scene = scene
        if scene is not None:
            own.observers.add(scene, slicer.vtkMRMLScene.NodeAddedEvent, "_added", call_data=True)
            own.observers.add(
                scene, slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, "_removed", call_data=True
            )
            for event in ("EndCloseEvent", "EndImportEvent", "EndRestoreEvent", "EndBatchProcessEvent"):
                own.observers.add(scene, getattr(slicer.vtkMRMLScene, event), "_batch_ended")
        self._refill()

    def currentNode(self) -> Any:
        return self._node(state(self).combo.currentData)

    def setCurrentNode(self, node: Any) -> None:
        if node is not None and not isinstance(node, str | slicer.vtkMRMLNode):
            raise TypeError(f"qMRMLNodeComboBox.setCurrentNode() takes a node or an ID, not {node!r}.")
        self.setCurrentNodeID(node if isinstance(node, str) else node.GetID() if node else "")

    def setCurrentNodeID(self, node_id: str) -> None:
        combo = state(self).combo
        combo.setCurrentIndex(combo.findData(node_id) if node_id or self.noneEnabled else -1)

    def setCurrentNodeIndex(self, index: int) -> None:
        state(self).combo.setCurrentIndex(index + self.noneEnabled)

    def nodeCount(self) -> int:
        return state(self).combo.count - self.noneEnabled

    def nodeFromIndex(self, index: int) -> Any:
        return self._node(state(self).combo.itemData(index + self.noneEnabled))

    def addAttribute(self, node_type: str, name: str, value: Any = None) -> None:
        state(self).attributes[node_type, name] = value
        self._refill()

    def removeAttribute(self, node_type: str, name: str) -> None:
        state(self).attributes.pop((node_type, name), None)
        self._refill()

    def nodeTypeLabel(self, node_type: str) -> str:
        return state(self).labels.get(node_type, "")

    def setNodeTypeLabel(self, label: str, node_type: str) -> None:
        state(self).labels[node_type] = label

    def addNode(self, node_type: str = "") -> Any:
        """As "Create new ..." in the list."""
        scene = state(self).scene
        if scene is None or not self.nodeTypes:
            return None
        node = scene.CreateNodeByClass(node_type or self.nodeTypes[0])
        node.UnRegister(None)
        for (of, name), value in state(self).attributes.items():
            if node.IsA(of) and value is not None:
                node.SetAttribute(name, str(value))
        node.SetName(scene.GenerateUniqueName(self.baseName or node.GetNodeTagName()))
        node = scene.AddNode(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        if self.currentNode() is not None:
            state(self).scene.RemoveNode(self.currentNode())


@register
class qMRMLCheckableNodeComboBox(from_facts("qMRMLCheckableNodeComboBox", qMRMLNodeComboBox)):
    def checkedNodes(self) -> tuple:
        return tuple(n for n in map(self.nodeFromIndex, range(self.nodeCount())) if self._is_checked(n))

    def uncheckedNodes(self) -> tuple:
        return tuple(n for n in map(self.nodeFromIndex, range(self.nodeCount())) if not self._is_checked(n))

    def _is_checked(self, node: Any) -> bool:
        return node.GetID() in state(self).__dict__.setdefault("checked", set())

    def check(self, node: Any) -> None:
        self.setCheckState(node, Qt.CheckState.Checked)

    def uncheck(self, node: Any) -> None:
        self.setCheckState(node, Qt.CheckState.Unchecked)

    def checkState(self, node: Any) -> Qt.CheckState:
        return Qt.CheckState.Checked if self._is_checked(node) else Qt.CheckState.Unchecked

    def setCheckState(self, node: Any, check: Qt.CheckState) -> None:
        if self.checkState(node) != check:
            state(self).checked ^= {node.GetID()}
            self.checkedNodesChanged.emit()

    def noneChecked(self) -> bool:
        return not self.checkedNodes()

    def allChecked(self) -> bool:
        return not self.uncheckedNodes()


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
        self.enabled = bool(node and node.GetSegmentation().GetNumberOfSegments())
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


@register
class qMRMLSliderWidget(from_facts("qMRMLSliderWidget", ctkSliderWidget)):
    quantity = host_property("QString", "quantity", default="")

    def mrmlScene(self) -> Any:
        return state(self).__dict__.get("scene")

    def setMRMLScene(self, scene: Any) -> None:
        state(self).scene = scene


@register
class qMRMLSpinBox(from_facts("qMRMLSpinBox", ctkDoubleSpinBox)):
    quantity = host_property("QString", "quantity", default="")

    def mrmlScene(self) -> Any:
        return state(self).__dict__.get("scene")

    def setMRMLScene(self, scene: Any) -> None:
        state(self).scene = scene
