from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from DiffuSAMLib.layout import Position, layout_of
from DiffuSAMLib.organ_regions import (
    FURTHEST_MM,
    MARGIN_MM,
    OrganRegion,
    keep_to_regions,
    regions_from_json,
    regions_of,
)

ORGANS = ("spleen", "kidney", "liver")
SPACING = (5.0, 4.0, 4.0)
# First voxels of boxes of 6 x 8 x 8 voxels in a volume of 40 x 60 x 60.
PLACES = {"spleen": (20, 10, 44), "kidney": (8, 30, 40), "liver": (18, 12, 8)}


def labels(
    *, by: tuple[int, int, int] = (0, 0, 0), places: dict[str, tuple[int, int, int]] = PLACES
) -> np.ndarray:
    volume = np.zeros((40, 60, 60), np.uint8)
    for value, organ in enumerate(ORGANS, start=1):
        if organ in places:
            z, y, x = np.add(places[organ], by)
            volume[z : z + 6, y : y + 8, x : x + 8] = value
    return volume


def positions(volume: np.ndarray) -> dict[str, np.ndarray]:
    found = {organ: np.argwhere(volume == value) for value, organ in enumerate(ORGANS, start=1)}
    return {organ: voxels * SPACING for organ, voxels in found.items() if len(voxels)}


@pytest.fixture(scope="module")
def layout() -> dict[str, Position]:
    places = positions(labels())
    return layout_of([{organ: tuple(p.mean(axis=0).tolist()) for organ, p in places.items()}])  # type: ignore[misc]


@pytest.fixture(scope="module")
def regions(layout: dict[str, Position]) -> dict[str, OrganRegion]:
    # The second patient lies elsewhere in the scanner.
    return regions_of([positions(labels()), positions(labels(by=(3, 5, 6)))], layout)


def kept(
    volume: np.ndarray, first: np.ndarray, layout: dict[str, Position], regions: dict[str, OrganRegion]
) -> np.ndarray:
    """What is left of labels of which `first` is the cleaned part."""
    logits = np.stack([np.where(volume == value, 8.0, -9.0) for value in (1, 2, 3)], axis=1).astype(
        np.float16
    )
    keep_to_regions(logits, first, ORGANS, layout=layout, regions=regions, spacing=SPACING)
    assert logits.min() == -9
    return np.where(logits.max(axis=1) > 0, logits.argmax(axis=1) + 1, 0)


def test_cells_come_back_from_json(regions: dict[str, OrganRegion]) -> None:
    assert set(regions) == set(ORGANS)
    again = regions_from_json(
        json.loads(json.dumps({organ: asdict(region) for organ, region in regions.items()}))
    )
    assert again == regions
    # 30 x 32 x 32 mm, in cells of 10 mm.
    assert all(3 <= side <= 5 for side in regions["liver"].shape)
    assert regions["liver"].taken().any(axis=(1, 2)).all()


def test_a_patient_who_lies_elsewhere_makes_no_region_larger(
    layout: dict[str, Position], regions: dict[str, OrganRegion]
) -> None:
    assert regions_of([positions(labels())], layout) == regions


def test_distances_are_in_mm_from_the_nearest_cell() -> None:
    region = OrganRegion.of_cells(np.array([[0, 0, 0], [0, 0, 1]]))
    z, y, x = np.array([0.0, 30.0]), np.array([-40.0, 0.0]), np.array([0.0, 10.0, 30.0, 500.0])
    distances = region.distances((z, y, x))
    np.testing.assert_allclose(distances[0, 1], [0, 0, 20, FURTHEST_MM], atol=1e-4)
    assert distances[1, 0, 0] == pytest.approx(50, abs=1)


def test_what_lies_far_from_where_the_others_let_it_be_expected_goes(
    layout: dict[str, Position], regions: dict[str, OrganRegion]
) -> None:
    first = labels(by=(4, 2, -3))
    volume = first.copy()
    volume[24:30, 50:58, 10:18] = 3
    np.testing.assert_array_equal(kept(volume, first, layout, regions), first)


def test_a_larger_patient_has_larger_regions(
    layout: dict[str, Position], regions: dict[str, OrganRegion]
) -> None:
    """Everything 30 % larger: the liver's far end lies 45 mm from where it was, seen from the others."""
    first = np.zeros((52, 78, 78), np.uint8)
    for value, organ in enumerate(ORGANS, start=1):
        z, y, x = np.round(np.multiply(PLACES[organ], 1.3)).astype(int)
        first[z : z + 8, y : y + 10, x : x + 10] = value
    np.testing.assert_array_equal(kept(first, first, layout, regions), first)


def test_a_margin_is_left_for_other_patients(
    layout: dict[str, Position], regions: dict[str, OrganRegion]
) -> None:
    volume = labels()
    z, y, x = PLACES["liver"]
    near, far = x + 8 + int(MARGIN_MM / SPACING[2]) - 3, x + 8 + int(MARGIN_MM / SPACING[2]) + 7
    volume[z : z + 6, y : y + 8, x + 8 : far] = 3
    left = kept(volume, labels(), layout, regions) == 3
    assert left[z, y, x : near + 1].all()
    assert not left[z, y, far - 1]


@pytest.mark.parametrize("others", [("spleen",), ()])
def test_one_organ_alone_tells_too_little(
    others: tuple[str, ...], layout: dict[str, Position], regions: dict[str, OrganRegion]
) -> None:
    first = labels(places={organ: PLACES[organ] for organ in (*others, "liver")})
    volume = first.copy()
    volume[24:30, 50:58, 10:18] = 3
    np.testing.assert_array_equal(kept(volume, first, layout, regions), volume)


def test_an_organ_that_the_end_of_the_volume_cuts_tells_nothing(
    layout: dict[str, Position], regions: dict[str, OrganRegion]
) -> None:
    volume = labels()
    volume[24:30, 50:58, 10:18] = 3
    # The volume begins in the middle of the kidney.
    cut = slice(PLACES["kidney"][0] + 3, None)
    np.testing.assert_array_equal(kept(volume[cut], labels()[cut], layout, regions), volume[cut])


def test_organs_that_no_case_shows_with_two_others_have_no_region(layout: dict[str, Position]) -> None:
    both = {"spleen": PLACES["spleen"], "liver": PLACES["liver"]}
    assert regions_of([positions(labels(places=both))], layout) == {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda region: region.update(cells="?"), "base64"),
        (lambda region: region.update(cells=7), "base64"),
        (lambda region: region.update(cells=""), "bytes"),
        (lambda region: region.update(shape=[1, 2]), "shape"),
        (lambda region: region.update(shape=[0, 1, 1]), "cells"),
        (lambda region: region.update(start=[0.5, 0, 0]), "start"),
        (lambda region: region.update(start=[0, 0, 10**9]), "start"),
    ],
)
def test_a_region_that_cannot_be_is_refused(change: Callable[[dict[str, Any]], None], says: str) -> None:
    region = asdict(OrganRegion.of_cells(np.zeros((1, 3), int)))
    change(region)
    with pytest.raises(ValueError, match=says):
        regions_from_json({"liver": region})
