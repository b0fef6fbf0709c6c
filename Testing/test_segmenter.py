from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import (
    AXIS_ORDERS,
    EVERYWHERE,
    ORGANS,
    SIZE,
    cropped_abdomen,
    finding_segmenter,
    reordered,
    restored,
    taught,
)

from DiffuSAMLib import prior
from DiffuSAMLib.backbones import Backbone, ImageFeatures
from DiffuSAMLib.encoded_volume import EncodedVolume
from DiffuSAMLib.errors import InputError, OutOfMemoryError
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.organ_regions import OrganRegion
from DiffuSAMLib.organ_traits import OrganTraits
from DiffuSAMLib.planes import PLANES
from DiffuSAMLib.procedural import make_abdomen
from DiffuSAMLib.progress import ProgressEvent
from DiffuSAMLib.propagation import PropagationConfig
from DiffuSAMLib.segmenter import Segmentation, Segmenter, SegmentOptions
from DiffuSAMLib.volumes import Volume


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return finding_segmenter()


@pytest.fixture(scope="module")
def volume() -> Volume:
    return cropped_abdomen()


@pytest.fixture(scope="module")
def expected(segmenter: Segmenter, volume: Volume) -> Segmentation:
    return segmenter.segment(volume, EVERYWHERE)


def test_the_labels_lie_on_the_grid_of_the_input(expected: Segmentation, volume: Volume) -> None:
    assert expected.labels.shape == expected.confidence.shape == volume.array.shape
    assert expected.labels.dtype == np.uint8
    assert expected.geometry == volume.geometry
    assert expected.organs == ORGANS


def test_random_weights_find_several_organs(expected: Segmentation) -> None:
    """Without this, the comparisons of the other tests would compare nothing."""
    assert len(np.unique(expected.labels)) >= 3
    assert 0.5 <= expected.confidence.min() < expected.confidence.max() <= 1


@pytest.mark.parametrize(("axes", "flips"), [*AXIS_ORDERS[1::7], AXIS_ORDERS[-1]])
def test_the_axis_order_of_the_file_does_not_matter(
    segmenter: Segmenter, volume: Volume, expected: Segmentation, axes: tuple, flips: tuple
) -> None:
    other = reordered(volume, axes, flips)
    found = segmenter.segment(other, EVERYWHERE)
    assert found.labels.shape == other.array.shape
    np.testing.assert_array_equal(restored(found.labels, axes, flips), expected.labels)
    np.testing.assert_array_equal(restored(found.confidence, axes, flips), expected.confidence)


