"""Organs in a segmentation node: as they appear, as the final result, or gone again."""

from __future__ import annotations

from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

ORGAN_TAG = "DiffuSAM.Organ"
VOLUME_TAG = "DiffuSAM.Volume"
REPORT_ATTRIBUTE = "DiffuSAM.Report"
PARTIAL_ATTRIBUTE = "DiffuSAM.Partial"


class SegmentationOutput:
    """One shared-layer label map with a segment for each organ, in a new or an existing segmentation node.

    Segments that are already in the node stay as they are, except that those which an earlier run found of the
    same organs in the same volume give way once the new ones are complete.

    :param volumeNode: the volume that is segmented
    :param segmentationNode: None makes a new node
    :param organs: DiffuSAMLib.terminology.Segment objects, in the order in which they are listed
    """

    def __init__(self, volumeNode, segmentationNode, organs) -> None:
        self._volumeNode = volumeNode
        self._organs = organs
        self._created = segmentationNode is None
        self._ids: dict[int, str] = {}
        self._replaced: list[str] = []
        self._hidden: list[str] = []
        self._array = self._image = None
        self._hadSurface = False
        self.node = segmentationNode if segmentationNode is not None else self._newNode()

    @staticmethod
    def whyNot(volumeNode, segmentationNode) -> str:
        """Why a segmentation cannot take the result; empty if it can."""
        if segmentationNode is None:
            return ""
        if segmentationNode.GetSegmentation().GetSourceRepresentationName() != _binary():
            return _(
                "The output segmentation does not store binary labelmaps; choose another, or convert it in Segmentations."
            )
        if _relativeTransform(volumeNode, segmentationNode) is None:
            return _(
                "The output segmentation and the volume are not under the same non-linear transform; "
                'choose "Create new segmentation".'
            )
        return ""

    def begin(self) -> None:
        """Adds empty segments; from now on `update` shows what appears."""
        segmentation = self.node.GetSegmentation()
        self._hadSurface = segmentation.ContainsRepresentation(_surface())
        if self._hadSurface:
            # Otherwise every slice that appears would rebuild all surfaces.
            self.node.RemoveClosedSurfaceRepresentation()
        names = {organ.name for organ in self._organs}
        for identifier in segmentIDs(self.node):
            segment = segmentation.GetSegment(identifier)
            if _tag(segment, ORGAN_TAG) in names and _tag(segment, VOLUME_TAG) == self._volumeNode.GetID():
                self._replaced.append(identifier)
        self._hidden = [i for i in self._replaced if self._display().GetSegmentVisibility(i)]
        for identifier in self._hidden:
            self._display().SetSegmentVisibility(identifier, False)
        self._image, self._array = self._newImage()
        for organ in self._organs:
            segment = slicer.vtkSegment()
            segment.SetName(organ.name)
            segment.SetColor(*organ.color)
            segment.SetLabelValue(organ.value)
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), organ.terminology)
            segment.SetTag(ORGAN_TAG, organ.name)
            segment.SetTag(VOLUME_TAG, self._volumeNode.GetID())
            segment.AddRepresentation(_binary(), self._image)
            identifier = segmentation.GenerateUniqueSegmentID(organ.name.replace(" ", "_"))
            segmentation.AddSegment(segment, identifier)
            self._ids[organ.value] = identifier

    def update(self, labels, boxes) -> None:
        """Copies the parts of the labels that changed.

        :param labels: array (z, y, x) on the volume's grid
        :param boxes: first and last + 1 along each axis, for each part
        """
        for box in boxes:
            part = tuple(slice(low, high) for low, high in box)
            self._array[part] = labels[part]
        self._image.Modified()

    def finish(self, labels, report: str) -> None:
        """Puts the final labels in, lets the replaced segments go, and notes how they came about.

        :param labels: array (z, y, x) on the volume's grid
        :param report: the run report as JSON
        """
        absent = [identifier for value, identifier in self._ids.items() if not (labels == value).any()]
        self._array[:] = labels
        self._image.Modified()
        segmentation = self.node.GetSegmentation()
        for identifier in self._replaced:
            _removeSegment(segmentation, identifier)
        for identifier in absent:
            segmentation.RemoveSegment(identifier)
        if volumeOf(self.node) is None:
            self.node.SetReferenceImageGeometryParameterFromVolumeNode(self._volumeNode)
        self._restoreSurface()
        self.node.SetAttribute(REPORT_ATTRIBUTE, report)
        self.node.RemoveAttribute(PARTIAL_ATTRIBUTE)

    def discard(self, keepPartial: bool = False) -> None:
        """After Stop or an error: everything as before, or what was found so far kept beside it."""
        if slicer.mrmlScene is None or not slicer.mrmlScene.IsNodePresent(self.node):
            return
        kept = keepPartial and bool(self._array.any())
        if self._created and not kept:
            removeNode(self.node)
            return
        segmentation = self.node.GetSegmentation()
        for value, identifier in self._ids.items():
            if not kept or not (self._array == value).any():
                segmentation.RemoveSegment(identifier)
            else:
                # No later run shall take it for a complete organ and let it go.
                segmentation.GetSegment(identifier).RemoveTag(ORGAN_TAG)
        for identifier in self._hidden:
            self._display().SetSegmentVisibility(identifier, True)
        if kept:
            self.node.SetAttribute(PARTIAL_ATTRIBUTE, "1")
        self._restoreSurface()

    def _newNode(self):
        name = slicer.mrmlScene.GenerateUniqueName(
            _("{volume} organs").format(volume=self._volumeNode.GetName())
        )
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        # First of all: what is written into a segmentation under no transform would get the volume's twice.
        node.SetAndObserveTransformNodeID(self._volumeNode.GetTransformNodeID())
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(self._volumeNode)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        volumeItem = hierarchy.GetItemByDataNode(self._volumeNode)
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), hierarchy.GetItemParent(volumeItem))
        return node

    def _newImage(self):
        from vtk.util.numpy_support import vtk_to_numpy

        x, y, z = self._volumeNode.GetImageData().GetDimensions()
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(x, y, z)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(z, y, x)
        array[:] = 0
        matrix = vtk.vtkMatrix4x4()
        self._volumeNode.GetIJKToRASMatrix(matrix)
        relative = _relativeTransform(self._volumeNode, self.node)
        vtk.vtkMatrix4x4.Multiply4x4(relative, matrix, matrix)
        image.SetImageToWorldMatrix(matrix)
        return image, array

    def _display(self):
        if self.node.GetDisplayNode() is None:
            self.node.CreateDefaultDisplayNodes()
        return self.node.GetDisplayNode()

    def _restoreSurface(self) -> None:
        if self._hadSurface:
            self.node.CreateClosedSurfaceRepresentation()


