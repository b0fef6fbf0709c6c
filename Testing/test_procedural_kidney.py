from __future__ import annotations

import numpy as np
import pytest

from DiffuSAMLib.procedural import LEFT_KIDNEY, RIGHT_KIDNEY, Abdomen, make_abdomen
from DiffuSAMLib.procedural_kidney import UNUSUAL_SHARE, KidneyPlace

SEEDS = range(1000, 1008)
COARSE = {"shape": (40, 88, 88), "spacing": (4.0, 4.0, 7.0)}


@pytest.fixture(scope="module")
def patients() -> list[tuple[Abdomen, Abdomen]]:
    """Each as most people are, and with kidneys that may lie elsewhere."""
    return [(make_abdomen(seed, **COARSE), make_abdomen(seed, unusual=True, **COARSE)) for seed in SEEDS]


def centre_mm(abdomen: Abdomen, label: int) -> np.ndarray:
    """`(z, y, x)`."""
    return np.argwhere(abdomen.labels.array == label).mean(0) * (7.0, 4.0, 4.0)


def test_two_in_five_kidneys_are_unusual() -> None:
    rng = np.random.default_rng(0)
    unusual = [KidneyPlace.draw(rng) != KidneyPlace() for _ in range(2000)]
    assert np.mean(unusual) == pytest.approx(UNUSUAL_SHARE, abs=0.04)


def test_unusual_kidneys_lie_low_or_in_front(patients: list[tuple[Abdomen, Abdomen]]) -> None:
    moved = np.array(
        [
            centre_mm(unusual, kidney) - centre_mm(usual, kidney)
            for usual, unusual in patients
            for kidney in (RIGHT_KIDNEY, LEFT_KIDNEY)
        ]
    )
    far = np.linalg.norm(moved, axis=1) > 15
    assert 2 <= far.sum() <= len(moved) - 4
    assert moved[far, 0].mean() < -10  # towards the feet
    assert moved[far, 1].mean() < -5  # to the front


def test_unusual_kidneys_have_a_size_of_their_own(patients: list[tuple[Abdomen, Abdomen]]) -> None:
    ratios = [
        (unusual.labels.array == kidney).sum() / (usual.labels.array == kidney).sum()
        for usual, unusual in patients
        for kidney in (RIGHT_KIDNEY, LEFT_KIDNEY)
    ]
    assert min(ratios) < 0.85
    assert max(ratios) > 1.15
    assert 0.5 < min(ratios) < max(ratios) < 1.8


def test_the_rest_of_the_body_stays(patients: list[tuple[Abdomen, Abdomen]]) -> None:
    for usual, unusual in patients:
        assert np.array_equal(usual.tissues == 0, unusual.tissues == 0)
