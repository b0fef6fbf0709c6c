from __future__ import annotations

import numpy as np
import pytest

from DiffuSAMLib import finer_masks
from DiffuSAMLib.appearance import AROUND_MM, appearance_weight, weigh_appearance

MM = (5.0, 2.0, 2.0)
ORGAN, AROUND = 0.8, 0.3


@pytest.fixture
def bright_organ() -> np.ndarray:
    """Six slices of 32 x 32 pixels with noise; a bright block of 12 x 12 from row and column 10 on."""
    guide = np.full((6, 32, 32), AROUND, np.float32)
    guide[:, 10:22, 10:22] = ORGAN
    return guide + np.random.default_rng(0).normal(0, 0.03, guide.shape).astype(np.float32)


@pytest.fixture
def half_of_it() -> np.ndarray:
    """Logits of two organs; of the first half of the block is found, of the second nothing."""
    logits = np.full((6, 2, 32, 32), -2.0, np.float32)
    logits[:, 0, 10:16, 10:22] = 4.0
    return logits


def test_the_rest_of_the_same_brightness_is_found(bright_organ: np.ndarray, half_of_it: np.ndarray) -> None:
    weighed = weigh_appearance(half_of_it, bright_organ, MM, weight=2.0, across=True)
    found, bright = weighed[:, 0] > 0, bright_organ > 0.55
    # But for a few that the noise makes as bright as no other.
    assert (found == bright).mean() > 0.99
    assert not found[~bright].any()
    assert weighed.dtype == np.float16


def test_what_is_far_away_stays_as_it_is(bright_organ: np.ndarray, half_of_it: np.ndarray) -> None:
    half_of_it[:] = -2.0
    half_of_it[:, 0, :2, :2] = 4.0
    weighed = weigh_appearance(half_of_it, bright_organ, MM, weight=2.0, across=True)
    far = 2 + int(AROUND_MM / MM[1]) + 1
    np.testing.assert_array_equal(weighed[:, 0, far:, far:], -2.0)
    assert (weighed[:, 0, 2:5, 2:5] != -2.0).any()


def test_an_organ_that_was_not_found_stays_so(bright_organ: np.ndarray, half_of_it: np.ndarray) -> None:
    weighed = weigh_appearance(half_of_it, bright_organ, MM, weight=2.0, across=True)
    np.testing.assert_array_equal(weighed[:, 1], -2.0)


def test_organs_do_not_depend_on_each_other(
    bright_organ: np.ndarray, half_of_it: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_of_it[:, 1, 16:22, 10:22] = 4.0
    together = weigh_appearance(half_of_it, bright_organ, MM, weight=1.0, across=True)
    monkeypatch.setattr(finer_masks, "MOST_VALUES", 1)
    one_by_one = weigh_appearance(half_of_it, bright_organ, MM, weight=1.0, across=True)
    alone = weigh_appearance(half_of_it[:, 1:], bright_organ, MM, weight=1.0, across=True)
    np.testing.assert_array_equal(together, one_by_one)
    np.testing.assert_array_equal(together[:, 1:], alone)


@pytest.mark.parametrize("across", [True, False])
def test_other_slices_tell_how_bright_an_organ_is(
    bright_organ: np.ndarray, half_of_it: np.ndarray, across: bool
) -> None:
    # In one slice of six nothing is found.
    half_of_it[3] = -2.0
    weighed = weigh_appearance(half_of_it, bright_organ, MM, weight=2.0, across=across)
    assert (weighed[3, 0] > 0).any() == across
    assert (weighed[2, 0] > 0).any()


def test_masks_are_enlarged_to_the_image() -> None:
    logits = np.full((3, 1, 8, 8), -2.0, np.float32)
    guide = np.zeros((3, 16, 16), np.float32)
    weighed = weigh_appearance(logits, guide, MM, weight=1.0, across=True)
    np.testing.assert_array_equal(weighed, np.full((3, 1, 16, 16), -2.0))


@pytest.mark.parametrize(("cases", "weight"), [(0, 2.0), (1, 2.0), (3, 2.0), (6, 1.0), (30, 0.2)])
def test_a_prior_of_many_cases_is_believed_more(cases: int, weight: float) -> None:
    assert appearance_weight(cases) == pytest.approx(weight)
