from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from DiffuSAMLib.organ_traits import OrganTraits
from DiffuSAMLib.prior import PriorConfig

LAYOUT = {"liver": (0.0, 100.0, 50.0), "right kidney": (0.0, 100.0, 200.0), "spleen": (0.0, 25.0, 150.0)}


@pytest.fixture
def untaught() -> OrganTraits:
    """Of a prior that knows an organ more than those that are looked for, which are in another order."""
    config = PriorConfig(("spleen", "stomach", "right kidney", "liver"), 32, (32, 64, 128))
    return OrganTraits(config, [config.organs.index(name) for name in LAYOUT])


def test_the_piece_is_kept_that_lies_where_the_organ_belongs(untaught: OrganTraits) -> None:
    """Of an organ found in two places, also when only some of the organs are asked for."""
    labels = np.zeros((10, 60, 60), np.uint8)
    for value, place in ((1, (20, 10)), (2, (20, 40)), (3, (5, 30))):
        labels[4:8, place[0] : place[0] + 8, place[1] : place[1] + 8] = value
    labels[:3, 45:58, 5:20] = 1
    taught = replace(untaught, config=replace(untaught.config, layout=LAYOUT))
    kept = taught.cleaned(labels, (5.0, 5.0, 5.0)) == 1
    assert kept[4:8, 20:28, 10:18].all()
    assert not kept[:3].any()
    largest = untaught.cleaned(labels, (5.0, 5.0, 5.0)) == 1
    assert largest[:3].any()
    assert not largest[4:8].any()


def test_large_pieces_are_kept_of_organs_that_have_several(untaught: OrganTraits) -> None:
    labels = np.zeros((4, 30, 30), np.uint8)
    labels[:, 5:10, 5:10] = labels[:, 5:10, 20:25] = 1
    labels[:, 15:20, 5:10] = labels[:, 15:20, 20:24] = 2
    taught = replace(untaught, config=replace(untaught.config, in_pieces=("liver",)))
    cleaned = taught.cleaned(labels, (1.0, 1.0, 1.0))
    assert (cleaned == 1).sum() == (labels == 1).sum()
    assert (cleaned == 2).sum() < (labels == 2).sum()
