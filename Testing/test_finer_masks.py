from __future__ import annotations

import numpy as np
import pytest

from DiffuSAMLib import finer_masks
from DiffuSAMLib.finer_masks import changed_finer_masks


@pytest.mark.parametrize("most", [1, 2**24])
def test_masks_are_enlarged_and_then_changed(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finer_masks, "MOST_VALUES", most)
    logits = np.random.default_rng(0).normal(size=(3, 4, 8, 8)).astype(np.float16)
    shapes = []

    def double(masks: np.ndarray) -> None:
        shapes.append(masks.shape)
        masks *= 2

    before = logits.copy()
    changed = changed_finer_masks(logits, 16, double)
    assert changed.dtype == np.float16
    # Each block of four finer pixels has its coarse pixel's mean but for the neighbours' share.
    np.testing.assert_allclose(changed.mean((2, 3)), 2 * logits.mean((2, 3), dtype=np.float32), atol=0.1)
    assert {shape[1] for shape in shapes} == ({1} if most == 1 else {shapes[0][1]})
    np.testing.assert_array_equal(logits, before)
    same = changed_finer_masks(logits, 8, double)
    np.testing.assert_allclose(same, 2 * logits, rtol=1e-3)
    np.testing.assert_array_equal(logits, before)
