from __future__ import annotations

import numpy as np
import pytest

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.geometry import Geometry, to_canonical
from DiffuSAMLib.planes import AXIAL, PLANES, planes_to_learn, to_plane, usable_planes

SHAPE = (4, 5, 6)


def grid(spacing: tuple[float, float, float], shape: tuple[int, int, int] = SHAPE) -> Geometry:
    return Geometry(shape, np.diag([*spacing, 1.0]))


def test_axial_slices_are_those_of_the_canonical_stack() -> None:
    geometry = Geometry(SHAPE, np.diag([-1.0, 2.0, -3.0, 1.0]))
    assert to_plane(geometry, "axial") == to_canonical(geometry)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_slices_of_other_planes_run_from_head_to_feet(signs: tuple[int, int, int]) -> None:
    geometry = Geometry(SHAPE, np.diag([*(2.0 * sign for sign in signs), 1.0]))
    coronal, sagittal = to_plane(geometry, "coronal").geometry, to_plane(geometry, "sagittal").geometry
    # Of columns, rows and slices.
    assert coronal.orientation == "LIP"
    assert sagittal.orientation == "PIL"
    assert coronal.shape == (5, 4, 6)
    assert sagittal.shape == (6, 4, 5)


@pytest.mark.parametrize("plane", PLANES)
def test_every_voxel_keeps_its_place(plane: str) -> None:
    geometry = Geometry(SHAPE, np.diag([-1.0, 2.0, 3.0, 1.0]))
    order = to_plane(geometry, plane)  # type: ignore[arg-type]
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    stack = order.apply(array)
    k, j, i = 1, 2, 3
    world = order.geometry.matrix @ (i, j, k, 1)
    x, y, z = np.round(geometry.inverse @ world)[:3].astype(int)
    assert stack[k, j, i] == array[z, y, x]


def test_three_planes_need_voxels_about_as_long_as_wide() -> None:
    assert usable_planes(grid((1, 1, 1.5)), PLANES) == PLANES
    assert usable_planes(grid((1, 1, 3)), PLANES) == AXIAL
    assert usable_planes(grid((1, 1, 1)), AXIAL) == AXIAL


def test_a_training_takes_three_planes_where_all_cases_are_small_and_near_isotropic() -> None:
    small, thick, large = grid((1, 1, 1)), grid((1, 1, 5)), grid((1, 1, 1), (4, 300, 300))
    assert planes_to_learn("auto", [small, small]) == PLANES
    assert planes_to_learn("auto", [small, thick]) == AXIAL
    assert planes_to_learn("auto", [small, large]) == AXIAL
    assert planes_to_learn("three", [small, large]) == PLANES
    assert planes_to_learn("axial", [small]) == AXIAL


def test_three_planes_of_thick_slices_are_refused() -> None:
    with pytest.raises(InputError, match=r"at most 1\.6 times as long as wide"):
        planes_to_learn("three", [grid((1, 1, 5))])
