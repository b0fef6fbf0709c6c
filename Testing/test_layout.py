from __future__ import annotations

import numpy as np
import pytest

from DiffuSAMLib.layout import Piece, Position, centre_of, layout_of, own_pieces

# Spleen, right kidney, left kidney, liver; z, y, x.
PLACES: dict[int, Position] = {
    1: (60.0, 20.0, 90.0),
    2: (0.0, 30.0, -60.0),
    3: (10.0, 30.0, 60.0),
    4: (50.0, -20.0, -70.0),
}


def piece(label: int, *, voxels: int = 1000, number: int = 1, by: Position = (0.0, 0.0, 0.0)) -> Piece:
    z, y, x = np.add(PLACES[label], by).tolist()
    return Piece(number, voxels, (z, y, x))


def test_the_centre_is_in_mm_from_the_first_voxel_of_the_whole() -> None:
    mask = np.zeros((3, 4, 5), bool)
    mask[1, 1:3, 2] = True
    assert centre_of(mask, (5.0, 2.0, 1.0)) == (5.0, 3.0, 2.0)
    assert centre_of(mask, (5.0, 2.0, 1.0), (10, 0, 1)) == (55.0, 3.0, 3.0)


def test_the_layout_does_not_depend_on_where_a_patient_lies() -> None:
    cases = [
        {str(label): tuple(np.add(place, shift).tolist()) for label, place in PLACES.items()}
        for shift in ((0, 0, 0), (100, -20, 5), (-30, 0, 40))
    ]
    layout = layout_of(cases)  # type: ignore[arg-type]
    assert np.abs(np.mean(list(layout.values()), axis=0)).max() < 0.1
    for label, place in PLACES.items():
        np.testing.assert_allclose(
            np.subtract(layout[str(label)], layout["4"]), np.subtract(place, PLACES[4]), atol=0.2
        )


def test_an_organ_that_some_cases_do_not_show_has_its_place_from_the_others() -> None:
    whole = {str(label): place for label, place in PLACES.items()}
    part = {name: tuple(np.add(place, 50).tolist()) for name, place in whole.items() if name != "1"}
    layout = layout_of([whole, part])  # type: ignore[list-item]
    np.testing.assert_allclose(
        np.subtract(layout["1"], layout["4"]), np.subtract(PLACES[1], PLACES[4]), atol=0.2
    )


def test_no_case_has_no_layout() -> None:
    assert layout_of([]) == {}
    assert layout_of([{}]) == {}


def test_a_well_placed_piece_wins_over_a_larger_one_far_away() -> None:
    candidates = {label: [piece(label)] for label in (2, 3, 4)}
    own, stray = piece(1, voxels=400, number=2), piece(1, by=(-150.0, 0.0, 20.0))
    assert own_pieces({1: [stray, own], **candidates}, PLACES)[1] == own


def test_of_two_pieces_side_by_side_the_larger_one_wins() -> None:
    candidates = {label: [piece(label)] for label in (2, 3, 4)}
    large, small = piece(1, by=(0.0, 15.0, 0.0)), piece(1, voxels=400, number=2)
    assert own_pieces({1: [small, large], **candidates}, PLACES)[1] == large


def test_two_organs_astray_at_a_time_are_both_set_right() -> None:
    candidates = {
        label: [piece(label, by=(-120.0, 0.0, 30.0)), piece(label, voxels=300, number=2)] for label in (1, 3)
    }
    chosen = own_pieces({**candidates, 2: [piece(2)], 4: [piece(4)]}, PLACES)
    assert chosen[1].number == chosen[3].number == 2


@pytest.mark.parametrize("layout", [{}, {1: PLACES[1], 4: PLACES[4]}])
def test_without_two_others_to_go_by_the_largest_piece_is_taken(layout: dict[int, Position]) -> None:
    own, stray = piece(1, voxels=400, number=2), piece(1, by=(-150.0, 0.0, 0.0))
    candidates = {1: [own, stray], 2: [piece(2)], 4: [piece(4)]}
    assert own_pieces(candidates, layout)[1] == stray
