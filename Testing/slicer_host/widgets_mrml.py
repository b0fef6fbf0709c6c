"""Slicer's MRML widgets, as far as a segmentation module's panel uses them."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets
from PySide6.QtCore import Qt

from .host_class import from_facts, host_property, register, state
from .observers import Observers
from .widgets_ctk import row
from .widgets_ctk_numbers import ctkDoubleSpinBox, ctkSliderWidget


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
