"""What a segmentation node holds, to be put back when a run of several steps is stopped."""

from __future__ import annotations

import slicer

from .scene_nodes import exists, segmentIDs, volumeOf
from .segmentation_output import REPORT_ATTRIBUTE


class SegmentationSnapshot:
    """A copy of the segments of a node, of whether each is shown, and of the run report in the node.

    :param segmentationNode: stays as it is
    """

    def __init__(self, segmentationNode) -> None:
        self._node = segmentationNode
        self._segmentation = slicer.vtkSegmentation()
        self._segmentation.DeepCopy(segmentationNode.GetSegmentation())
        self._report = segmentationNode.GetAttribute(REPORT_ATTRIBUTE)
        self._hasVolume = volumeOf(segmentationNode) is not None
        display = segmentationNode.GetDisplayNode()
        self._shown = {
            identifier: display.GetSegmentVisibility(identifier)
            for identifier in (segmentIDs(segmentationNode) if display is not None else ())
        }

    def restore(self) -> None:
        """Puts everything back, if the node is still in the scene."""
        if not exists(self._node):
            return
        self._node.GetSegmentation().DeepCopy(self._segmentation)
        for identifier, shown in self._shown.items():
            self._node.GetDisplayNode().SetSegmentVisibility(identifier, shown)
        if self._report is None:
            self._node.RemoveAttribute(REPORT_ATTRIBUTE)
        else:
            self._node.SetAttribute(REPORT_ATTRIBUTE, self._report)
        if not self._hasVolume:
            role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
            self._node.RemoveNodeReferenceIDs(role)
