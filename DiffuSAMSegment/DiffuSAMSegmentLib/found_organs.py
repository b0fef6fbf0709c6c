"""What a segmentation holds now of the organs that runs found in it: the user may have edited it since."""

from __future__ import annotations

from dataclasses import dataclass

import slicer
import vtk

from .scene_nodes import segmentIDs
from .segment_origin import segmentTag
from .segmentation_output import ORGAN_TAG, reportOf


@dataclass(frozen=True)
class FoundOrgan:
    """An organ of the result.

    :param name: as the segment is called
    :param volumeMl: of the segment as it is now; None where the last run did not find the organ
    :param confidence: 0 to 1; None where it is not known, or the segment was edited since
    """

    name: str
    volumeMl: float | None = None
    confidence: float | None = None


class FoundOrgans:
    """Measures segments, and those only again that have changed."""

    def __init__(self) -> None:
        self._voxels: dict[tuple, int] = {}

    def of(self, segmentationNode) -> list[FoundOrgan]:
        """The organs of a segmentation, None being none, and at the end those that the last run did not find."""
        report = reportOf(segmentationNode)
        if report is None:
            return []
        records = {organ["name"]: organ for organ in report["organs"]}
        found, seen, measured = [], set(), {}
        segmentation = segmentationNode.GetSegmentation()
        for identifier in segmentIDs(segmentationNode):
            segment = segmentation.GetSegment(identifier)
            organ = segmentTag(segment, ORGAN_TAG)
            representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
            image = segment.GetRepresentation(representation)
            if not organ or image is None or image.GetPointData().GetScalars() is None:
                continue
            seen.add(organ)
            key = (identifier, image.GetMTime(), segment.GetLabelValue())
            voxels = self._voxels.get(key)
            measured[key] = voxels = _count(image, key[2]) if voxels is None else voxels
            record = records.get(organ)
            same = record is not None and record["present"] and record["voxels"] == voxels
            found.append(
                FoundOrgan(
                    segment.GetName(), voxels * _voxelMl(image), record["mean_confidence"] if same else None
                )
            )
        self._voxels = measured
        missing = [name for name, organ in records.items() if not organ["present"] and name not in seen]
        return found + [FoundOrgan(name) for name in missing]


def _count(image, value: int) -> int:
    import numpy as np
    from vtk.util.numpy_support import vtk_to_numpy

    return int(np.count_nonzero(vtk_to_numpy(image.GetPointData().GetScalars()) == value))


def _voxelMl(image) -> float:
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return abs(matrix.Determinant()) / 1000
