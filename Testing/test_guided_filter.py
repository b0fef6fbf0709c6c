from __future__ import annotations

import numpy as np
import pytest

from DiffuSAMLib.guided_filter import guided_filter

SIZE = 40


def half(column: int, *, low: float = 0.2, high: float = 0.8) -> np.ndarray:
    """Two slices that are `high` from a column on."""
    image = np.full((2, SIZE, SIZE), low, np.float32)
    image[:, :, column:] = high
    return image


def test_a_border_moves_to_the_edge_beside_it() -> None:
    filtered = guided_filter(half(20), half(22, low=0, high=1), radius=(5, 5), epsilon=1e-3)
    assert (filtered[:, 10:30, 20:] > 0.5).all()
    assert (filtered[:, 10:30, :20] < 0.5).all()


def test_an_edge_out_of_reach_moves_nothing() -> None:
    mask = half(33, low=0, high=1)
    filtered = guided_filter(half(10), mask, radius=(3, 3), epsilon=1e-3)
    assert ((filtered > 0.5) == (mask > 0.5)).all()


def test_without_edges_the_mask_is_but_blurred() -> None:
    mask = half(20, low=0, high=1)
    noise = np.random.default_rng(0).normal(0.5, 0.001, mask.shape).astype(np.float32)
    filtered = guided_filter(noise, mask, radius=(3, 3), epsilon=1e-3)
    assert ((filtered > 0.5) == (mask > 0.5)).all()
    assert filtered[0, 20, 14] == pytest.approx(0, abs=0.05)
    assert 0.05 < filtered[0, 20, 18] < 0.5


def test_slices_do_not_touch() -> None:
    mask, guide = half(20, low=0, high=1), half(20)
    mask[1] = 0
    filtered = guided_filter(guide, mask, radius=(5, 5), epsilon=1e-3)
    assert np.abs(filtered[1]).max() < 1e-6
    np.testing.assert_allclose(filtered[:1], guided_filter(guide[:1], mask[:1], radius=(5, 5), epsilon=1e-3))


def test_each_direction_has_its_own_reach() -> None:
    guide, mask = half(20), half(23, low=0, high=1)
    far, near = (guided_filter(guide, mask, radius=radius, epsilon=1e-3) for radius in ((1, 6), (6, 1)))
    assert (far[:, 10:30, 21] > 0.5).all()
    assert (near[:, 10:30, 21] < 0.5).all()
    turned = guided_filter(guide.swapaxes(1, 2), mask.swapaxes(1, 2), radius=(6, 1), epsilon=1e-3)
    np.testing.assert_allclose(turned.swapaxes(1, 2), far, atol=1e-6)


def test_the_image_is_what_it_would_make_of_itself() -> None:
    image = np.random.default_rng(0).random((1, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_allclose(guided_filter(image, image, radius=(4, 4), epsilon=1e-9), image, atol=1e-3)
