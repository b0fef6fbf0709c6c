from __future__ import annotations

import numpy as np
import pytest

from DiffuSAMLib.hounsfield import (
    BRIGHT_HU,
    FAT_HU,
    is_soft,
    is_solid,
    least_bright_hu,
    least_hu,
    remove_bright,
    remove_fat,
)

SPACING = (5.0, 1.0, 1.0)


def a_kidney(hu: float = 150.0) -> tuple[np.ndarray, np.ndarray]:
    """An organ with fat in its middle that its label covers, in fat: labels and HU `(z, y, x)`."""
    image = np.full((3, 30, 30), FAT_HU)
    image[:, 5:25, 5:25] = hu
    image[:, 12:17, 12:20] = FAT_HU
    labels = np.zeros(image.shape, np.uint8)
    labels[:, 4:26, 5:25] = 1
    return labels, image


@pytest.mark.parametrize("hu", [25.0, 60.0, 150.0, 260.0])
def test_fat_is_taken_out_of_an_organ_in_any_phase(hu: float) -> None:
    labels, image = a_kidney(hu)
    remove_fat(labels, image, [1], spacing=SPACING)
    assert ((labels == 1) == (image == hu)).all()


@pytest.mark.parametrize("enclosed", [True, False])
def test_a_cyst_stays_and_what_is_smoothed_with_fat_goes(enclosed: bool) -> None:
    labels, image = a_kidney(200.0)
    cyst, rim = np.zeros((2, *image.shape), bool)
    columns = slice(7, 11) if enclosed else slice(5, 9)
    cyst[:, 7:11, columns] = True
    rim[:, 11, 12:20] = True
    image[cyst], image[rim] = 8.0, 30.0
    remove_fat(labels, image, [1], spacing=(5.0, 3.0, 3.0))
    assert (labels[cyst] == 1).mean() > 0.6
    assert not labels[rim].any()


def test_other_labels_keep_theirs() -> None:
    labels, image = a_kidney()
    labels[:, :, 15:] *= 3
    before = labels.copy()
    remove_fat(labels, image, [2, 7], spacing=SPACING)
    assert np.array_equal(labels, before)
    remove_fat(labels, image, [3], spacing=SPACING)
    assert (labels == 3).sum() < (before == 3).sum()
    assert np.array_equal(labels == 1, before == 1)


def test_the_threshold_follows_the_organ() -> None:
    assert least_hu(np.array([40.0] * 9 + [-100.0] * 4)) == pytest.approx(-16)
    assert least_hu(np.array([200.0])) > least_hu(np.array([100.0])) > least_hu(np.array([0.0]))


def test_an_organ_with_little_fat_at_its_border_is_solid() -> None:
    organ = np.full(100, 100.0)
    organ[:10] = -50
    assert is_solid(organ)
    organ[:30] = -50
    assert not is_solid(organ)


@pytest.mark.parametrize("hu", [-100.0, -110.0, -850.0])
def test_fat_and_lung_are_not_solid(hu: float) -> None:
    assert not is_solid(np.random.default_rng(0).normal(hu, 10, 1000))


def test_a_stomach_with_gas_is_not_solid() -> None:
    assert not is_solid(np.r_[np.full(70, 40.0), np.full(30, -900.0)])
    assert not is_solid(np.array([]))


def a_kidney_and_bowel(hu: float = 150.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A label over a kidney and a loop of bowel full of contrast medium beside it; labels, HU, which is bowel."""
    image = np.full((3, 30, 30), FAT_HU)
    image[:, 5:25, 5:20] = hu
    bowel = np.zeros(image.shape, bool)
    bowel[:, 8:22, 20:27] = True
    image[bowel] = 600.0
    # Smoothed by the scanner: more of the bowel than of the kidney.
    image[:, 8:22, 20] = (hu + 600) / 2
    return ((image == hu) | bowel).astype(np.uint8), image, bowel


@pytest.mark.parametrize("hu", [40.0, 150.0, 240.0])
def test_contrast_medium_is_taken_out_of_an_organ_in_any_phase(hu: float) -> None:
    labels, image, bowel = a_kidney_and_bowel(hu)
    remove_bright(labels, image, [1])
    assert np.array_equal(labels == 1, image == hu)
    assert not labels[bowel].any()


def test_what_is_smoothed_with_bone_goes_only_beside_it() -> None:
    labels, image, _ = a_kidney_and_bowel()
    image[:, 8:22, 20] = 220.0
    vessel = image[:, 10:14, 10:14]
    vessel[:] = 220.0
    remove_bright(labels, image, [1])
    assert not labels[:, 8:22, 20].any()
    assert labels[:, 10:14, 10:14].all()


def test_what_a_soft_organ_encloses_stays() -> None:
    labels, image, _ = a_kidney_and_bowel()
    image[1, 10:14, 10:14] = 900.0
    remove_bright(labels, image, [1])
    assert labels[1, 10:14, 10:14].all()


def test_other_labels_keep_what_is_bright() -> None:
    labels, image, _ = a_kidney_and_bowel()
    before = labels.copy()
    remove_bright(labels, image, [2, 7])
    assert np.array_equal(labels, before)


def test_an_organ_full_of_contrast_medium_is_as_bright_as_it_is() -> None:
    assert least_bright_hu(np.array([100.0] * 3)) == BRIGHT_HU
    assert least_bright_hu(np.array([260.0] * 3)) > 300
    labels, image, _ = a_kidney_and_bowel(300.0)
    before = labels.copy()
    image[image > 300] = 340
    remove_bright(labels, image, [1])
    assert np.array_equal(labels, before)


def test_a_bright_cortex_is_the_kidneys_own() -> None:
    image = np.full((3, 30, 30), FAT_HU)
    image[:, 5:25, 5:25] = 320.0
    image[:, 8:22, 8:25] = 120.0
    labels = (image > 0).astype(np.uint8)
    before = labels.copy()
    assert ((image == 320) & (labels == 1)).sum() < labels.sum() / 2
    remove_bright(labels, image, [1])
    assert np.array_equal(labels, before)


def test_a_calcified_vessel_is_not_soft() -> None:
    vessel = np.full(1000, 140.0)
    assert is_soft(vessel)
    vessel[:5] = 400.0
    assert not is_soft(vessel)
    assert not is_soft(np.array([]))
