from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import SIZE, finding_segmenter

from DiffuSAMLib.catalogue import locate
from DiffuSAMLib.encoded_volume import EncodedVolume
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.mr_gamma import PROCEDURAL_MR_GAMMA, mr_gamma
from DiffuSAMLib.prior import PriorConfig
from DiffuSAMLib.prior_files import PriorHeader, read_header
from DiffuSAMLib.volumes import Volume


def seen_by_earlier(*cases: str, **config: float) -> PriorHeader:
    return replace(read_header(locate("abdomen")), training={"cases": list(cases)}, config=config)


@pytest.mark.parametrize(
    ("modalities", "procedural", "twins", "earlier", "expected"),
    [
        (["CT"], 48, 0, None, PROCEDURAL_MR_GAMMA),
        (["CT"], 0, 0, None, 1.0),
        (["CT", "MR"], 48, 0, None, 1.0),
        (["MR"], 48, 0, None, 1.0),
        # Twins of real CT are as bright as they should be.
        (["CT"], 48, 15, None, 1.0),
        (["CT"], 0, 15, seen_by_earlier("a", mr_gamma=1.25), 1.0),
        # What it began with may have seen real MR, or has been darkened itself.
        (["CT"], 48, 0, seen_by_earlier("a"), 1.0),
        (["CT"], 0, 0, seen_by_earlier("a", mr_gamma=1.25), 1.25),
        (["MR"], 0, 0, seen_by_earlier("a", mr_gamma=1.25), 1.0),
        # Of procedural abdomens alone, it knows no more than this one.
        (["CT"], 48, 0, seen_by_earlier(), PROCEDURAL_MR_GAMMA),
    ],
)
def test_only_mr_that_is_known_from_procedural_abdomens_alone_is_darkened(
    modalities: list[str], procedural: int, twins: int, earlier: PriorHeader | None, expected: float
) -> None:
    assert mr_gamma(modalities, procedural=procedural, twins=twins, earlier=earlier) == expected


def volume(values: np.ndarray, modality: str = "CT") -> Volume:
    """A stack that fills the network's squares, so that nothing is resampled."""
    return Volume(values, Geometry(values.shape, np.eye(4)), modality, "noise")  # type: ignore[arg-type]


def test_darker_slices_are_what_the_network_sees() -> None:
    backbone = finding_segmenter().backbone
    shares = np.random.default_rng(0).uniform(0, 1, (2, SIZE, SIZE)).astype(np.float32)
    darkened = EncodedVolume(volume(shares * 400 - 125), backbone, gamma=2.0)
    same = EncodedVolume(volume(shares**2 * 400 - 125), backbone)
    for encoded in (darkened, same):
        encoded.encode(lambda done, total: None)
    found, expected = darkened.features([0, 1]), same.features([0, 1])
    np.testing.assert_allclose(found.coarse.numpy(), expected.coarse.numpy(), rtol=1e-3, atol=1e-4)


def test_a_segmenter_darkens_mr_alone() -> None:
    segmenter = finding_segmenter()
    values = np.zeros((1, SIZE, SIZE), np.float32)
    assert segmenter.gamma(volume(values, "MR")) == 1.0
    segmenter.prior.config = replace(segmenter.prior.config, mr_gamma=1.25)
    assert segmenter.gamma(volume(values, "MR")) == 1.25
    assert segmenter.gamma(volume(values, "CT")) == 1.0


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_exponent_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="mr_gamma"):
        PriorConfig(("liver",), 16, (8, 16, 32), mr_gamma=value)
