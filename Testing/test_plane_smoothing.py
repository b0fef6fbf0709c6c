from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import EVERYWHERE, SIZE, finding_segmenter, small_abdomen

from DiffuSAMLib.edge_aware_smoothing import smooth_masks
from DiffuSAMLib.encoded_volume import EncodedVolume
from DiffuSAMLib.full_resolution import PlaneLogits
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.plane_smoothing import smooth_plane
from DiffuSAMLib.volumes import Volume


def test_slices_far_from_all_that_is_found_are_not_smoothed() -> None:
    segmenter = finding_segmenter()
    array = np.random.default_rng(0).normal(50, 60, (70, 32, 32)).astype(np.float32)
    long = Volume(array, Geometry((70, 32, 32), np.diag([5.0, 5.0, 5.0, 1.0])), "CT", "noise")
    view = EncodedVolume(long, segmenter.backbone)
    logits = np.full((70, 1, SIZE // 4, SIZE // 4), -10, np.float16)
    found = PlaneLogits(view.order, view.grid, logits)
    assert smooth_plane(view, found, across=True) is found
    logits[30:33] = 5
    smoothed = smooth_plane(view, found, across=True).logits
    whole = smooth_masks(logits, view.guide(range(70), SIZE // 2), across=True)
    assert smoothed.shape == whole.shape
    np.testing.assert_array_equal(smoothed > 0, whole > 0)
    assert (smoothed[:14] == -10).all()


@pytest.mark.parametrize("three_d", [True, False])
def test_masks_are_smoothed_across_slices_where_these_are_chained(three_d: bool) -> None:
    segmenter, volume = finding_segmenter(), small_abdomen().volume
    volume = replace(volume, array=volume.array[3:7], geometry=Geometry((4, 96, 96), volume.geometry.matrix))
    options = replace(EVERYWHERE, propagation=replace(EVERYWHERE.propagation, three_d=three_d))
    (view,) = segmenter.views(volume, options)
    found = PlaneLogits(view.order, view.grid, np.zeros((4, 1, SIZE // 4, SIZE // 4)))
    found.logits[:2] = 5.0
    smoothed = smooth_plane(view, found, across=three_d)
    assert smoothed.logits.shape == (4, 1, SIZE // 2, SIZE // 2)
    evened = smoothed.logits.mean((1, 2, 3))
    assert (0.1 < evened[2] < evened[1] < 4.9) == three_d
    labels = [segmenter.segment(volume, replace(options, smooth=smooth)).labels for smooth in (True, False)]
    assert not np.array_equal(*labels)
