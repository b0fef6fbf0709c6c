from __future__ import annotations

from dataclasses import replace

import numpy as np
from cases import ORGANS, small_abdomen

from DiffuSAMLib.label_traits import label_traits
from DiffuSAMLib.labelled_stacks import LabelledStack, to_stack


def stack(seed: int = 3, modality: str = "CT") -> LabelledStack:
    abdomen = small_abdomen(seed, "MR" if modality == "MR" else "CT")
    names = dict(enumerate(ORGANS, start=1))
    return to_stack(abdomen.volume, abdomen.labels.array, names, name="a", organs=ORGANS, size=64)


def test_organs_of_one_piece_without_fat() -> None:
    traits = label_traits([stack(3), stack(4)], ORGANS)
    assert (traits["in_pieces"], traits["solid"], traits["soft"]) == ((), ORGANS, ORGANS)


def test_the_layout_says_where_organs_lie_in_mm() -> None:
    layout = label_traits([stack(3), stack(4)], ORGANS)["layout"]
    assert set(layout) == set(ORGANS)
    apart = np.subtract(layout["left kidney"], layout["right kidney"])
    # Slices go up, rows to the back, columns to the left.
    assert 80 < apart[2] < 180
    assert np.abs(apart[:2]).max() < 40
    assert layout["spleen"][0] > layout["left kidney"][0]
    assert layout["liver"][1] < layout["right kidney"][1]


def test_the_regions_hold_the_organs_in_the_frame_of_the_layout() -> None:
    traits = label_traits([stack(3), stack(4)], ORGANS)
    assert set(traits["regions"]) == set(ORGANS)
    for organ, region in traits["regions"].items():
        middle = np.multiply(region.start, 10.0) + np.subtract(region.shape, 1) * 5.0
        assert np.abs(middle - traits["layout"][organ]).max() < 40


def test_a_pair_is_in_pieces() -> None:
    one = stack()
    labels = one.labels.copy()
    labels[labels == 3] = 2
    assert label_traits([replace(one, labels=labels)], ORGANS)["in_pieces"] == ("right kidney",)


def test_a_label_of_fat_is_not_solid() -> None:
    one = stack()
    # Everything around the organs: fat, gas and much else.
    labels = one.labels.copy()
    labels[labels == 0] = 4
    assert "liver" not in label_traits([replace(one, labels=labels)], ORGANS)["solid"]


def test_an_organ_that_is_calcified_in_one_case_is_not_soft() -> None:
    one = stack(3)
    slices = one.slices.copy()
    slices[tuple(np.argwhere(one.labels == 1)[::20].T)] = 255
    traits = label_traits([stack(3), stack(4), replace(one, slices=slices)], ORGANS)
    assert (traits["solid"], traits["soft"]) == (ORGANS, ORGANS[1:])


def test_mr_tells_nothing_of_fat_and_bone() -> None:
    traits = label_traits([stack(modality="MR")], ORGANS)
    assert (traits["solid"], traits["soft"]) == ((), ())


def test_procedural_abdomens_tell_where_no_case_is_ct() -> None:
    organs = (*ORGANS, "pancreas")
    traits = label_traits([stack(modality="MR")], organs, procedural=2)
    assert (traits["solid"], traits["soft"]) == (ORGANS, ORGANS)
    # A case that is CT tells more.
    traits = label_traits([stack(3)], organs, procedural=2)
    assert (traits["solid"], traits["soft"]) == (ORGANS, ORGANS)
    one = stack(3)
    slices = one.slices.copy()
    slices[tuple(np.argwhere(one.labels == 1)[::20].T)] = 255
    assert label_traits([replace(one, slices=slices)], organs, procedural=2)["soft"] == ORGANS[1:]
