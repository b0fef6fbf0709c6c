from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from DiffuSAMLib.errors import OutputError
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.preview import draw_preview, write_preview
from DiffuSAMLib.surface_rendering import render_surfaces

BLACK = (0.0, 0.0, 0.0)
RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Organ:
    name: str
    value: int
    color: tuple[float, float, float]


ORGANS = [Organ("liver", 1, RED), Organ("spleen", 2, GREEN)]


def geometry(shape: tuple[int, int, int]) -> Geometry:
    return Geometry(shape, np.diag([2.0, 2.0, 5.0, 1.0]))


def body(shape: tuple[int, int, int] = (20, 90, 120)) -> tuple[np.ndarray, np.ndarray]:
    """A grey ellipse; the liver on the patient's right, the spleen on the left."""
    z, y, x = np.ogrid[[slice(n) for n in shape]]
    y, x, z = (y - shape[1] / 2) / 40, (x - shape[2] / 2) / 55, (z - shape[0] / 2 + 0.5) / 7
    inside = (y**2 + x**2 < 1) & (z < 9)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[(x + 0.5) ** 2 + y**2 + (0.4 * z) ** 2 < 0.12] = 1
    labels[(x - 0.5) ** 2 + y**2 + (0.4 * z) ** 2 < 0.08] = 2
    return np.where(inside, 0.5, 0.0).astype(np.float32), labels


def mean_column(picture: np.ndarray, channel: int) -> float:
    others = [n for n in range(3) if n != channel]
    mask = picture[..., channel].astype(int) - picture[..., others].max(axis=-1) > 60
    assert mask.any()
    return float(np.argwhere(mask)[:, 1].mean())


def test_a_preview_is_a_png_and_nothing_else_is_left(tmp_path: Path) -> None:
    image, labels = body()
    write_preview(tmp_path / "preview.png", image, labels, geometry(labels.shape), ORGANS)
    assert [item.name for item in tmp_path.iterdir()] == ["preview.png"]
    with Image.open(tmp_path / "preview.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 300


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    image, labels = body()
    with pytest.raises(OutputError, match="missing"):
        write_preview(tmp_path / "missing" / "p.png", image, labels, geometry(labels.shape), ORGANS)


@pytest.mark.parametrize("shape", [(1, 90, 120), (2, 90, 120), (20, 1, 120), (20, 90, 1), (1, 1, 1)])
def test_thin_volumes_have_a_preview(shape: tuple[int, int, int]) -> None:
    image, labels = body(shape)
    picture = draw_preview(image, labels, geometry(shape), ORGANS)
    assert max(picture.size) < 3000


def test_nothing_found_has_a_preview() -> None:
    image, labels = body()
    empty = draw_preview(image, np.zeros_like(labels), geometry(labels.shape), ORGANS)
    found = draw_preview(image, labels, geometry(labels.shape), ORGANS)
    assert np.asarray(empty).std() > 0
    assert not np.array_equal(np.asarray(empty), np.asarray(found))


def test_an_image_of_zeros_without_organs_has_a_preview() -> None:
    shape = (5, 30, 30)
    zeros = np.zeros(shape)
    assert draw_preview(zeros.astype(np.float32), zeros.astype(np.uint8), geometry(shape), []).width > 0


def test_axial_proportions_are_those_of_the_patient() -> None:
    image, labels = body((1, 90, 120))
    narrow = Geometry((1, 90, 120), np.diag([1.0, 2.0, 5.0, 1.0]))
    wide = Geometry((1, 90, 120), np.diag([2.0, 2.0, 5.0, 1.0]))
    heights = [draw_preview(image, labels, grid, ORGANS).height for grid in (narrow, wide)]
    assert heights[0] > 1.5 * heights[1]


def test_the_patients_right_is_on_the_left() -> None:
    image, labels = body((1, 90, 120))
    panel = np.asarray(draw_preview(image, labels, geometry(labels.shape), ORGANS))[:, :560]
    assert mean_column(panel, 0) < mean_column(panel, 1)


def test_a_colour_beyond_one_is_refused() -> None:
    image, labels = body()
    with pytest.raises(ValueError, match="liver"):
        draw_preview(image, labels, geometry(labels.shape), [Organ("liver", 1, (255, 0, 0))])


def test_surfaces_lie_where_the_organs_lie() -> None:
    _, labels = body()
    picture = render_surfaces(labels, (5.0, 2.0, 2.0), {1: RED, 2: GREEN}, (300, 200), background=BLACK)
    assert picture.shape == (200, 300, 3)
    assert mean_column(picture, 0) < 150 < mean_column(picture, 1)


def test_the_organ_in_front_hides_the_one_behind() -> None:
    labels = np.zeros((20, 60, 40), dtype=np.uint8)
    labels[2:18, 5:20, 5:35] = 1
    labels[8:12, 50:55, 18:22] = 2
    picture = render_surfaces(labels, (2.0, 1.0, 2.0), {1: RED, 2: GREEN}, (200, 150), background=BLACK)
    assert not (picture[..., 1] > picture[..., 0]).any()
    only_behind = render_surfaces(labels, (2.0, 1.0, 2.0), {2: GREEN}, (200, 150), background=BLACK)
    assert (only_behind[..., 1] > 100).any()


def test_a_single_voxel_is_visible_in_3d() -> None:
    labels = np.zeros((9, 9, 9), dtype=np.uint8)
    labels[4, 4, 4] = 1
    picture = render_surfaces(labels, (1.0, 1.0, 1.0), {1: RED}, (100, 100), background=BLACK)
    assert (picture[..., 0] > 60).any()


def test_no_organ_draws_the_background_only() -> None:
    labels = np.zeros((4, 5, 6), dtype=np.uint8)
    picture = render_surfaces(labels, (1.0, 1.0, 1.0), {1: RED}, (40, 30), background=GREEN)
    assert (picture == [0, 255, 0]).all()


def test_a_large_volume_takes_seconds() -> None:
    image, labels = body((100, 90, 120))
    image, labels = (np.repeat(np.repeat(a, 3, axis=1), 3, axis=2) for a in (image, labels))
    started = time.process_time()
    draw_preview(image, labels, Geometry(labels.shape, np.diag([0.9, 0.9, 2.5, 1.0])), ORGANS)
    assert time.process_time() - started < 10
