from __future__ import annotations

import numpy as np

from DiffuSAMLib.procedural_shapes import make_shapes


def test_shapes_have_the_documented_form():
    for seed in range(20):
        images, masks = make_shapes(np.random.default_rng(seed), 96)
        assert images.shape == masks.shape == (2, 96, 96)
        assert images.dtype == np.float32
        assert masks.dtype == np.uint8
        assert images.min() >= 0
        assert images.max() <= 1
        assert np.array_equal(np.unique(masks), np.arange(masks.max() + 1))
        assert masks.max() >= 1


def test_shapes_are_repeatable():
    first, second = (make_shapes(np.random.default_rng(4), 64) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_neighbouring_slices_of_shapes_resemble_each_other_but_differ():
    overlaps, lonely = [], 0
    for seed in range(30):
        _, masks = make_shapes(np.random.default_rng(seed), 96)
        for label in range(1, int(masks.max()) + 1):
            a, b = masks[0] == label, masks[1] == label
            if a.any() and b.any():
                overlaps.append(2 * (a & b).sum() / (a.sum() + b.sum()))
            else:
                lonely += 1
    assert 0.6 < np.mean(overlaps) < 0.99
    assert lonely > 5
