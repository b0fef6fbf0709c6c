from __future__ import annotations

import numpy as np
import pytest

from DiffuSAMLib.postprocessing import clean_labels, has_several_pieces

SPACING = (5.0, 1.0, 1.0)
VALUES = (1, 2)


def stack() -> np.ndarray:
    labels = np.zeros((6, 40, 40), dtype=np.uint8)
    labels[1:5, 5:20, 5:20] = 1
    labels[1:5, 25:35, 25:35] = 2
    return labels


def test_a_clean_map_stays_as_it_is() -> None:
    labels = stack()
    assert np.array_equal(clean_labels(labels, VALUES, spacing=SPACING), labels)


def test_specks_go_and_the_input_is_untouched() -> None:
    labels = stack()
    labels[0, 38, 38], labels[5, 1, 1] = 1, 2
    before = labels.copy()
    assert np.array_equal(clean_labels(labels, VALUES, spacing=SPACING), stack())
    assert np.array_equal(labels, before)


def test_a_speck_inside_another_organ_becomes_that_organ() -> None:
    labels = stack()
    labels[2, 10, 10] = 2
    assert np.array_equal(clean_labels(labels, VALUES, spacing=SPACING), stack())


def test_pinholes_close_and_a_renal_sinus_stays() -> None:
    labels = stack()
    labels[2, 10, 10] = 0
    labels[3, 7:17, 7:17] = 0
    cleaned = clean_labels(labels, VALUES, spacing=SPACING)
    assert cleaned[2, 10, 10] == 1
    assert not cleaned[3, 7:17, 7:17].any()


def test_hole_size_is_measured_in_mm() -> None:
    labels = stack()
    labels[3, 8:13, 8:13] = 0
    assert clean_labels(labels, VALUES, spacing=(5.0, 1.0, 1.0))[3, 10, 10] == 1
    assert clean_labels(labels, VALUES, spacing=(5.0, 2.0, 2.0))[3, 10, 10] == 0


def test_a_hole_holding_another_organ_is_not_overwritten() -> None:
    labels = np.zeros((3, 12, 12), dtype=np.uint8)
    labels[:, 2:10, 2:10] = 1
    labels[:, 5:7, 5:7] = 2
    assert np.array_equal(clean_labels(labels, VALUES, spacing=SPACING), labels)


def test_a_notch_open_to_the_outside_is_not_a_hole() -> None:
    labels = stack()
    labels[2, 5:8, 10] = 0
    assert np.array_equal(clean_labels(labels, VALUES, spacing=SPACING), labels)


def test_one_slice_is_not_lost() -> None:
    labels = stack()[2:3]
    assert np.array_equal(clean_labels(labels, VALUES, spacing=SPACING), labels)


def test_a_single_voxel_is_not_lost() -> None:
    labels = np.ones((1, 1, 1), dtype=np.uint8)
    assert clean_labels(labels, VALUES, spacing=SPACING).all()


def test_an_empty_map_stays_empty() -> None:
    assert not clean_labels(np.zeros((4, 5, 6), dtype=np.uint8), VALUES, spacing=SPACING).any()


def test_labels_not_asked_for_are_left_alone() -> None:
    labels = stack()
    labels[0, 0, 0], labels[5, 39, 39] = 7, 7
    assert np.array_equal(clean_labels(labels, VALUES, spacing=SPACING), labels)


def test_pairs_survive_with_major_but_not_with_largest() -> None:
    labels = np.zeros((4, 20, 40), dtype=np.uint8)
    labels[:, 5:15, 2:12] = 1
    labels[:, 5:15, 25:33] = 1
    labels[0, 0, 39] = 1
    both = clean_labels(labels, [1], spacing=SPACING, keep="major")
    assert both[:, :, 2:33].sum() == labels[:, :, 2:33].sum()
    assert both[0, 0, 39] == 0
    assert not clean_labels(labels, [1], spacing=SPACING)[:, :, 25:].any()


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="keep"):
        clean_labels(stack(), VALUES, spacing=SPACING, keep="some")  # type: ignore[arg-type]


def test_a_pair_has_several_pieces_and_a_speck_makes_none() -> None:
    mask = stack() == 1
    assert not has_several_pieces(mask)
    mask[2, 38, 38] = True
    assert not has_several_pieces(mask)
    assert has_several_pieces(stack() > 0)
    assert not has_several_pieces(np.zeros((2, 3, 3), bool))


def test_the_layout_keeps_the_well_placed_piece_of_an_organ() -> None:
    labels = np.zeros((6, 40, 60), dtype=np.uint8)
    labels[1:5, 5:15, 5:15], labels[1:5, 25:35, 5:15], labels[1:5, 25:35, 20:30] = 1, 2, 3
    own, stray = (slice(1, 5), slice(5, 13), slice(20, 28)), (slice(0, 6), slice(20, 38), slice(45, 60))
    labels[own], labels[stray] = 4, 4
    layout = {1: (0.0, 0.0, 0.0), 2: (0.0, 200.0, 0.0), 3: (0.0, 200.0, 150.0), 4: (0.0, 0.0, 150.0)}
    cleaned = clean_labels(labels, (1, 2, 3, 4), spacing=(5.0, 10.0, 10.0), layout=layout)
    assert (cleaned[own] == 4).all()
    assert not cleaned[stray].any()
    largest = clean_labels(labels, (1, 2, 3, 4), spacing=(5.0, 10.0, 10.0))
    assert (largest[stray] == 4).all()
    assert not largest[own].any()
