"""Labelled volumes of the scene, checked and written for the child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from .errors import SegmentationError
from .scene_nodes import exists
from .volume_export import exportOnGrid, exportVolume, hasVoxels
from .volume_modality import guessModality

MOST_ORGANS = 255


@dataclass(frozen=True)
class TrainingCase:
    """A scalar volume node, and the segmentation node that shows what is where in it."""

    volumeNode: object
    segmentationNode: object


def segmentNames(segmentationNode) -> list[str]:
    """Names of the segments, in their order."""
    if segmentationNode is None:
        return []
    segmentation = segmentationNode.GetSegmentation()
    return [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]


def organCounts(cases: list[TrainingCase]) -> dict[str, int]:
    """Every segment name in order of first appearance, with the number of segmentations that have it."""
    counts: dict[str, int] = {}
    for case in cases:
        for name in dict.fromkeys(segmentNames(case.segmentationNode)):
            counts[name] = counts.get(name, 0) + 1
    return counts


def whyNotTrain(cases: list[TrainingCase], organs: list[str]) -> str:
    """What stands in the way of a training, as one sentence; empty if nothing does."""
    if not cases:
        return _("Add at least one volume with its segmentation; three are a good start.")
    for number, case in enumerate(cases, start=1):
        reason = _whyNotCase(case, number)
        if reason:
            return reason
    volumes = [case.volumeNode for case in cases]
    twice = next((node for number, node in enumerate(volumes) if node in volumes[:number]), None)
    if twice is not None:
        return _("{volume} is listed twice; remove one of the two.").format(volume=twice.GetName())
    if not organs:
        return _("Check at least one organ.")
    if len(organs) > MOST_ORGANS:
        return _("A prior holds at most {most} organs; uncheck some.").format(most=MOST_ORGANS)
    for case in cases:
        names = segmentNames(case.segmentationNode)
        for organ in organs:
            if names.count(organ) != 1:
                return _whyNotOrgan(case.segmentationNode, organ, names.count(organ))
    return ""


def exportCase(
    case: TrainingCase, organs: list[str], folder: Path, number: int, modality: str | None
) -> dict:
    """Writes the volume and a label map of the organs on its grid.

    The transforms of the two are heeded where they differ; one that both share is left out.

    :param number: of the case, for the names of its files
    :param modality: "CT" or "MR"; None goes by DICOM, else by the values
    :return: the case as the job has it
    :raises SegmentationError: none of the organs has a voxel in the volume
    """
    image, labels = folder / f"volume_{number}.nrrd", folder / f"labels_{number}.nrrd"
    array = _labelArray(case, organs)
    if not array.any():
        text = _("{segmentation} holds no voxel of {organs} within {volume}.").format(
            segmentation=case.segmentationNode.GetName(),
            organs=", ".join(organs),
            volume=case.volumeNode.GetName(),
        )
        raise SegmentationError(text, _("Draw them in the Segment Editor, or take the volume out."))
    exportVolume(case.volumeNode, image)
    exportOnGrid(array, case.volumeNode, labels)
    return {
        "name": case.volumeNode.GetName(),
        "image": str(image),
        "labels": str(labels),
        "label_names": {str(value): name for value, name in enumerate(organs, start=1)},
        "modality": modality or guessModality(case.volumeNode),
    }


def _whyNotCase(case: TrainingCase, number: int) -> str:
    volumeNode, segmentationNode = case.volumeNode, case.segmentationNode
    if not exists(volumeNode):
        return _("Choose the volume of row {number}, or remove the row.").format(number=number)
    name = volumeNode.GetName()
    if not hasVoxels(volumeNode):
        return _("The volume {volume} is empty; load a CT or MR volume.").format(volume=name)
    if volumeNode.GetImageData().GetNumberOfScalarComponents() != 1:
        return _("{volume} is a colour or vector volume; choose a greyscale one.").format(volume=name)
    if not exists(segmentationNode):
        return _("Choose the segmentation of {volume}.").format(volume=name)
    if not segmentNames(segmentationNode):
        return _("{segmentation} has no segments; draw the organs in the Segment Editor.").format(
            segmentation=segmentationNode.GetName()
        )
    return ""


def _whyNotOrgan(segmentationNode, organ: str, count: int) -> str:
    if count:
        text = _("{segmentation} has {count} segments called {organ}; rename all but one.")
    else:
        text = _(
            "{segmentation} has no segment called {organ}; draw it, "
            "add an empty segment of that name if the volume does not show it, or uncheck it."
        )
    return text.format(segmentation=segmentationNode.GetName(), organ=organ, count=count)


def _labelArray(case: TrainingCase, organs: list[str]):
    """Labels (z, y, x) on the volume's grid, 1 for the first organ; where organs overlap the later one counts."""
    import numpy as np

    segmentation = case.segmentationNode.GetSegmentation()
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    hadBinary = segmentation.ContainsRepresentation(binary)
    # Slicer's own look-up by name takes Tumour for tumour.
    byName = {
        segmentation.GetNthSegment(n).GetName(): segmentation.GetNthSegmentID(n)
        for n in range(segmentation.GetNumberOfSegments())
    }
    identifiers = [byName[organ] for organ in organs]
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "__temp__")
    try:
        done = slicer.modules.segmentations.logic().ExportSegmentsToLabelmapNode(
            case.segmentationNode, identifiers, node, case.volumeNode
        )
        array = slicer.util.arrayFromVolume(node).astype(np.uint8) if done else None
    finally:
        display = node.GetDisplayNode()
        for own in (display.GetColorNode() if display is not None else None, display, node):
            if own is not None:
                slicer.mrmlScene.RemoveNode(own)
        if not hadBinary:
            # The export converts a segmentation of surfaces, and leaves the label maps in it.
            segmentation.RemoveRepresentation(binary)
    if array is None:
        text = _("{segmentation} cannot be converted to a label map.")
        raise SegmentationError(text.format(segmentation=case.segmentationNode.GetName()))
    return array
