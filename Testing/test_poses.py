from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import EVERYWHERE, cropped_abdomen, finding_segmenter, taught

from DiffuSAMLib.poses import THREE_POSES, UPRIGHT, Pose, mean_of_poses
from DiffuSAMLib.propagation import NOTHING
from DiffuSAMLib.segmenter import Segmenter, SegmentOptions

SIDE = 64


def square_at(row: int, column: int) -> torch.Tensor:
    """A slice with a bright square of 8 pixels whose centre is there."""
    slices = torch.zeros(1, SIDE, SIDE)
    slices[0, row - 4 : row + 4, column - 4 : column + 4] = 1
    return slices


def centre_and_mass(slices: torch.Tensor) -> tuple[float, float, float]:
    shown = slices[0].numpy()
    rows, columns = np.indices(shown.shape) + 0.5
    mass = shown.sum()
    return (rows * shown).sum() / mass, (columns * shown).sum() / mass, mass


@pytest.mark.parametrize(
    ("pose", "row", "column", "mass"),
    [
        (UPRIGHT, 20, 32, 64),
        (Pose(up=0.125), 12, 32, 64),
        (Pose(left=0.125), 20, 24, 64),
        (Pose(smaller=2.0), 26, 32, 16),
        (Pose(degrees=90.0), 32, 20, 64),  # from above the centre to the left of it
    ],
)
def test_a_pose_moves_shrinks_and_turns(pose: Pose, row: float, column: float, mass: float) -> None:
    assert centre_and_mass(pose.shown(square_at(20, 32))) == pytest.approx((row, column, mass), abs=0.05)


@pytest.mark.parametrize("pose", THREE_POSES)
def test_masks_come_back_to_where_they_were(pose: Pose) -> None:
    shown = pose.shown(square_at(24, 40))
    logits = (NOTHING * (1 - shown)).numpy()[:, None].astype(np.float16)
    upright = pose.undone(logits, nothing=NOTHING)
    assert upright.shape == logits.shape
    assert upright.dtype == np.float16
    found = torch.from_numpy(1 - upright[:, 0].astype(np.float32) / NOTHING)
    assert centre_and_mass(found) == pytest.approx((24, 40, 64), abs=0.6)
    # What lay outside is no organ.
    assert (upright[0, 0, :8] == NOTHING).all()


def test_the_mean_is_one_of_probabilities() -> None:
    first, second = (np.full((1, 1, 2, 2), value, np.float16) for value in (4.0, NOTHING))
    probability = 1 / (1 + np.exp(-mean_of_poses([first, second], nothing=NOTHING).astype(float)))
    assert probability == pytest.approx(0.491, abs=1e-3)
    assert mean_of_poses([first], nothing=NOTHING) is first
    # Later steps tell by it which slices show something.
    assert (mean_of_poses([second] * 3, nothing=NOTHING) == NOTHING).all()


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """Its prior has learnt from CT."""
    return taught(finding_segmenter(), modalities=("CT",))


def test_only_a_strange_modality_is_seen_in_several_poses(segmenter: Segmenter) -> None:
    ct = cropped_abdomen()
    mr = replace(ct, modality="MR")
    once = SegmentOptions(poses=False)
    assert [view.pose for view in segmenter.views(ct, SegmentOptions())] == [UPRIGHT]
    assert [view.pose for view in segmenter.views(mr, once)] == [UPRIGHT]
    assert tuple(view.pose for view in segmenter.views(mr, SegmentOptions())) == THREE_POSES


def test_poses_are_joined_to_one_result(segmenter: Segmenter) -> None:
    volume = replace(cropped_abdomen(), modality="MR")
    told: list[int] = []
    joined = segmenter.segment(
        volume, EVERYWHERE, progress=lambda event: event.stage == "encode" and told.append(event.total)
    )
    single = segmenter.segment(volume, replace(EVERYWHERE, poses=False))
    assert set(told) == {3 * len(volume.array)}
    assert joined.labels.shape == single.labels.shape
    assert 0 < (joined.labels != single.labels).mean() < 0.5


def test_masks_are_told_of_upright_alone(segmenter: Segmenter) -> None:
    """What is shown while a run goes on lies where the organs are."""
    volume = replace(cropped_abdomen(), modality="MR")

    def told(options: SegmentOptions) -> list[tuple[int, int, float]]:
        masks: list[tuple[int, int, float]] = []
        segmenter.segment(
            volume,
            options,
            on_decoded=lambda number, organ, mask: masks.append((number, organ, float(mask.sum()))),
        )
        return sorted(masks)

    assert told(EVERYWHERE) == told(replace(EVERYWHERE, poses=False)) != []
