"""Which modality a volume is of: as DICOM says, or as its values suggest."""

from __future__ import annotations

import slicer

from .lib_location import addLibraryToPath

MODALITIES = ("CT", "MR")


def dicomModality(volumeNode) -> str:
    """What DICOM says, such as "CT", "MR" or "PT"; empty where a volume does not come from DICOM."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volumeNode)
    return hierarchy.GetItemAttribute(item, "DICOM.Modality")


def guessModality(volumeNode) -> str:
    """CT or MR: as DICOM says, or else by the values."""
    tagged = dicomModality(volumeNode)
    if tagged in MODALITIES:
        return tagged
    addLibraryToPath()
    from DiffuSAMLib.volumes import guess_modality

    return guess_modality(slicer.util.arrayFromVolume(volumeNode))
