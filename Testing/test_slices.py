from __future__ import annotations

import numpy as np
import pytest
import torch

from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.slices import SliceGrid, as_channels, numbers_beside

# Rows, columns, and millimetres per pixel along y and x.
PLANES = [
    (256, 256, 0.8, 0.8),
    (512, 512, 0.7, 0.7),
    (320, 260, 1.5, 1.5),
    (97, 180, 2.0, 1.1),
    (64, 200, 3.0, 0.5),
    (50, 50, 1.0, 4.0),
]


def geometry(rows: int, columns: int, y: float, x: float) -> Geometry:
    return Geometry(shape=(2, rows, columns), matrix=np.diag([x, y, 5.0, 1.0]))


def interior(array: torch.Tensor, margin: float = 0.03) -> torch.Tensor:
    """Without the border, where the padding shines in."""
    rows, columns = (max(2, round(side * margin)) for side in array.shape[-2:])
    return array[..., rows:-rows, columns:-columns]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("size", [128, 512])
def test_a_ramp_survives_the_way_to_slices_and_back(plane: tuple[int, int, float, float], size: int) -> None:
    rows, columns, _, _ = plane
    grid = SliceGrid.fit(geometry(*plane), size)
    down = torch.linspace(0, 1, rows)[:, None].expand(rows, columns)
    right = torch.linspace(0, 1, columns).expand(rows, columns)
    stack = torch.stack((down, right))
    back = grid.from_slices(grid.to_slices(stack)[:, None])[:, 0]
    assert back.shape == stack.shape
    assert (interior(back) - interior(stack)).abs().max() < 2e-3


@pytest.mark.parametrize("plane", PLANES)
def test_maps_at_a_quarter_of_the_resolution_land_in_the_same_place(
    plane: tuple[int, int, float, float],
) -> None:
    rows, columns, _, _ = plane
    grid = SliceGrid.fit(geometry(*plane), 256)
    ramp = torch.linspace(0, 1, columns).expand(2, rows, columns)
    quarter = torch.nn.functional.avg_pool2d(grid.to_slices(ramp)[:, None], 4)
    back = grid.from_slices(quarter)[:, 0]
    assert (interior(back, 0.12) - interior(ramp, 0.12)).abs().max() < 5e-3


@pytest.mark.parametrize("plane", PLANES)
def test_millimetres_are_equal_along_rows_and_columns(plane: tuple[int, int, float, float]) -> None:
    rows, columns, y, x = plane
    grid = SliceGrid.fit(geometry(*plane), 256)
    assert max(grid.height, grid.width) == 256
    assert grid.height / (rows * y) == pytest.approx(grid.width / (columns * x), rel=0.01)


@pytest.mark.parametrize("plane", PLANES)
def test_labels_lie_on_the_image_they_belong_to(plane: tuple[int, int, float, float]) -> None:
    rows, columns, _, _ = plane
    grid = SliceGrid.fit(geometry(*plane), 256)
    y, x = np.mgrid[:rows, :columns]
    disc = ((y / rows - 0.4) ** 2 + (x / columns - 0.6) ** 2 < 0.2**2).astype(np.uint8)
    labels = np.stack([disc, disc * 3])
    square = grid.labels_to_slices(labels)
    assert square.shape == (2, 256, 256)
    assert set(np.unique(square)) == {0, 1, 3}
    image = grid.to_slices(torch.from_numpy(labels).float())
    overlap = ((image[0] > 0.5) & torch.from_numpy(square[0] == 1)).sum()
    assert 2 * overlap / ((image[0] > 0.5).sum() + (square[0] == 1).sum()) > 0.98
    back = grid.from_slices(torch.from_numpy(square[1:, None] == 3).float())[0, 0].numpy() > 0.5
    assert 2 * (back & (disc == 1)).sum() / (back.sum() + disc.sum()) > 0.97


def test_the_padding_is_dark_and_around() -> None:
    grid = SliceGrid.fit(geometry(100, 200, 1.0, 1.0), 64)
    slices = grid.to_slices(torch.ones(1, 100, 200))
    assert slices.shape == (1, 64, 64)
    assert slices[0, :16].sum() == slices[0, 48:].sum() == 0
    assert torch.allclose(slices[0, 16:48], torch.ones(32, 64))
    labels = grid.labels_to_slices(np.ones((1, 100, 200), np.uint8))
    assert labels[0, 16:48].all()
    assert labels.sum() == 32 * 64


def test_a_single_row_of_pixels_is_still_a_slice() -> None:
    grid = SliceGrid.fit(geometry(1, 300, 0.5, 1.0), 64)
    assert grid.height == 1
    back = grid.from_slices(grid.to_slices(torch.ones(2, 1, 300))[:, None])
    assert back.shape == (2, 1, 1, 300)


def test_several_maps_come_back_together() -> None:
    grid = SliceGrid.fit(geometry(40, 60, 1.0, 1.0), 64)
    maps = torch.randn(3, 4, 16, 16)
    together = grid.from_slices(maps)
    assert together.shape == (3, 4, 40, 60)
    assert torch.equal(together[1:2, 2:3], grid.from_slices(maps[1:2, 2:3]))


def test_a_slice_without_context_fills_all_channels() -> None:
    slices = torch.arange(5.0).view(5, 1, 1).expand(5, 2, 2)
    images = as_channels(slices, torch.tensor([3, 0]), context=0)
    assert images.shape == (2, 3, 2, 2)
    assert images[:, :, 0, 0].tolist() == [[3, 3, 3], [0, 0, 0]]


def test_a_slice_with_context_stands_between_its_neighbours() -> None:
    slices = torch.arange(5.0).view(5, 1, 1).expand(5, 2, 2)
    images = as_channels(slices, torch.tensor([0, 2, 4]), context=1)
    assert images[:, :, 0, 0].tolist() == [[0, 0, 1], [1, 2, 3], [3, 4, 4]]


def test_a_lone_slice_is_its_own_neighbour() -> None:
    images = as_channels(torch.full((1, 2, 2), 7.0), torch.tensor([0]), context=1)
    assert images[0, :, 0, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("size", [128, 512])
def test_positions_of_maps_are_equally_far_apart_in_both_directions(
    plane: tuple[int, int, float, float], size: int
) -> None:
    rows, columns, y, x = plane
    grid = SliceGrid.fit(geometry(*plane), size)
    along, down, across = grid.spacing(geometry(*plane), size // 4)
    assert along == 5.0
    assert down == pytest.approx(across, rel=0.02)
    assert max(down, across) * size / 4 == pytest.approx(max(rows * y, columns * x), rel=0.02)


def test_slices_beside_are_the_nearest_at_that_distance() -> None:
    assert numbers_beside([4, 5], count=12, spacing=3.0, reach_mm=9.0) == ([1, 2], [7, 8])
    assert numbers_beside([4], count=12, spacing=4.0, reach_mm=9.0) == ([2], [6])


def test_of_thick_slices_the_neighbours_are_beside() -> None:
    assert numbers_beside([4], count=12, spacing=30.0, reach_mm=9.0) == ([3], [5])


def test_the_ends_of_a_stack_stand_for_what_is_beyond() -> None:
    assert numbers_beside([0, 3], count=4, spacing=3.0, reach_mm=9.0) == ([0, 0], [3, 3])