def volumeOf(segmentationNode):
    """The volume on whose grid a segmentation is, or None."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentationNode.GetNodeReference(role)


def outputFor(volumeNode):
    """The newest segmentation that a run made of a volume, or None."""
    if volumeNode is None:
        return None
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    own = [node for node in nodes if node.GetAttribute(REPORT_ATTRIBUTE) and volumeOf(node) is volumeNode]
    return own[-1] if own else None


def exists(node) -> bool:
    """Whether a node is still in the scene."""
    return node is not None and bool(slicer.mrmlScene.IsNodePresent(node))


def removeNode(node) -> None:
    """Removes a node with what was made for it alone."""
    for own in (node.GetDisplayNode(), node.GetStorageNode()):
        if own is not None:
            slicer.mrmlScene.RemoveNode(own)
    slicer.mrmlScene.RemoveNode(node)


def reportOf(segmentationNode) -> dict | None:
    """The run report that a segmentation carries; None also for one that a scene's file has damaged."""
    import json

    text = segmentationNode.GetAttribute(REPORT_ATTRIBUTE) if segmentationNode is not None else None
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def shape(volumeNode) -> tuple[int, int, int]:
    """Voxels of a volume node as (z, y, x)."""
    x, y, z = volumeNode.GetImageData().GetDimensions()
    return z, y, x


def openLabels(path: Path, size: tuple[int, int, int]):
    """The labels that the child process writes, read as it writes them."""
    import numpy as np

    return np.memmap(path, np.uint8, "r", shape=size)


def _binary() -> str:
    return slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def _surface() -> str:
    return slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()


def segmentIDs(node) -> list[str]:
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]


def _tag(segment, name: str) -> str:
    value = vtk.mutable("")
    return str(value) if segment.GetTag(name, value) else ""


def _removeSegment(segmentation, identifier: str) -> None:
    """Removes a segment and its voxels: those of a shared layer would stay, and pass to whoever gets its label."""
    from vtk.util.numpy_support import vtk_to_numpy

    segment = segmentation.GetSegment(identifier)
    image, value = segment.GetRepresentation(_binary()), segment.GetLabelValue()
    segmentation.RemoveSegment(identifier)
    if image is not None and image.GetPointData().GetScalars() is not None:
        array = vtk_to_numpy(image.GetPointData().GetScalars())
        array[array == value] = 0
        image.Modified()


def _relativeTransform(volumeNode, segmentationNode):
    """From the volume's own coordinates to the segmentation's as a matrix; None where that is not linear."""
    source, target = volumeNode.GetParentTransformNode(), segmentationNode.GetParentTransformNode()
    matrix = vtk.vtkMatrix4x4()
    if source is target:
        return matrix
    if any(node is not None and not node.IsTransformToWorldLinear() for node in (source, target)):
        return None
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix)
    return matrix
