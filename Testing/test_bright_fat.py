from __future__ import annotations

import numpy as np
import pytest

from DiffuSAMLib.bright_fat import brightness_of_fat, remove_bright_fat

SPACING = (5.0, 2.0, 2.0)
ORGAN = (slice(1, 5), slice(40, 60), slice(30, 50))
# As much again of the fat behind it.
TOO_LARGE = (slice(1, 5), slice(40, 80), slice(30, 50))
VESSEL = (slice(2, 4), slice(48, 51), slice(38, 41))


def image(*, fat: float = 900.0, organ: float = 250.0, offset: float = 0.0) -> np.ndarray:
    """A round patient of fat with an organ in it, a bright vessel inside that, and noise."""
    y, x = np.mgrid[:100, :100]
    inside = np.hypot(y - 50, x - 50) < 44
    array = np.where(inside, fat, 0.0)[None].repeat(6, axis=0)
    array[ORGAN] = organ
    array[VESSEL] = 1000.0
    noise = np.abs(np.random.default_rng(0).normal(0, 15, array.shape))
    return (array + noise + offset).astype(np.float32)


def labels() -> np.ndarray:
    found = np.zeros((6, 100, 100), np.uint8)
    found[TOO_LARGE] = 1
    return found


def own() -> np.ndarray:
    mask = np.zeros((6, 100, 100), bool)
    mask[ORGAN] = True
    return mask


@pytest.mark.parametrize("offset", [0.0, 300.0, -50.0])
def test_fat_beside_an_organ_goes_and_a_vessel_inside_it_stays(offset: float) -> None:
    found = labels()
    remove_bright_fat(found, image(offset=offset), [1], spacing=SPACING)
    np.testing.assert_array_equal(found == 1, own())


def test_other_labels_and_labels_that_are_not_there_do_not_matter() -> None:
    found = labels()
    remove_bright_fat(found, image(), [2, 9], spacing=SPACING)
    np.testing.assert_array_equal(found, labels())


@pytest.mark.parametrize(
    ("why", "fat", "organ"),
    [("suppressed fat", 200.0, 700.0), ("an organ nearly as bright", 900.0, 450.0), ("no signal", 0.0, 0.0)],
)
def test_nothing_changes_where_fat_is_not_much_brighter(why: str, fat: float, organ: float) -> None:
    found = labels()
    remove_bright_fat(found, image(fat=fat, organ=organ), [1], spacing=SPACING)
    np.testing.assert_array_equal(found, labels(), err_msg=why)


def test_a_label_of_fat_alone_stays() -> None:
    found = np.zeros((6, 100, 100), np.uint8)
    found[:, 65:80, 40:60] = 1
    before = found.copy()
    remove_bright_fat(found, image(), [1], spacing=SPACING)
    np.testing.assert_array_equal(found, before)


def test_fat_is_as_bright_as_what_lies_below_the_skin() -> None:
    assert brightness_of_fat(image(), SPACING) == pytest.approx(900, abs=30)
    assert brightness_of_fat(image(fat=200.0, organ=700.0), SPACING) is None
    assert brightness_of_fat(np.zeros((2, 8, 8), np.float32), SPACING) is None
