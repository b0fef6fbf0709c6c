"""A volume node, and labels on its grid, as files for the child process."""

from __future__ import annotations

import sys
from pathlib import Path

import slicer
import vtk

_NRRD_TYPES = {
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "int64",
    "uint64": "uint64",
    "float32": "float",
    "float64": "double",
}


def hasVoxels(volumeNode) -> bool:
    """Whether a volume has its image already: nodes may be in the scene before, or their image be changed just now."""
    image = volumeNode.GetImageData() if volumeNode is not None else None
    scalars = image.GetPointData().GetScalars() if image is not None else None
    return scalars is not None and scalars.GetNumberOfTuples() == image.GetNumberOfPoints()


def exportVolume(volumeNode: slicer.vtkMRMLScalarVolumeNode, path: Path) -> None:
    """Writes an uncompressed NRRD whose voxels lie exactly as in the node.

    Slicer's own writers and readers may turn an axis round; here index (i, j, k) of the file is that of the node,
    so that labels come back without any reordering. Parent transforms are left out.
    """
    exportOnGrid(slicer.util.arrayFromVolume(volumeNode), volumeNode, path)


def exportOnGrid(array, volumeNode: slicer.vtkMRMLScalarVolumeNode, path: Path) -> None:
    """As `exportVolume`, with other values on the same grid.

    :param array: (z, y, x), of the node's shape
    """
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    # LPS is RAS with the first two world axes turned round.
    columns = [[(-1 if row < 2 else 1) * matrix.GetElement(row, c) for row in range(3)] for c in range(4)]
    vectors = ["({})".format(",".join(f"{value:.17g}" for value in column)) for column in columns]
    z, y, x = array.shape
    header = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[array.dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {x} {y} {z}",
        f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain",
        f"endian: {sys.byteorder}",
        "encoding: raw",
        f"space origin: {vectors[3]}",
    ]
    with path.open("wb") as file:
        file.write(("\n".join(header) + "\n\n").encode("ascii"))
        array.tofile(file)
