from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from DiffuSAMLib.edge_aware_smoothing import _solved, smooth_masks

SIDE = 16


def slices_of_two_tissues(count: int = 3) -> np.ndarray:
    """Dark in the left half, bright in the right one."""
    guide = np.full((count, SIDE, SIDE), 0.2, np.float32)
    guide[:, :, SIDE // 2 :] = 0.6
    return guide


def masks(likely: np.ndarray) -> np.ndarray:
    """Logits `(n, 1, j, j)` of probabilities `(n, j, j)`."""
    return logit(likely.clip(0.001, 0.999))[:, None].astype(np.float16)


def smoothed(likely: np.ndarray, guide: np.ndarray, *, across: bool = False) -> np.ndarray:
    return expit(smooth_masks(masks(likely), guide, across=across)[:, 0].astype(np.float32))


def test_an_even_mask_stays_as_it_is() -> None:
    likely = np.full((3, SIDE, SIDE), 0.8)
    np.testing.assert_allclose(smoothed(likely, slices_of_two_tissues(), across=True), 0.8, atol=0.01)


def test_a_tissue_gets_what_most_of_it_was_given() -> None:
    """A hole and a corner too many, both without an edge of the image, go; the edge stays where it is."""
    likely = np.zeros((3, SIDE, SIDE))
    likely[:, :, SIDE // 2 :] = 1
    likely[:, 6:9, 11:13] = 0
    likely[:, :5, 2 : SIDE // 2] = 1
    found = smoothed(likely, slices_of_two_tissues()) > 0.5
    assert found[:, :, SIDE // 2 :].all()
    assert not found[:, :, : SIDE // 2].any()


def test_neighbouring_slices_count_only_across() -> None:
    likely = np.zeros((5, SIDE, SIDE))
    likely[[0, 1, 3, 4], :, SIDE // 2 :] = 1
    guide = slices_of_two_tissues(5)
    assert not (smoothed(likely, guide)[2] > 0.5).any()
    assert (smoothed(likely, guide, across=True)[2, :, SIDE // 2 :] > 0.5).all()


def test_organs_do_not_touch_each_other() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (3, 6, SIDE, SIDE)).astype(np.float16)
    guide = generator.random((3, SIDE, SIDE)).astype(np.float32)
    together = smooth_masks(logits, guide, across=True)
    for organ in range(6):
        alone = smooth_masks(logits[:, organ : organ + 1], guide, across=True)
        np.testing.assert_array_equal(alone[:, 0], together[:, organ])


def test_masks_get_the_size_of_the_guide() -> None:
    guide = slices_of_two_tissues()
    small = smooth_masks(masks(np.full((3, SIDE // 2, SIDE // 2), 0.3)), guide, across=False)
    assert small.shape == (3, 1, SIDE, SIDE)
    assert small.dtype == np.float16


@pytest.mark.parametrize("value", [-60.0, 60.0])
def test_certainty_stays_finite(value: float) -> None:
    logits = np.full((1, 1, SIDE, SIDE), value, np.float16)
    found = smooth_masks(logits, slices_of_two_tissues(1), across=True)
    assert np.isfinite(found).all()
    assert (np.sign(found) == np.sign(value)).all()


def test_a_pass_solves_the_equations_of_the_paper() -> None:
    """(1 + A) u = f, with A the Laplacian of the ties (equation 8)."""
    generator = np.random.default_rng(1)
    values = generator.random((7, 4, 2, 3)).astype(np.float32)
    ties = 5 * generator.random((6, 2, 3)).astype(np.float32)
    found = _solved(values, ties)
    for y in range(2):
        for x in range(3):
            matrix = np.eye(7)
            for row in range(6):
                tie = ties[row, y, x]
                matrix[row : row + 2, row : row + 2] += [[tie, -tie], [-tie, tie]]
            np.testing.assert_allclose(
                found[:, :, y, x], np.linalg.solve(matrix, values[:, :, y, x]), rtol=1e-4
            )
