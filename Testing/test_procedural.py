"""The procedural abdomen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from DiffuSAMLib.procedural import (
    LEFT_KIDNEY,
    LIVER,
    ORGAN_NAMES,
    RIGHT_KIDNEY,
    SPLEEN,
    TISSUE,
    TISSUE_NAMES,
    Abdomen,
    make_abdomen,
)

SEEDS = range(6)
COARSE = {"shape": (40, 88, 88), "spacing": (4.0, 4.0, 7.0)}


@pytest.fixture(scope="module")
def patients() -> list[Abdomen]:
    return [make_abdomen(seed, **COARSE) for seed in SEEDS]


@pytest.fixture(scope="module")
def patients_in_mr() -> list[Abdomen]:
    return [make_abdomen(seed, modality="MR", **COARSE) for seed in SEEDS]


def centre_mm(abdomen: Abdomen, label: int) -> np.ndarray:
    z, y, x = (float(i.mean()) for i in np.nonzero(abdomen.labels.array == label))
    return (abdomen.labels.geometry.matrix @ [x, y, z, 1])[:3]


def mean_of(abdomen: Abdomen, tissue: str) -> float:
    return float(abdomen.volume.array[abdomen.tissues == TISSUE[tissue]].mean())


def test_same_seed_gives_the_same_abdomen():
    first, second = (make_abdomen(7, modality="MR", **COARSE) for _ in range(2))
    assert np.array_equal(first.volume.array, second.volume.array)
    assert np.array_equal(first.labels.array, second.labels.array)
    assert first.volume.geometry == second.volume.geometry


def test_other_seeds_give_other_abdomens(patients):
    for first, second in itertools.pairwise(patients):
        assert (first.labels.array != second.labels.array).mean() > 0.01


def test_shape_types_and_names_are_as_documented():
    abdomen = make_abdomen(0)
    assert abdomen.volume.array.shape == abdomen.tissues.shape == (48, 160, 160)
    assert abdomen.volume.array.dtype == np.float32
    assert abdomen.labels.array.dtype == abdomen.tissues.dtype == np.uint8
    assert (
        abdomen.labels.names == {1: "spleen", 2: "right kidney", 3: "left kidney", 4: "liver"} == ORGAN_NAMES
    )
    assert abdomen.volume.geometry == abdomen.labels.geometry
    assert abdomen.volume.geometry.orientation == "LPS"
    assert np.allclose(abdomen.volume.geometry.spacing, (2, 2, 5))
    assert abdomen.volume.modality == "CT"


def test_the_organs_have_plausible_volumes(patients):
    ranges = {SPLEEN: (95, 420), RIGHT_KIDNEY: (110, 215), LEFT_KIDNEY: (110, 215), LIVER: (1150, 1850)}
    for abdomen in patients:
        for label, (low, high) in ranges.items():
            volume = (abdomen.labels.array == label).sum() * abdomen.labels.geometry.voxel_volume_ml
            assert low < volume < high, (abdomen.volume.source, ORGAN_NAMES[label])


def test_organ_sizes_vary_between_patients(patients):
    for label in ORGAN_NAMES:
        volumes = [(abdomen.labels.array == label).sum() for abdomen in patients]
        assert np.std(volumes) / np.mean(volumes) > 0.05


def test_the_organs_lie_where_they_belong(patients):
    for abdomen in patients:
        spleen, right, left, liver = (centre_mm(abdomen, label) for label in (1, 2, 3, 4))
        assert liver[0] < spleen[0] - 60
        assert right[0] < left[0] - 60
        assert liver[2] > right[2] + 15
        assert liver[2] > left[2] + 10
        assert liver[1] < right[1] - 10
        assert spleen[1] > liver[1]


def test_the_spine_is_behind_and_in_the_middle(patients):
    for abdomen in patients:
        body = np.nonzero(abdomen.tissues != TISSUE["air"])
        spine = np.nonzero(abdomen.tissues == TISSUE["spinal canal"])
        assert abs(spine[2].mean() - body[2].mean()) < 6
        assert spine[1].mean() > body[1].mean() + 5


def test_the_lungs_lie_above_the_liver(patients):
    for abdomen in patients:
        lung = np.nonzero(abdomen.tissues == TISSUE["lung"])[0].mean()
        assert lung > np.nonzero(abdomen.labels.array == LIVER)[0].mean() + 4


def test_labels_and_tissues_agree(patients):
    of_label = {
        SPLEEN: {"spleen"},
        RIGHT_KIDNEY: {"kidney", "kidney medulla", "kidney sinus", "kidney cyst"},
        LEFT_KIDNEY: {"kidney", "kidney medulla", "kidney sinus", "kidney cyst"},
        LIVER: {"liver", "liver vessel", "liver lesion"},
    }
    for abdomen in patients:
        for label, names in of_label.items():
            found = {TISSUE_NAMES[t] for t in np.unique(abdomen.tissues[abdomen.labels.array == label])}
            assert found <= names
        outside = {TISSUE_NAMES[t] for t in np.unique(abdomen.tissues[abdomen.labels.array == 0])}
        assert not outside & set().union(*of_label.values())


def test_each_organ_is_mostly_one_piece():
    for seed in SEEDS:
        labels = make_abdomen(seed, shape=(60, 120, 120), spacing=(3.0, 3.0, 4.5)).labels.array
        for label in ORGAN_NAMES:
            pieces, count = ndimage.label(labels == label)
            assert count >= 1
            assert np.bincount(pieces.ravel())[1:].max() > 0.93 * (labels == label).sum()


def test_the_patient_does_not_depend_on_the_grid():
    fine = make_abdomen(3, shape=(81, 177, 177), spacing=(2.0, 2.0, 3.5))
    coarse = make_abdomen(3, shape=(41, 89, 89), spacing=(4.0, 4.0, 7.0))
    assert np.mean(fine.labels.array[::2, ::2, ::2] == coarse.labels.array) > 0.999


def test_the_patient_does_not_depend_on_the_modality(patients, patients_in_mr):
    for ct, mr in zip(patients, patients_in_mr, strict=True):
        assert np.array_equal(ct.labels.array, mr.labels.array)


def test_ct_is_in_hounsfield_units(patients):
    for abdomen in patients:
        assert mean_of(abdomen, "air") < -950
        assert -950 < mean_of(abdomen, "lung") < -650
        assert -120 < mean_of(abdomen, "body fat") < -60
        assert 20 < mean_of(abdomen, "muscle") < 80
        assert 20 < mean_of(abdomen, "liver") < 145
        assert 30 < mean_of(abdomen, "spleen") < 160
        assert mean_of(abdomen, "bone") > 180
        assert np.isfinite(abdomen.volume.array).all()


def test_contrast_phases_differ_between_patients(patients):
    others = [make_abdomen(seed, **COARSE) for seed in range(len(patients), 12)]
    aorta = [mean_of(abdomen, "aorta") for abdomen in (*patients, *others)]
    assert min(aorta) < 70
    assert max(aorta) > 130


def test_mr_looks_like_fat_suppressed_t2(patients_in_mr):
    for abdomen in patients_in_mr:
        assert abdomen.volume.modality == "MR"
        assert abdomen.volume.array.min() >= 0
        liver = mean_of(abdomen, "liver")
        assert mean_of(abdomen, "spleen") > 1.1 * liver
        assert mean_of(abdomen, "kidney") > 1.1 * liver
        assert mean_of(abdomen, "visceral fat") < liver
        # Most muscle is nearer to the coils.
        assert mean_of(abdomen, "muscle") < 1.25 * liver
        assert mean_of(abdomen, "air") < 0.5 * liver


def test_fat_is_bright_in_t1_and_in_plain_t2(patients_in_mr):
    for seed, suppressed in zip(SEEDS, patients_in_mr, strict=True):
        t2, t1 = (make_abdomen(seed, modality="MR", sequence=sequence, **COARSE) for sequence in ("T2", "T1"))
        for abdomen in (t2, t1):
            assert np.array_equal(abdomen.labels.array, suppressed.labels.array)
            assert mean_of(abdomen, "visceral fat") > mean_of(abdomen, "muscle")
        assert mean_of(t2, "spinal canal") > mean_of(t2, "liver")
        assert mean_of(t1, "spinal canal") < mean_of(t1, "visceral fat")


def test_random_appearance_keeps_the_shape_and_changes_the_contrast(patients):
    order = set()
    for seed, plain in zip(SEEDS, patients, strict=True):
        random = make_abdomen(seed, appearance="random", **COARSE)
        assert np.array_equal(plain.labels.array, random.labels.array)
        order.add(mean_of(random, "liver") > mean_of(random, "spleen"))
    assert order == {True, False}


def test_a_single_slice_can_be_made():
    abdomen = make_abdomen(1, shape=(1, 64, 64), spacing=(5.0, 5.0, 5.0))
    assert abdomen.volume.array.shape == (1, 64, 64)
    assert LIVER in abdomen.labels.array


def test_an_impossible_grid_is_refused():
    with pytest.raises(ValueError, match="positive"):
        make_abdomen(0, shape=(0, 10, 10))
    with pytest.raises(ValueError, match="positive"):
        make_abdomen(0, spacing=(1.0, 1.0, 0.0))
