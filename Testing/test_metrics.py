from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from DiffuSAMLib.metrics import dice, hd95, score_case, surface_dice, surface_distances, z_crop

SPACING = (7.7, 1.25, 1.5)


def box(z: slice, y: slice, x: slice, shape: tuple[int, int, int] = (12, 30, 30)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[z, y, x] = True
    return mask


def surface_points(mask: np.ndarray) -> np.ndarray:
    points = []
    for z, y, x in np.argwhere(mask):
        for step in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
            neighbour = np.add((z, y, x), step)
            outside = (neighbour < 0).any() or (neighbour >= mask.shape).any()
            if outside or not mask[tuple(neighbour)]:
                points.append((z, y, x))
                break
    return np.array(points) * SPACING


def test_dice_of_known_boxes() -> None:
    left = box(slice(2, 4), slice(0, 10), slice(0, 10))
    right = box(slice(2, 4), slice(0, 10), slice(5, 15))
    assert dice(left, right) == pytest.approx(0.5)
    assert dice(left, left) == 1.0


def test_two_empty_masks_have_no_score() -> None:
    empty = np.zeros((3, 4, 5), dtype=bool)
    assert math.isnan(dice(empty, empty))
    distances = surface_distances(empty, empty, SPACING)
    assert math.isnan(hd95(*distances))
    assert math.isnan(surface_dice(*distances))


def test_one_empty_mask_scores_worst() -> None:
    full, empty = np.ones((3, 4, 5), dtype=bool), np.zeros((3, 4, 5), dtype=bool)
    for pair in ((full, empty), (empty, full)):
        assert dice(*pair) == 0.0
        distances = surface_distances(*pair, SPACING)
        assert hd95(*distances) == math.inf
        assert surface_dice(*distances) == 0.0


@pytest.mark.parametrize(("axis", "voxels"), [(0, 1), (1, 4), (2, 3)])
def test_hd95_of_a_shifted_slab_is_the_shift_in_mm(axis: int, voxels: int) -> None:
    shape = (14, 40, 40)
    start = np.zeros(shape, dtype=bool)
    cuts = [slice(None)] * 3
    cuts[axis] = slice(5, 6)
    start[tuple(cuts)] = True
    moved = np.roll(start, voxels, axis=axis)
    assert hd95(*surface_distances(start, moved, SPACING)) == pytest.approx(voxels * SPACING[axis])


def test_surface_measures_equal_those_over_all_pairs_of_points() -> None:
    noise = np.random.default_rng(3).random((9, 14, 16))
    truth, prediction = noise > 0.7, np.roll(noise, 2, axis=2) > 0.75
    pairs = cdist(surface_points(prediction), surface_points(truth))
    forth, back = surface_distances(prediction, truth, SPACING)
    np.testing.assert_allclose(np.sort(forth), np.sort(pairs.min(axis=1)), rtol=1e-6)
    np.testing.assert_allclose(np.sort(back), np.sort(pairs.min(axis=0)), rtol=1e-6)
    expected = max(np.percentile(pairs.min(axis=1), 95), np.percentile(pairs.min(axis=0), 95))
    assert hd95(forth, back) == pytest.approx(expected)
    close = (pairs.min(axis=1) <= 2).sum() + (pairs.min(axis=0) <= 2).sum()
    assert surface_dice(forth, back, tolerance_mm=2.0) == pytest.approx(close / sum(pairs.shape))


def test_surface_dice_forgives_up_to_the_tolerance() -> None:
    truth = box(slice(2, 8), slice(5, 20), slice(5, 20))
    moved = np.roll(truth, 2, axis=2)
    distances = surface_distances(moved, truth, SPACING)
    assert surface_dice(*distances, tolerance_mm=3.0) == 1.0
    assert surface_dice(*distances, tolerance_mm=2.9) < 1.0


def test_the_edge_of_the_volume_is_surface() -> None:
    full = np.ones((4, 6, 6), dtype=bool)
    forth, _ = surface_distances(full, full, SPACING)
    assert forth.size == full.sum() - 2 * 4 * 4


def test_masks_of_other_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        dice(np.zeros((2, 3, 4), bool), np.zeros((2, 3, 5), bool))


def test_z_crop_spans_all_organs() -> None:
    labels = np.zeros((10, 4, 4), dtype=np.uint8)
    labels[3, 1, 1], labels[7, 2, 2] = 1, 4
    assert z_crop(labels) == slice(3, 8)
    assert z_crop(np.zeros_like(labels)) == slice(0, 0)


def test_a_case_is_scored_organ_by_organ() -> None:
    truth = np.zeros((12, 30, 30), dtype=np.uint8)
    truth[3:8, 5:15, 5:15] = 2
    prediction = truth.copy()
    prediction[10, 5:15, 5:15] = 2
    scores = score_case(prediction, truth, {"liver": 2, "spleen": 1}, SPACING)
    assert list(scores) == ["liver", "spleen"]
    assert scores["liver"].dice == pytest.approx(2 * 500 / 1100)
    assert scores["liver"].dice_z_cropped == 1.0
    assert scores["liver"].true_ml == pytest.approx(500 * math.prod(SPACING) / 1000)
    assert scores["liver"].hd95_mm == pytest.approx(3 * SPACING[0])
    assert math.isnan(scores["spleen"].dice)
    assert math.isnan(scores["spleen"].hd95_mm)
    assert scores["spleen"].predicted_ml == 0


def test_a_missed_organ_scores_zero() -> None:
    truth = np.zeros((4, 5, 5), dtype=np.uint8)
    truth[1] = 1
    score = score_case(np.zeros_like(truth), truth, {"spleen": 1}, SPACING)["spleen"]
    assert (score.dice, score.dice_z_cropped, score.hd95_mm, score.surface_dice) == (0, 0, math.inf, 0)
