"""Where voxels lie in the patient, and the reordering of a volume to the canonical axial stack.

Arrays are `(z, y, x)`, indices are `(i, j, k)` along `(x, y, z)`, and world coordinates are LPS
millimetres (x grows to the patient's Left, y to Posterior, z to Superior).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

POSITIVE_LETTERS = "LPS"
NEGATIVE_LETTERS = "RAI"


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of a volume: its shape and the affine map from voxel index to world.

    Any invertible matrix is allowed: oblique, left-handed, sheared.

    Args:
        shape: Number of voxels along `(z, y, x)`.
        matrix: `(4, 4)` float64; maps `(i, j, k, 1)` to LPS mm.

    Raises:
        ValueError: The shape or the matrix describes no grid.
    """

    shape: tuple[int, int, int]
    matrix: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        matrix = np.array(self.matrix, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"A grid needs three positive sizes (z, y, x), not {self.shape}.")
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError("The voxel-to-world matrix must be 4 x 4 and finite.")
        if not np.array_equal(matrix[3], [0, 0, 0, 1]) or np.linalg.det(matrix[:3, :3]) == 0:
            raise ValueError("The voxel-to-world matrix must be affine and invertible.")
        matrix.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "matrix", matrix)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.matrix, other.matrix)

    def __hash__(self) -> int:
        return hash((self.shape, self.matrix.tobytes()))

    def __str__(self) -> str:
        x, y, z = reversed(self.shape)
        spacing = " x ".join(f"{mm:.4g}" for mm in self.spacing)
        origin = ", ".join(f"{mm:.4g}" for mm in self.origin)
        return f"{x} x {y} x {z} voxels of {spacing} mm at ({origin}), axes {self.orientation}"

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Geometry:
        """The grid of a three-dimensional SimpleITK image."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        matrix[:3, 3] = image.GetOrigin()
        x, y, z = image.GetSize()
        return cls((z, y, x), matrix)

    def to_sitk(self, array: np.ndarray) -> sitk.Image:
        """An image on this grid.

        Args:
            array: `(z, y, x)`, of this geometry's shape.

        Raises:
            ValueError: The array has another shape.
        """
        if array.shape != self.shape:
            raise ValueError(f"An array of shape {array.shape} does not fit a grid of shape {self.shape}.")
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction.ravel().tolist())
        return image

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along `(x, y, z)`, in mm."""
        x, y, z = (float(mm) for mm in np.linalg.norm(self.matrix[:3, :3], axis=0))
        return x, y, z

    @property
    def origin(self) -> tuple[float, float, float]:
        """World position of the centre of voxel `(0, 0, 0)`, in LPS mm."""
        x, y, z = (float(mm) for mm in self.matrix[:3, 3])
        return x, y, z

    @property
    def direction(self) -> np.ndarray:
        """`(3, 3)`: the columns are the unit vectors along which i, j and k grow."""
        return self.matrix[:3, :3] / np.array(self.spacing)

    @property
    def inverse(self) -> np.ndarray:
        """`(4, 4)`: maps LPS mm to voxel index."""
        return np.linalg.inv(self.matrix)

    @property
    def orientation(self) -> str:
        """Nearest anatomical direction in which i, j and k grow: `LPS` for an identity direction."""
        world_axes = nearest_world_axes(self.direction)
        return "".join(
            (POSITIVE_LETTERS if self.direction[world, index] > 0 else NEGATIVE_LETTERS)[world]
            for index, world in enumerate(world_axes)
        )

    @property
    def skew_mm(self) -> float:
        """How far a voxel moves, at most, where the axes are made perpendicular; 0 unless the grid is sheared."""
        left, _, right = np.linalg.svd(self.direction)
        extent = np.array(self.spacing) * (np.array(self.shape[::-1]) - 1)
        return float(np.linalg.norm(self.direction - left @ right, axis=0) @ extent)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.matrix[:3, :3]))) / 1000.0


def nearest_world_axes(direction: np.ndarray) -> tuple[int, int, int]:
    """The world axis that each of i, j, k follows most closely, each world axis used once.

    Args:
        direction: `(3, 3)` with unit columns.
    """
    weights = np.abs(direction)
    # Rounded so that an exact 45 degree tie falls on the first permutation whatever the last bit says.
    best = max(
        itertools.permutations(range(3)),
        key=lambda axes: round(float(weights[list(axes), range(3)].sum()), 9),
    )
    return best[0], best[1], best[2]


@dataclass(frozen=True)
class AxisOrder:
    """A permutation and reversal of the three axes of a volume; nothing is lost.

    Args:
        axes: Source array axis (0 is z, 1 is y, 2 is x) of each canonical array axis.
        flips: Whether each canonical array axis runs against its source axis.
        source: Grid before the reordering.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    source: Geometry

    @property
    def geometry(self) -> Geometry:
        """Grid after the reordering; every voxel keeps its place in the world."""
        to_source = np.zeros((4, 4))
        to_source[3, 3] = 1
        # Index i belongs to array axis 2, j to 1, k to 0.
        for axis, (source_axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            index, source_index = 2 - axis, 2 - source_axis
            to_source[source_index, index] = -1 if flip else 1
            to_source[source_index, 3] = self.source.shape[source_axis] - 1 if flip else 0
        z, y, x = (self.source.shape[axis] for axis in self.axes)
        return Geometry((z, y, x), self.source.matrix @ to_source)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Reorder the last three axes, `(..., z, y, x)` on the source grid, to the canonical grid.

        Raises:
            ValueError: The last three axes are not the source grid's.
        """
        return np.ascontiguousarray(self.view(array))

    def view(self, array: np.ndarray) -> np.ndarray:
        """As `apply`, without copying: writing to the result writes to the array.

        Raises:
            ValueError: The last three axes are not the source grid's.
        """
        require_grid(array, self.source.shape)
        lead = array.ndim - 3
        reordered = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return np.flip(reordered, tuple(lead + axis for axis, flip in enumerate(self.flips) if flip))


def require_grid(array: np.ndarray, shape: tuple[int, int, int]) -> None:
    if array.shape[-3:] != shape:
        raise ValueError(f"Expected an array ending in the grid {shape}, not one of shape {array.shape}.")


def to_canonical(geometry: Geometry) -> AxisOrder:
    """The reordering to the axial stack: x to the patient's Left, y to Posterior, z to Superior.

    An oblique volume is reordered to the nearest such axes; nothing is resampled.
    """
    direction = geometry.direction
    world_axes = nearest_world_axes(direction)
    indices = [world_axes.index(world) for world in (2, 1, 0)]
    z, y, x = (2 - index for index in indices)
    flip_z, flip_y, flip_x = (
        bool(direction[world, index] < 0) for world, index in zip((2, 1, 0), indices, strict=True)
    )
    return AxisOrder((z, y, x), (flip_z, flip_y, flip_x), geometry)