def turned(volume: Volume, degrees: float) -> Volume:
    """The volume with its grid turned about the patient's long axis and then tilted."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )
    return replace(volume, geometry=Geometry(volume.geometry.shape, matrix @ volume.geometry.matrix))


def test_an_oblique_volume_is_segmented_in_its_own_planes(
    segmenter: Segmenter, volume: Volume, expected: Segmentation
) -> None:
    oblique = turned(volume, 20)
    found = segmenter.segment(oblique, EVERYWHERE)
    assert found.geometry == oblique.geometry
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_a_left_handed_volume_keeps_its_sides(
    segmenter: Segmenter, volume: Volume, expected: Segmentation
) -> None:
    flips = (False, False, True)
    mirrored = reordered(volume, (0, 1, 2), flips)
    assert np.linalg.det(mirrored.geometry.direction) < 0
    found = segmenter.segment(mirrored, EVERYWHERE)
    np.testing.assert_array_equal(restored(found.labels, (0, 1, 2), flips), expected.labels)


def test_one_slice_is_enough(segmenter: Segmenter, volume: Volume) -> None:
    single = replace(volume, array=volume.array[1:2], geometry=Geometry((1, 80, 96), volume.geometry.matrix))
    found = segmenter.segment(single, EVERYWHERE)
    assert found.labels.shape == (1, 80, 96)
    assert found.labels.any()


@pytest.mark.parametrize("shape", [(2, 30, 300), (1, 300, 31), (1, 7, 5), (9, 64, 64), (2, 1, 40)])
def test_any_size_of_slice_is_taken(segmenter: Segmenter, shape: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).normal(50, 60, shape).astype(np.float32)
    geometry = Geometry(shape, np.diag([1.0, 1.0, 5.0, 1.0]))
    found = segmenter.segment(Volume(array, geometry, "CT", "noise"), EVERYWHERE)
    assert found.labels.shape == shape


class CountedEncodings:
    """How many slices the backbone is given."""

    def __init__(self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slices = 0
        encode = segmenter.backbone.encode_image

        def counted(images: torch.Tensor) -> ImageFeatures:
            self.slices += len(images)
            return encode(images)

        monkeypatch.setattr(segmenter.backbone, "encode_image", counted)


def test_an_encoded_volume_is_not_encoded_again(
    segmenter: Segmenter, volume: Volume, expected: Segmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = CountedEncodings(segmenter, monkeypatch)
    encoded = EncodedVolume(volume, segmenter.backbone)
    first = segmenter.segment(volume, EVERYWHERE, encoded=(encoded,))
    assert counted.slices == len(volume.array)
    second = segmenter.segment(volume, EVERYWHERE, encoded=(encoded,))
    assert counted.slices == len(volume.array)
    for found in (first, second):
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_every_slice_is_encoded_once_for_all_organs_and_samples(
    segmenter: Segmenter, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = CountedEncodings(segmenter, monkeypatch)
    segmenter.segment(volume, replace(EVERYWHERE, samples=2))
    assert counted.slices == len(volume.array)


def test_fewer_organs_are_decoded_as_if_alone(segmenter: Segmenter, volume: Volume) -> None:
    """An organ's mask does not depend on which others are asked for."""
    masks: dict[int, torch.Tensor] = {}
    for organs in (("liver",), ("spleen", "liver")):
        decoded: dict[tuple[int, int], torch.Tensor] = {}
        segmenter.segment(
            volume,
            replace(EVERYWHERE, organs=organs),
            on_decoded=lambda number, organ, mask, into=decoded: into.__setitem__((number, organ), mask),
        )
        for number in range(len(volume.array)):
            mask = decoded[number, organs.index("liver")]
            torch.testing.assert_close(masks.setdefault(number, mask), mask, atol=1e-3, rtol=1e-3)


def test_a_choice_of_organs_is_numbered_in_the_order_of_the_prior(
    segmenter: Segmenter, volume: Volume
) -> None:
    found = segmenter.segment(volume, replace(EVERYWHERE, organs=("Liver", "spleen")))
    assert found.organs == ("spleen", "liver")
    assert set(np.unique(found.labels)) <= {0, 1, 2}


def test_the_same_seed_gives_the_same_and_another_seed_something_else(
    segmenter: Segmenter, volume: Volume, expected: Segmentation
) -> None:
    again = segmenter.segment(volume, EVERYWHERE)
    other = segmenter.segment(volume, replace(EVERYWHERE, seed=1))
    np.testing.assert_array_equal(again.confidence, expected.confidence)
    assert (other.confidence_levels != expected.confidence_levels).any()


def test_several_samples_and_the_ablation_run(segmenter: Segmenter, volume: Volume) -> None:
    alone = PropagationConfig(three_d=False, presence=0.0)
    found = segmenter.segment(volume, replace(EVERYWHERE, samples=2, propagation=alone))
    assert found.labels.shape == volume.array.shape


def test_an_organ_that_is_never_present_stays_absent(segmenter: Segmenter, volume: Volume) -> None:
    nowhere = replace(EVERYWHERE, propagation=PropagationConfig(presence=1.1))
    found = segmenter.segment(volume, nowhere)
    assert not found.labels.any()
    assert (found.confidence > 0.99).all()


