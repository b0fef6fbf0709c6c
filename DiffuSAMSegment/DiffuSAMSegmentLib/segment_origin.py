"""In which volume a segment was found, so that only what was found in the same one is ever replaced.

The segment's tag holds a key, and the segmentation node refers to the volume under that key: an ID of the volume in the
tag would be another volume's once the scene is added to another one, while MRML keeps references up to date.
"""

from __future__ import annotations

import uuid

import slicer
import vtk

ORIGIN_TAG = "DiffuSAM.Volume"


def originKey(segmentationNode, volumeNode) -> str:
    """What the tag of a segment holds that was found in a volume; from now on the segmentation refers to it."""
    for number in range(segmentationNode.GetNumberOfNodeReferenceRoles()):
        role = segmentationNode.GetNthNodeReferenceRole(number)
        if role.startswith(_role("")) and segmentationNode.GetNodeReference(role) is volumeNode:
            return role[len(_role("")) :]
    # Not a number: a segment that is copied into another segmentation shall find no volume under its key there.
    key = uuid.uuid4().hex[:12]
    segmentationNode.SetNodeReferenceID(_role(key), volumeNode.GetID())
    return key


def wasFoundIn(volumeNode, segment, segmentationNode) -> bool:
    """Whether a run found a segment in a volume."""
    key = segmentTag(segment, ORIGIN_TAG)
    if not key:
        return False
    if segmentationNode.GetNodeReference(_role(key)) is volumeNode:
        return True
    # Scenes of earlier versions hold an ID, to be believed only where the segmentation is on that volume's grid.
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return key == volumeNode.GetID() and segmentationNode.GetNodeReference(role) is volumeNode


def segmentTag(segment, name: str) -> str:
    """The value of a tag; empty without it."""
    value = vtk.mutable("")
    return str(value) if segment.GetTag(name, value) else ""


def _role(key: str) -> str:
    return f"{ORIGIN_TAG}.{key}"
