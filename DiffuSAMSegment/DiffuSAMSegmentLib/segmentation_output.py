"""Organs in a segmentation node: as they appear, as the final result, or gone again."""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

from .scene_nodes import placeBeside, removeNode, segmentIDs, volumeOf
from .segment_origin import ORIGIN_TAG, originKey, segmentTag, wasFoundIn
from .sequence_frame import ShownFrame

ORGAN_TAG = "DiffuSAM.Organ"
REPORT_ATTRIBUTE = "DiffuSAM.Report"


class SegmentationOutput:
    """One shared-layer label map with a segment for each organ, in a new or an existing segmentation node.

    Segments that are already in the node stay as they are, except that those which an earlier run found of the
    same organs in the same volume give way once the new ones are complete.

    Meanwhile the user may edit the node, undo, or look at another frame of a sequence, which take the image from the
    segments, or put another segmentation into the node; neither may spoil the result or another frame's.

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
        self._array = self._image = self._scalars = None
        # Whether slices appeared that the image does not show yet.
        self._isBehind = False
        self._hadSurface = False
        self.node = segmentationNode if segmentationNode is not None else self._newNode()
        self._frame = ShownFrame(self.node)
        # As they are now: a volume of a sequence may show another frame later.
        self._dimensions = volumeNode.GetImageData().GetDimensions()
        self._imageToWorld = _imageToWorld(volumeNode, self.node)

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
            if segmentTag(segment, ORGAN_TAG) in names and wasFoundIn(self._volumeNode, segment, self.node):
                self._replaced.append(identifier)
        self._hidden = [i for i in self._replaced if self._display().GetSegmentVisibility(i)]
        for identifier in self._hidden:
            self._display().SetSegmentVisibility(identifier, False)
        self._newImage()
        for organ in self._organs:
            self._ids[organ.value] = segmentation.GenerateUniqueSegmentID(organ.name.replace(" ", "_"))
            self._addSegment(organ)

    def update(self, labels, boxes) -> None:
        """Copies the parts of the labels that changed.

        :param labels: array (z, y, x) on the volume's grid
        :param boxes: first and last + 1 along each axis, for each part
        """
        if not self._frame.isShown():
            self._isBehind = True
            return
        if self._isBehind or not self._isAttached():
            self._isBehind = False
            self._attach(labels)
            return
        for box in boxes:
            part = tuple(slice(low, high) for low, high in box)
            self._array[part] = labels[part]
        self._image.Modified()

    def finish(self, labels, report: str) -> None:
        """Puts the final labels in, lets the replaced segments go, and notes how they came about.

        :param labels: array (z, y, x) on the volume's grid
        :param report: the run report as JSON
        """
        self._frame.show()
        segmentation = self.node.GetSegmentation()
        absent = {value for value in self._ids if not (labels == value).any()}
        for organ in self._organs:
            if organ.value not in absent and segmentation.GetSegment(self._ids[organ.value]) is None:
                # The user deleted it meanwhile, or an undo did; the report counts it.
                self._addSegment(organ)
        self._attach(labels)
        for identifier in self._replaced:
            _removeSegment(segmentation, identifier)
        for value in absent:
            segmentation.RemoveSegment(self._ids[value])
        if volumeOf(self.node) is None:
            self.node.SetReferenceImageGeometryParameterFromVolumeNode(self._volumeNode)
        self._restoreSurface()
        self.node.SetAttribute(REPORT_ATTRIBUTE, report)

    def discard(self, labels=None) -> bool:
        """After Stop or an error: everything as before, or what was found so far kept beside it.

        :param labels: array (z, y, x) on the volume's grid, of what is to be kept; None keeps nothing
        :return: whether anything was kept
        """
        if slicer.mrmlScene is None or not slicer.mrmlScene.IsNodePresent(self.node):
            return False
        kept = labels is not None and bool(labels.any())
        if self._created and not kept:
            removeNode(self.node)
            return False
        self._frame.show()
        segmentation = self.node.GetSegmentation()
        if kept:
            self._attach(labels)
        images = self._imagesOfOthers()
        for value, identifier in self._ids.items():
            segment = segmentation.GetSegment(identifier)
            if segment is None:
                continue
            if not kept or not (labels == value).any():
                _clearIfAmong(images, segment)
                segmentation.RemoveSegment(identifier)
            else:
                # Neither the user nor a later run, which would let it go, shall take it for the whole organ.
                segment.SetName(_("{organ} (incomplete)").format(organ=segment.GetName()))
                segment.RemoveTag(ORGAN_TAG)
        for identifier in self._hidden:
            if segmentation.GetSegment(identifier) is not None:
                self._display().SetSegmentVisibility(identifier, True)
        self._restoreSurface()
        return kept

    def _newNode(self):
        name = slicer.mrmlScene.GenerateUniqueName(
            _("{volume} organs").format(volume=self._volumeNode.GetName())
        )
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        # First of all: what is written into a segmentation under no transform would get the volume's twice.
        node.SetAndObserveTransformNodeID(self._volumeNode.GetTransformNodeID())
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(self._volumeNode)
        placeBeside(node, self._volumeNode)
        return node

    def _addSegment(self, organ) -> None:
        segment = slicer.vtkSegment()
        segment.SetName(organ.name)
        segment.SetColor(*organ.color)
        segment.SetLabelValue(organ.value)
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), organ.terminology)
        segment.SetTag(ORGAN_TAG, organ.name)
        segment.SetTag(ORIGIN_TAG, originKey(self.node, self._volumeNode))
        segment.AddRepresentation(_binary(), self._image)
        self.node.GetSegmentation().AddSegment(segment, self._ids[organ.value])

    def _isAttached(self) -> bool:
        """Whether the segments still show the image, the image the array, and no other segment is in it."""
        segmentation = self.node.GetSegmentation()
        values = {identifier: value for value, identifier in self._ids.items()}
        for identifier in segmentIDs(self.node):
            segment = segmentation.GetSegment(identifier)
            isIn = segment.GetRepresentation(_binary()) is self._image
            if isIn != (identifier in values) or (isIn and segment.GetLabelValue() != values[identifier]):
                return False
        return self._image.GetPointData().GetScalars() is self._scalars

    def _attach(self, labels) -> None:
        """Gives the segments, as far as they are there, a new image that shows labels (z, y, x)."""
        segmentation = self.node.GetSegmentation()
        images = self._imagesOfOthers()
        self._newImage()
        self._array[:] = labels
        for value, identifier in self._ids.items():
            segment = segmentation.GetSegment(identifier)
            if segment is None:
                continue
            _clearIfAmong(images, segment)
            segment.AddRepresentation(_binary(), self._image)
            segment.SetLabelValue(value)
        self._image.Modified()

    def _imagesOfOthers(self) -> list:
        """The images of the segments that are not of this run."""
        segmentation = self.node.GetSegmentation()
        others = (identifier for identifier in segmentIDs(self.node) if identifier not in self._ids.values())
        return [segmentation.GetSegment(identifier).GetRepresentation(_binary()) for identifier in others]

    def _newImage(self) -> None:
        """Makes an empty image; the array (z, y, x) is a view of its voxels."""
        from vtk.util.numpy_support import vtk_to_numpy

        x, y, z = self._dimensions
        self._image = slicer.vtkOrientedImageData()
        self._image.SetDimensions(x, y, z)
        self._image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        self._image.SetImageToWorldMatrix(self._imageToWorld)
        self._scalars = self._image.GetPointData().GetScalars()
        self._array = vtk_to_numpy(self._scalars).reshape(z, y, x)
        self._array[:] = 0

    def _display(self):
        if self.node.GetDisplayNode() is None:
            self.node.CreateDefaultDisplayNodes()
        return self.node.GetDisplayNode()

    def _restoreSurface(self) -> None:
        if self._hadSurface:
            self.node.CreateClosedSurfaceRepresentation()


def outputFor(volumeNode):
    """The newest segmentation that a run made of a volume, or None."""
    if volumeNode is None:
        return None
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    own = [node for node in nodes if node.GetAttribute(REPORT_ATTRIBUTE) and volumeOf(node) is volumeNode]
    return own[-1] if own else None


def reportOf(segmentationNode) -> dict | None:
    """The run report that a segmentation carries; None also for one that a scene's file has damaged."""
    import json

    text = segmentationNode.GetAttribute(REPORT_ATTRIBUTE) if segmentationNode is not None else None
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _binary() -> str:
    return slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def _surface() -> str:
    return slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()


def _removeSegment(segmentation, identifier: str) -> None:
    """Removes a segment, if it is there, and its voxels."""
    segment = segmentation.GetSegment(identifier)
    if segment is not None:
        image, value = segment.GetRepresentation(_binary()), segment.GetLabelValue()
        segmentation.RemoveSegment(identifier)
        _clear(image, value)


def _clearIfAmong(images: list, segment) -> None:
    """Removes the voxels of a segment from its image, if that is one of those."""
    if any(segment.GetRepresentation(_binary()) is image for image in images):
        _clear(segment.GetRepresentation(_binary()), segment.GetLabelValue())


def _clear(image, value: int) -> None:
    """Removes the voxels of one label: those of a shared layer would stay, and pass to whoever gets the label."""
    from vtk.util.numpy_support import vtk_to_numpy

    if image is not None and image.GetPointData().GetScalars() is not None:
        array = vtk_to_numpy(image.GetPointData().GetScalars())
        array[array == value] = 0
        image.Modified()


def _imageToWorld(volumeNode, segmentationNode):
    """From the volume's voxels to the segmentation's own coordinates."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    vtk.vtkMatrix4x4.Multiply4x4(_relativeTransform(volumeNode, segmentationNode), matrix, matrix)
    return matrix


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
