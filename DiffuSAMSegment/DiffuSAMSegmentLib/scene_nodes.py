"""Nodes of the scene: whether they are there, what goes with them, and what volumes and segmentations hold."""

from __future__ import annotations

import slicer


def exists(node) -> bool:
    """Whether a node is still in the scene."""
    return node is not None and bool(slicer.mrmlScene.IsNodePresent(node))


def removeNode(node) -> None:
    """Removes a node with what was made for it alone."""
    for own in (node.GetDisplayNode(), node.GetStorageNode()):
        if own is not None:
            slicer.mrmlScene.RemoveNode(own)
    slicer.mrmlScene.RemoveNode(node)


def placeBeside(node, other) -> None:
    """Puts a node into the folder of the subject hierarchy that another is in."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(other))
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), parent)


def volumeOf(segmentationNode):
    """The volume on whose grid a segmentation is, or None."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentationNode.GetNodeReference(role)


def segmentIDs(node) -> list[str]:
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]


def shape(volumeNode) -> tuple[int, int, int]:
    """Voxels of a volume node as (z, y, x)."""
    x, y, z = volumeNode.GetImageData().GetDimensions()
    return z, y, x
