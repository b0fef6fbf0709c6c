from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import ORGANS, finding_backbone
from torch.nn import functional as F

from DiffuSAMLib import full_resolution
from DiffuSAMLib.encoded_volume import EncodedVolume
from DiffuSAMLib.procedural import Abdomen, make_abdomen


@pytest.fixture(scope="module")
def abdomen() -> Abdomen:
    return make_abdomen(3, shape=(6, 160, 160), spacing=(2.2, 2.2, 30.0))


@pytest.fixture(scope="module")
def encoded(abdomen: Abdomen) -> EncodedVolume:
    return EncodedVolume(abdomen.volume, finding_backbone())


def to_volume(encoded: EncodedVolume, logits: np.ndarray, *, refine: bool) -> tuple[np.ndarray, np.ndarray]:
    return full_resolution.to_volume(
        encoded.volume, [full_resolution.PlaneLogits(encoded.order, encoded.grid, logits)], refine=refine
    )


def coarse_logits(abdomen: Abdomen, encoded: EncodedVolume) -> np.ndarray:
    """The truth as the decoder's masks show it, `(n, organs, 32, 32)`."""
    slices = encoded.grid.labels_to_slices(abdomen.labels.array)
    masks = torch.from_numpy(np.stack([slices == value for value in range(1, len(ORGANS) + 1)], axis=1))
    return np.asarray(torch.where(F.avg_pool2d(masks.float(), 4) > 0.5, 3.0, -3.0))


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_refined_outlines_are_nearer_to_the_truth(abdomen: Abdomen, encoded: EncodedVolume) -> None:
    logits = coarse_logits(abdomen, encoded)
    plain, _ = to_volume(encoded, logits, refine=False)
    refined, _ = to_volume(encoded, logits, refine=True)
    truth = abdomen.labels.array
    before, after = (
        np.mean([dice(labels == value, truth == value) for value in range(1, 5)])
        for labels in (plain, refined)
    )
    assert before > 0.85
    assert after > before + 0.01


def test_confidence_is_the_probability_of_the_label(abdomen: Abdomen, encoded: EncodedVolume) -> None:
    logits = np.full((6, 2, 32, 32), -10.0)
    logits[:, 1, 10:22, 10:22] = 1.0
    labels, confidence = to_volume(encoded, logits, refine=False)
    assert set(np.unique(labels)) == {0, 2}
    assert labels[:, 80, 80].tolist() == [2] * 6
    assert confidence[0, 80, 80] == round(255 / (1 + np.exp(-1)))
    assert confidence[0, 2, 2] == 255
    for levels in (confidence, to_volume(encoded, logits, refine=True)[1]):
        assert levels.min() >= 127


def test_an_organ_that_is_nowhere_stays_so(encoded: EncodedVolume) -> None:
    labels, confidence = to_volume(encoded, np.full((6, 1, 32, 32), -10.0), refine=True)
    assert not labels.any()
    assert confidence.min() == 255


def test_of_several_views_the_mean_probability_counts(abdomen: Abdomen, encoded: EncodedVolume) -> None:
    logits = coarse_logits(abdomen, encoded)
    views = [
        full_resolution.PlaneLogits(encoded.order, encoded.grid, each)
        for each in (logits, np.full_like(logits, -10.0), logits)
    ]
    for refine in (False, True):
        once, _ = full_resolution.to_volume(encoded.volume, views[:1], refine=refine)
        most, confidence = full_resolution.to_volume(encoded.volume, views, refine=refine)
        assert np.mean(once == most) > 0.97
        # Two views of three say organ, one is sure of the contrary.
        assert confidence[most > 0].max() <= round(255 * 2 / 3) + 1