def test_progress_tells_of_every_stage_up_to_its_end(segmenter: Segmenter, volume: Volume) -> None:
    events: list[ProgressEvent] = []
    segmenter.segment(volume, EVERYWHERE, progress=events.append)
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["encode", "generate", "propagate"]
    for stage in stages:
        own = [event for event in events if event.stage == stage]
        assert [event.done for event in own] == sorted(event.done for event in own)
        assert own[-1].done == own[-1].total


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SegmentOptions(organs=("pancreas", "liver")), "does not know pancreas"),
        (SegmentOptions(steps=0), "1 to 1000, not 0"),
        (SegmentOptions(steps=1001), "1 to 1000, not 1001"),
        (SegmentOptions(samples=0), "1 or more, not 0"),
        (SegmentOptions(seed=-1), "seed must be 0"),
        (SegmentOptions(organs=()), "No organ is asked for"),
        (SegmentOptions(seed=2**70), "seed must be 0"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_encoded(
    segmenter: Segmenter,
    volume: Volume,
    options: SegmentOptions,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = CountedEncodings(segmenter, monkeypatch)
    with pytest.raises(InputError, match=message):
        segmenter.segment(volume, options)
    assert counted.slices == 0


def test_too_little_memory_for_cleaning_is_told(
    segmenter: Segmenter, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(OrganTraits, "cleaned", fail)
    with pytest.raises(OutOfMemoryError, match="too little free memory for this volume"):
        segmenter.segment(volume, replace(EVERYWHERE, clean=True))


def test_memories_are_made_without_copies_of_the_fine_features(
    segmenter: Segmenter, volume: Volume, expected: Segmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prior.outline_memory

    def checked(backbone: Backbone, features: ImageFeatures, outlines: torch.Tensor) -> torch.Tensor:
        assert features.fine.numel() == features.middle.numel() == 0
        assert features.beside is None
        return made(backbone, features, outlines)

    monkeypatch.setattr("DiffuSAMLib.segmenter.outline_memory", checked)
    np.testing.assert_array_equal(segmenter.segment(volume, EVERYWHERE).labels, expected.labels)


def test_fat_is_taken_out_of_solid_organs_in_ct(segmenter: Segmenter, volume: Volume) -> None:
    raw, refined = (replace(EVERYWHERE, refine=refine) for refine in (False, True))
    solid = taught(segmenter, solid=("spleen", "liver"))
    plain = segmenter.segment(volume, refined).labels
    found = solid.segment(volume, refined).labels
    lost = plain != found
    assert lost.any()
    assert not found[lost].any()
    assert set(np.unique(plain[lost])) <= {1, 4}
    assert volume.array[lost].max() < volume.array[np.isin(found, (1, 4))].max()
    assert np.array_equal(
        solid.segment(volume, raw).labels, unrefined := segmenter.segment(volume, raw).labels
    )
    assert (unrefined != plain).any()


def test_what_is_as_bright_as_bone_is_taken_out_of_soft_organs_in_ct(
    segmenter: Segmenter, volume: Volume
) -> None:
    options = replace(EVERYWHERE, clean=False)
    plain = segmenter.segment(volume, options).labels
    found = taught(segmenter, soft=segmenter.prior.config.organs).segment(volume, options).labels
    lost = plain != found
    assert lost.any()
    assert not found[lost].any()
    assert volume.array[lost].min() > np.median(volume.array[found > 0])
    bright = volume.array >= 300
    assert (found[bright] > 0).sum() < (plain[bright] > 0).sum() / 2


def test_bright_fat_is_taken_out_of_solid_organs_in_mr(segmenter: Segmenter) -> None:
    t1, suppressed = (
        make_abdomen(4, modality="MR", sequence=sequence, shape=(4, 64, 64), spacing=(5.0, 5.0, 40.0)).volume
        for sequence in ("T1", "T2 fat-suppressed")
    )
    solid = taught(segmenter, solid=segmenter.prior.config.organs)
    options = replace(EVERYWHERE, clean=False)
    plain, found = (each.segment(t1, options).labels for each in (segmenter, solid))
    lost = plain != found
    assert lost.any()
    assert not found[lost].any()
    assert np.median(t1.array[lost]) > 2 * np.median(t1.array[found > 0])
    assert np.array_equal(*(each.segment(suppressed, options).labels for each in (segmenter, solid)))


def test_organs_are_kept_to_their_regions_in_a_modality_never_learnt(
    segmenter: Segmenter, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regions of one cell each far away, and a first look that tells of every organ where it is."""
    far = OrganRegion.of_cells(np.array([[50, 50, 50]]))
    unlearnt = taught(
        segmenter,
        layout=dict.fromkeys(ORGANS, (0.0, 0.0, 0.0)),
        regions=dict.fromkeys(ORGANS, far),
        modalities=("MR",),
    )
    middle = np.zeros((4, SIZE // 4, SIZE // 4), np.uint8)
    middle[1:3, 1, :4] = range(1, 5)
    monkeypatch.setattr(OrganTraits, "cleaned", lambda *_: middle)
    options = replace(EVERYWHERE, poses=False, smooth=False, refine=False, clean=False)
    assert not unlearnt.segment(volume, options).labels.any()
    learnt = taught(unlearnt, modalities=("CT",))
    assert learnt.segment(volume, options).labels.any()
    apart = replace(options.propagation, three_d=False)
    for anywhere in (replace(options, regions=False), replace(options, propagation=apart)):
        np.testing.assert_array_equal(
            unlearnt.segment(volume, anywhere).labels, segmenter.segment(volume, anywhere).labels
        )


@pytest.fixture(scope="module")
def three_planes(segmenter: Segmenter) -> Segmenter:
    return taught(segmenter, planes=PLANES)


@pytest.fixture(scope="module")
def cubic() -> Volume:
    """Of near-isotropic voxels."""
    abdomen = make_abdomen(4, shape=(6, 12, 16), spacing=(20.0, 20.0, 24.0))
    return abdomen.volume


def test_three_planes_are_joined_where_voxels_allow_it(
    segmenter: Segmenter, three_planes: Segmenter, cubic: Volume, volume: Volume, expected: Segmentation
) -> None:
    views = three_planes.views(cubic, EVERYWHERE)
    assert [view.plane for view in views] == list(PLANES)
    joined, axial = (each.segment(cubic, EVERYWHERE) for each in (three_planes, segmenter))
    assert not np.array_equal(joined.labels, axial.labels)
    alone = three_planes.segment(cubic, replace(EVERYWHERE, axial_only=True))
    np.testing.assert_array_equal(alone.labels, axial.labels)
    np.testing.assert_array_equal(three_planes.segment(volume, EVERYWHERE).labels, expected.labels)


def test_the_axis_order_does_not_matter_in_three_planes(three_planes: Segmenter, cubic: Volume) -> None:
    expected = three_planes.segment(cubic, EVERYWHERE).labels
    for axes, flips in AXIS_ORDERS[5::17]:
        found = three_planes.segment(reordered(cubic, axes, flips), EVERYWHERE).labels
        np.testing.assert_array_equal(restored(found, axes, flips), expected)


def test_slices_of_three_planes_are_neither_chained_nor_smoothed(
    three_planes: Segmenter, cubic: Volume
) -> None:
    alone = replace(EVERYWHERE, smooth=False, propagation=replace(EVERYWHERE.propagation, three_d=False))
    once, again = (three_planes.segment(cubic, options).labels for options in (EVERYWHERE, alone))
    np.testing.assert_array_equal(once, again)


def test_three_planes_report_one_run_and_draw_axial_slices(three_planes: Segmenter, cubic: Volume) -> None:
    events: list[ProgressEvent] = []
    drawn: set[int] = set()
    three_planes.segment(
        cubic, EVERYWHERE, progress=events.append, on_decoded=lambda number, organ, mask: drawn.add(number)
    )
    slices = 6 + 12 + 16
    for stage, total in (("encode", slices), ("generate", slices), ("propagate", slices * len(ORGANS))):
        of_stage = [event for event in events if event.stage == stage]
        assert {event.total for event in of_stage} == {total}
        assert of_stage[-1].done == total
        assert [event.done for event in of_stage] == sorted(event.done for event in of_stage)
    assert list(dict.fromkeys(event.stage for event in events)) == ["encode", "generate", "propagate"]
    assert drawn == set(range(6))
