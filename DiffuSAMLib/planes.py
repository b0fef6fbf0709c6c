"""The planes in which a volume can be cut into slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .errors import InputError
from .geometry import AxisOrder, Geometry, to_canonical

Plane = Literal["axial", "coronal", "sagittal"]
AXIAL: tuple[Plane, ...] = ("axial",)
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")

# Voxels at most this much longer than wide show anatomy equally well in all planes.
LARGEST_RATIO = 1.6
# Above so many voxels a side, three planes would take longer than a user expects who did not ask for them.
LONGEST_SIDE = 256

# Axes of the canonical stack (0 is z), and whether they are run through the other way.
_FROM_CANONICAL: dict[Plane, tuple[tuple[int, int, int], tuple[bool, bool, bool]]] = {
    "axial": ((0, 1, 2), (False, False, False)),
    "coronal": ((1, 0, 2), (False, True, False)),
    "sagittal": ((2, 0, 1), (False, True, False)),
}


def to_plane(geometry: Geometry, plane: Plane) -> AxisOrder:
    """The reordering to a stack of slices of a plane.

    Axial slices are those of the canonical stack. Coronal ones follow from anterior to posterior, sagittal ones
    from right to left; their rows run from head to feet, their columns to Left and to Posterior.
    """
    canonical = to_canonical(geometry)
    picked, turned = _FROM_CANONICAL[plane]
    z, y, x = (canonical.axes[axis] for axis in picked)
    flip_z, flip_y, flip_x = (
        canonical.flips[axis] != turn for axis, turn in zip(picked, turned, strict=True)
    )
    return AxisOrder((z, y, x), (flip_z, flip_y, flip_x), geometry)


def usable_planes(geometry: Geometry, planes: Sequence[Plane]) -> tuple[Plane, ...]:
    """Those of the planes in which a volume can be segmented: all for near-isotropic voxels, else axial ones."""
    return tuple(planes) if _is_near_isotropic(geometry) else AXIAL


def planes_to_learn(
    choice: Literal["auto", "axial", "three"], geometries: Sequence[Geometry]
) -> tuple[Plane, ...]:
    """The planes of a training.

    Args:
        choice: "auto" takes all three where every volume is small and near-isotropic.
        geometries: Of the training volumes.

    Raises:
        InputError: Three are asked for, and a volume's voxels are too long for that.
    """
    if choice == "axial":
        return AXIAL
    near = all(_is_near_isotropic(geometry) for geometry in geometries)
    if choice == "three" and not near:
        raise InputError(
            f"Three planes need voxels at most {LARGEST_RATIO:g} times as long as wide in every training volume.",
            hint="Leave the thick-sliced volumes out, or set planes to axial.",
        )
    small = all(max(geometry.shape) <= LONGEST_SIDE for geometry in geometries)
    return PLANES if near and (small or choice == "three") else AXIAL


def _is_near_isotropic(geometry: Geometry) -> bool:
    return max(geometry.spacing) <= LARGEST_RATIO * min(geometry.spacing)
