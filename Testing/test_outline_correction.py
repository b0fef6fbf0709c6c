from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cases import EVERYWHERE, finding_segmenter, small_abdomen

from DiffuSAMLib import outline_correction as module
from DiffuSAMLib.anatomy import CELLS
from DiffuSAMLib.anatomy_network import AnatomyConfig, AnatomyNetwork
from DiffuSAMLib.outline_correction import OutlineCorrection
from DiffuSAMLib.segmenter import Segmenter
from DiffuSAMLib.volumes import Volume

ABDOMEN = ("spleen", "right kidney", "left kidney", "liver")


def test_an_organ_stays_where_both_say_so() -> None:
    whole = torch.zeros(3, 1, CELLS, CELLS)
    whole[1, 0, :32] = 0.81
    outlines = torch.full((2, 2, 16, 16), 0.49)
    corrected = OutlineCorrection([1], whole).apply(outlines, range(1, 3))
    assert torch.equal(corrected[:, 0], outlines[:, 0])
    torch.testing.assert_close(corrected[0, 1, :7], torch.full((7, 16), 0.63))
    assert not corrected[0, 1, 9:].any()
    assert not corrected[1, 1].any()
    assert (outlines == 0.49).all()


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An anatomy network that is sure of an empty abdomen, and what it has been asked."""
    network = AnatomyNetwork(AnatomyConfig(organs=ABDOMEN, width=(8,))).eval().requires_grad_(False)
    network.change.bias.view(5, -1)[0] = 50  # type: ignore[union-attr]
    asked: list[Any] = []

    def look(_: Any, given: tuple[torch.Tensor, torch.Tensor]) -> None:
        asked.append(given)

    network.register_forward_pre_hook(look)
    monkeypatch.setattr(module, "load_anatomy", lambda: network)
    return asked


def segmenter(*modalities: str) -> Segmenter:
    base = finding_segmenter()
    return Segmenter(base.backbone, base.prior, modalities=modalities)


@pytest.fixture(scope="module")
def ct() -> Volume:
    return small_abdomen().volume


def test_a_modality_that_the_prior_knows_from_no_patient_is_looked_at_as_a_whole(
    ct: Volume, forgetful: list[Any]
) -> None:
    found = segmenter("MR").segment(ct, EVERYWHERE)
    ((outlines, image),) = forgetful
    assert outlines.shape[:2] == (1, 4)
    assert image.shape[:2] == (1, 2)
    assert outlines.shape[2] == round(len(ct.array) * ct.geometry.spacing[2] / 5)
    assert found.labels.shape == ct.array.shape
    assert found.seconds["correct"] > 0
    plain = segmenter("CT").segment(ct, EVERYWHERE)
    assert not np.array_equal(found.labels, plain.labels)
    assert "correct" not in plain.seconds


@pytest.mark.parametrize("modalities", [("CT",), ("CT", "MR"), ()])
def test_other_volumes_are_not(ct: Volume, forgetful: list[Any], modalities: tuple[str, ...]) -> None:
    segmenter(*modalities).segment(ct, EVERYWHERE)
    assert not forgetful


def test_neither_is_one_whose_slices_are_to_stand_alone(ct: Volume, forgetful: list[Any]) -> None:
    segmenter("MR").segment(ct, replace(EVERYWHERE, anatomy=False))
    assert not forgetful


def test_a_prior_of_other_organs_does_without(ct: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    network = AnatomyNetwork(AnatomyConfig(organs=("pancreas",), width=(8,)))
    monkeypatch.setattr(module, "load_anatomy", lambda: network)
    found = segmenter("MR").segment(ct, EVERYWHERE)
    assert np.array_equal(found.labels, segmenter("CT").segment(ct, EVERYWHERE).labels)
