"""The peers, at tiny size: they learn, resume, and find what they should."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import ORGANS, small_abdomen

from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.labelled_stacks import LabelledStack, to_stack
from DiffuSAMLib.recipe import TrainingConfig

BENCHMARKS = Path(__file__).parent / "benchmarks"
for folder in (BENCHMARKS / "peers", BENCHMARKS):
    sys.path.insert(0, str(folder))

from fate_sam import SupportSet, supported_logits  # noqa: E402
from frozen_decoder import FrozenFeatureDecoder  # noqa: E402
from sam2_points import innermost_disc, prompted_logits  # noqa: E402
from slice_training import SliceTraining, segment_slices, segmentation_loss, with_labels  # noqa: E402

SIDE = 64
# By iterations, so that a slow computer does as much.
TWO_STEPS = TrainingConfig(iterations=2, minutes=60.0, batch=2, learning_rate=1e-3, warmup=1)


@pytest.fixture(scope="module")
def stack() -> LabelledStack:
    abdomen = small_abdomen()
    names = dict(enumerate(ORGANS, start=1))
    return to_stack(abdomen.volume, abdomen.labels.array, names, name="a", organs=ORGANS, size=SIDE)


def test_a_peer_trains_and_leaves_the_backbone_alone(
    stack: LabelledStack, a_compact_backbone: Backbone, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = FrozenFeatureDecoder(a_compact_backbone, 5, width=16)
    frozen = [p.clone() for p in a_compact_backbone.parameters()]
    before = [p.clone() for p in network.parameters()]
    record = SliceTraining(network, [stack], TWO_STEPS, tmp_path / "p.training").run()
    assert record["iterations"] == 2
    assert not (tmp_path / "p.training").exists()
    assert all(torch.equal(a, b) for a, b in zip(frozen, a_compact_backbone.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert network(torch.rand(1, 3, SIDE, SIDE)).shape == (1, 5, SIDE // 4, SIDE // 4)


def test_an_interrupted_peer_goes_on_where_it_was(
    stack: LabelledStack, a_compact_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training() -> SliceTraining:
        torch.manual_seed(0)
        network = FrozenFeatureDecoder(a_compact_backbone, 5, width=16)
        return SliceTraining(network, [stack], TWO_STEPS, tmp_path / "p.training")

    whole = training()
    whole.run()
    first = training()
    step = first._step

    def one_step() -> None:
        if first.iteration:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(first, "_step", one_step)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = training()
    assert second.run()["iterations"] == 2
    for name, value in whole.network.state_dict().items():
        assert torch.allclose(value, second.network.state_dict()[name], atol=1e-5), name


def test_pixels_that_do_not_count_change_nothing() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    target[:, :4] = 1
    logits = torch.nn.functional.one_hot(target, 2).permute(0, 3, 1, 2).float() * 20
    counted = torch.zeros(1, 8, 8, dtype=torch.bool)
    counted[:, 2:6] = True
    good = segmentation_loss(logits, target, counted)
    assert good < 0.1
    wrong = logits.clone()
    wrong[:, :, :2] = wrong[:, [1, 0], :2]
    assert torch.equal(segmentation_loss(wrong, target, counted), good)
    assert segmentation_loss(wrong, target, ~counted) > 1


def test_ignored_labels_are_no_organ(
    stack: LabelledStack, a_compact_backbone: Backbone, tmp_path: Path
) -> None:
    labels = np.where(np.arange(SIDE) < SIDE // 2, stack.labels, 5).astype(np.uint8)
    network = FrozenFeatureDecoder(a_compact_backbone, 5, width=16)
    config = replace(TWO_STEPS, iterations=1)
    pseudo = with_labels(stack, labels, 5)
    SliceTraining(network, [pseudo], config, tmp_path / "p.training", ignored=True).run()


def test_labels_lie_on_the_volumes_grid() -> None:
    abdomen = small_abdomen()
    truth = torch.nn.functional.one_hot(torch.from_numpy(abdomen.labels.array).long(), 5)
    logits = torch.nn.functional.interpolate(truth.permute(0, 3, 1, 2).float() * 20, size=(128, 128))
    found = segment_slices(lambda slices: logits, abdomen.volume, organs=4, size=128)
    assert found.shape == abdomen.labels.array.shape
    assert (found == abdomen.labels.array).mean() > 0.98


def test_a_point_lies_inside_its_organ() -> None:
    mask = np.zeros((32, 32), bool)
    mask[4:20, 6:12] = True
    disc = innermost_disc(mask, radius=2)
    assert disc.any()
    assert not (disc & ~mask).any()
    assert abs(np.argwhere(disc).mean(0)[1] - 8.5) <= 1
    assert np.count_nonzero(innermost_disc(np.eye(4, dtype=bool))) >= 1


@pytest.mark.parametrize("three_d", [False, True])
def test_points_segment_only_where_the_truth_has_the_organ(
    stack: LabelledStack, a_compact_backbone: Backbone, three_d: bool
) -> None:
    labels = np.where(stack.labels == 1, 1, 0)
    labels[5:] = 0
    logits = prompted_logits(a_compact_backbone, labels, stack.images(), organs=2, three_d=three_d)
    assert logits.shape == (10, 3, SIDE // 4, SIDE // 4)
    found = logits[:, 1].flatten(1).amax(1) > -1000
    assert found.tolist() == [bool((labels[n] == 1).any()) for n in range(10)]
    assert (logits[:, 2] < -1000).all()


def test_support_memories_find_the_same_slice_and_only_organs_that_supports_show(
    stack: LabelledStack, a_compact_backbone: Backbone
) -> None:
    only_liver = replace(stack, labels=np.where(stack.labels == 4, 4, 0).astype(np.uint8))
    with torch.no_grad():
        support = SupportSet(a_compact_backbone, [only_liver], 4)
        labelled = np.flatnonzero(only_liver.labels.any((1, 2)))
        logits = supported_logits(support, stack.images(), organs=4, bank=1)
    assert len(support.looks) == len(labelled)
    from fate_sam import encode

    features = encode(a_compact_backbone, stack.images(), torch.tensor([int(labelled[2])]))
    assert support.nearest(features)[0] == 2
    assert logits.shape == (10, 5, SIDE // 4, SIDE // 4)
    assert (logits[:, 1:4] == -10).all()


def test_a_unet_trains_and_adapts_to_pseudo_labels(stack: LabelledStack, tmp_path: Path) -> None:
    pytest.importorskip("monai")
    from dfg import agreed_labels, prototypes, sure_labels
    from dpl import denoise, pseudo_labels
    from unet import FeatureUNet

    torch.manual_seed(0)
    network = FeatureUNet(5, widths=(8, 8, 8, 8, 8, 8))
    config = replace(TWO_STEPS, iterations=1)
    SliceTraining(network, [stack], config, tmp_path / "u.training").run()
    few = replace(stack, slices=stack.slices[:2], labels=stack.labels[:2])
    for pseudo in (
        pseudo_labels(network, few, 4),
        sure_labels(network, few, 4),
    ):
        assert pseudo.labels.max() <= 5
        assert pseudo.known.shape == (5,)
    assert prototypes(network, [few], 5).shape == (5, 8)
    from conftest import random_backbone

    agreed = agreed_labels(network, random_backbone("compact", image_size=2 * SIDE), few, 4)
    SliceTraining(network, [agreed], config, tmp_path / "u.training", ignored=True).run()
    # Where the passes disagree, a pixel does not count.
    probability = torch.zeros(1, 2, 4, 4)
    probability[:, 1, :2], probability[:, 0, 2:] = 1, 1
    deviation = torch.zeros(1, 2, 4, 4)
    deviation[..., 0] = 0.2
    features = probability.clone()
    labels, kept = denoise(probability, deviation, features)
    assert torch.equal(labels[0, :, 1], torch.tensor([1, 1, 0, 0]))
    assert not kept[..., 0].any()
    assert kept[..., 1:].all()
