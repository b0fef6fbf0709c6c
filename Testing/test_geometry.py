from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from DiffuSAMLib.geometry import AxisOrder, Geometry, to_canonical

SHAPE = (3, 4, 5)
AXIS_ORDERS = [
    (permutation, signs)
    for permutation in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def axis_order_matrix(permutation: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3)[:, permutation] * signs * np.array([0.7, 1.3, 5.0])
    matrix[:3, 3] = (-12.5, 30, 7)
    return matrix


def rotation(axis: int, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(4)
    a, b = [n for n in range(3) if n != axis]
    turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
    return turn


def world_values(geometry: Geometry) -> np.ndarray:
    """World position of every voxel, `(3, z, y, x)`."""
    k, j, i = np.indices(geometry.shape)
    return np.einsum("rc,c...->r...", geometry.matrix, np.stack([i, j, k, np.ones_like(i)]))[:3]


def put_back(order: AxisOrder, canonical: np.ndarray) -> np.ndarray:
    """The array on the source grid, written through the view."""
    array = np.empty((*canonical.shape[:-3], *order.source.shape))
    order.view(array)[:] = canonical
    return array


@pytest.mark.parametrize(("permutation", "signs"), AXIS_ORDERS)
@pytest.mark.parametrize("tilt", [0.0, 17.0])
def test_any_axis_order_comes_back_exactly(
    permutation: tuple[int, ...], signs: tuple[int, ...], tilt: float
) -> None:
    geometry = Geometry(SHAPE, rotation(0, tilt) @ rotation(2, -tilt) @ axis_order_matrix(permutation, signs))
    array = np.random.default_rng(0).normal(size=SHAPE)
    order = to_canonical(geometry)
    assert order.geometry.orientation == "LPS"
    assert order.apply(array).shape == order.geometry.shape
    assert np.array_equal(put_back(order, order.apply(array)), array)


@pytest.mark.parametrize(("permutation", "signs"), AXIS_ORDERS)
def test_every_voxel_keeps_its_place_in_the_world(
    permutation: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    geometry = Geometry(SHAPE, rotation(1, 20) @ axis_order_matrix(permutation, signs))
    order = to_canonical(geometry)
    np.testing.assert_allclose(
        order.apply(world_values(geometry)), world_values(order.geometry), rtol=0, atol=1e-9
    )


def test_leading_axes_are_left_alone() -> None:
    order = to_canonical(Geometry(SHAPE, axis_order_matrix((2, 0, 1), (-1, 1, -1))))
    logits = np.random.default_rng(0).normal(size=(2, 4, *SHAPE))
    canonical = order.apply(logits)
    assert np.array_equal(canonical[1, 2], order.apply(logits[1, 2]))
    assert np.array_equal(put_back(order, canonical), logits)


def test_a_canonical_volume_is_not_changed() -> None:
    geometry = Geometry(SHAPE, np.diag([1.0, 2, 3, 1]))
    order = to_canonical(geometry)
    array = np.arange(60.0).reshape(SHAPE)
    assert order.geometry == geometry
    assert np.array_equal(order.apply(array), array)


def test_the_reordered_array_is_contiguous() -> None:
    order = to_canonical(Geometry(SHAPE, np.diag([-1.0, -2, 3, 1])))
    assert order.apply(np.zeros(SHAPE)).flags.c_contiguous


def test_an_array_of_another_grid_is_refused() -> None:
    order = to_canonical(Geometry(SHAPE, np.eye(4)))
    with pytest.raises(ValueError, match="grid"):
        order.apply(np.zeros((3, 4, 6)))


def test_properties_agree_with_simpleitk() -> None:
    image = sitk.Image(5, 4, 3, sitk.sitkFloat32)
    image.SetSpacing((0.5, 0.75, 4.0))
    image.SetOrigin((1.0, -2.0, 3.0))
    image.SetDirection(rotation(2, 30)[:3, :3].ravel().tolist())
    geometry = Geometry.from_sitk(image)
    assert geometry.shape == SHAPE
    np.testing.assert_allclose(geometry.spacing, image.GetSpacing())
    np.testing.assert_allclose(geometry.direction.ravel(), image.GetDirection())
    world = geometry.matrix @ [4, 1, 2, 1]
    np.testing.assert_allclose(world[:3], image.TransformIndexToPhysicalPoint((4, 1, 2)))
    np.testing.assert_allclose(geometry.inverse @ world, [4, 1, 2, 1], atol=1e-12)
    assert geometry.voxel_volume_ml == pytest.approx(0.0015)
    back = geometry.to_sitk(np.zeros(SHAPE, np.float32))
    np.testing.assert_allclose(back.GetDirection(), image.GetDirection())
    assert back.GetOrigin() == image.GetOrigin()


def test_the_orientation_names_where_each_index_grows() -> None:
    assert Geometry(SHAPE, np.eye(4)).orientation == "LPS"
    assert Geometry(SHAPE, np.diag([-1.0, 1, 1, 1])).orientation == "RPS"
    assert Geometry(SHAPE, axis_order_matrix((1, 2, 0), (-1, 1, 1))).orientation == "ASL"


def test_axes_halfway_between_two_directions_still_get_one_each() -> None:
    geometry = Geometry(SHAPE, rotation(2, 45) @ rotation(0, 45))
    assert len({letter in "LR" for letter in geometry.orientation}) == 2
    array = np.arange(60).reshape(SHAPE)
    order = to_canonical(geometry)
    assert np.array_equal(put_back(order, order.apply(array)), array)


@pytest.mark.parametrize("matrix", [np.zeros((4, 4)), np.eye(3), np.diag([1, 1, np.nan, 1]), np.ones((4, 4))])
def test_a_matrix_that_maps_no_grid_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="matrix"):
        Geometry(SHAPE, matrix)


def test_a_geometry_cannot_be_changed_and_compares_by_value() -> None:
    matrix = np.eye(4)
    geometry = Geometry(SHAPE, matrix)
    matrix[0, 0] = 2
    assert geometry == Geometry(SHAPE, np.eye(4))
    assert hash(geometry) == hash(Geometry(SHAPE, np.eye(4)))
    with pytest.raises(ValueError, match="read-only"):
        geometry.matrix[0, 0] = 3
