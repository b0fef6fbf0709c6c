"""How sure the network was of each voxel, as a volume beside the segmentation."""

from __future__ import annotations

from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from .scene_nodes import exists, placeBeside

ROLE = "DiffuSAM.Confidence"
"""Of the reference from a segmentation to this volume."""
# Of two labels that are equally likely, and of one that is certain.
LOWEST, HIGHEST = 0.5, 1.0


def readConfidence(path: Path):
    """The confidence map (z, y, x) of a file that the child process wrote."""
    import SimpleITK

    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def showConfidence(confidence, volumeNode, segmentationNode) -> None:
    """Puts a confidence map into the scene; that of an earlier run of the same segmentation gives way to it.

    :param confidence: array (z, y, x) on the volume's grid
    :param volumeNode: what was segmented
    :param segmentationNode: what was found in it
    """
    node = segmentationNode.GetNodeReference(ROLE)
    if not exists(node):
        node = _newVolume(volumeNode)
        segmentationNode.SetNodeReferenceID(ROLE, node.GetID())
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    slicer.util.updateVolumeFromArray(node, confidence)


def _newVolume(volumeNode):
    name = slicer.mrmlScene.GenerateUniqueName(_("{volume} confidence").format(volume=volumeNode.GetName()))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileViridis.txt")
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(LOWEST, HIGHEST)
    placeBeside(node, volumeNode)
    return node
