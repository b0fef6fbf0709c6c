from __future__ import annotations

import pytest
import torch
from torch import Tensor

from DiffuSAMLib.augmentation import (
    IntensityAugmentation,
    SpatialAugmentation,
    sample_images,
    sample_labels,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(size: int = 64) -> tuple[Tensor, Tensor]:
    """A bright rectangle in the left upper quarter: an image `(1, 1, s, s)` and its label 3 `(1, s, s)`."""
    labels = torch.zeros(1, size, size, dtype=torch.int64)
    labels[:, size // 8 : size // 2, size // 8 : size // 4] = 3
    return (labels == 3)[:, None].float(), labels


NOTHING = SpatialAugmentation(rotation=0, scale=0, shift=0, elastic=0)


def test_no_augmentation_changes_nothing() -> None:
    image, labels = scene()
    grid = NOTHING.grid(1, 64, seeded())
    torch.testing.assert_close(sample_images(image, grid), image)
    assert torch.equal(sample_labels(labels, grid), labels)


def test_a_grid_of_another_size_resamples() -> None:
    image, labels = scene()
    grid = NOTHING.grid(1, 32, seeded())
    assert sample_images(image, grid).shape == (1, 1, 32, 32)
    assert sample_labels(labels, grid).sum() == labels.sum() / 4


def test_image_and_labels_move_together() -> None:
    image, labels = scene()
    for seed in range(8):
        grid = SpatialAugmentation().grid(1, 64, seeded(seed))
        moved, marks = sample_images(image, grid)[:, 0] > 0.5, sample_labels(labels, grid) == 3
        assert (moved != marks).float().mean() < 0.005
        assert set(sample_labels(labels, grid).unique().tolist()) <= {0, 3}


def test_sides_are_never_exchanged() -> None:
    """However far it is moved, what was left of something stays left of it, and above above."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    left, right, low = (((y - b) ** 2 + (x - a) ** 2 < 25) for a, b in ((20, 24), (44, 24), (32, 44)))
    labels = left.long() + 2 * right.long() + 3 * low.long()
    grid = SpatialAugmentation().grid(32, 64, seeded())
    moved = sample_labels(labels.expand(32, -1, -1), grid)
    for one in moved:
        centres = [(one == value).nonzero().float().mean(0) for value in (1, 2, 3)]
        assert centres[0][1] < centres[1][1]
        assert centres[0][0] < centres[2][0]
        assert centres[1][0] < centres[2][0]


def test_the_size_stays_within_its_bounds() -> None:
    image, _ = scene()
    grid = SpatialAugmentation(elastic=0, shift=0).grid(64, 64, seeded())
    area = sample_images(image.expand(64, -1, -1, -1), grid).sum((1, 2, 3)) / image.sum()
    largest = (1.25 * (1 + 0.25 / 3)) ** 2
    assert area.max() <= 1.05 * largest
    assert area.min() >= 0.95 / largest
    assert area.std() > 0.1


@pytest.mark.parametrize("cross_modality", [0.0, 0.5, 1.0])
def test_intensities_stay_between_0_and_1_and_change(cross_modality: float) -> None:
    images = torch.rand(8, 3, 48, 48, generator=seeded(1))
    before = images.clone()
    changed = IntensityAugmentation(cross_modality=cross_modality)(images, seeded())
    assert changed.shape == images.shape
    assert changed.isfinite().all()
    assert 0 <= changed.min() < changed.max() <= 1
    assert ((changed - images).abs().mean((1, 2, 3)) > 0.005).all()
    assert torch.equal(images, before)


def test_images_differ_in_their_change_but_channels_do_not() -> None:
    """Channels are neighbouring slices of one scan."""
    image = torch.rand(1, 1, 48, 48, generator=seeded(1)).expand(6, 3, -1, -1)
    without_noise = IntensityAugmentation(cross_modality=1.0, strength=0.0)
    changed = without_noise(image, seeded())
    torch.testing.assert_close(changed[:, 0], changed[:, 1])
    torch.testing.assert_close(changed[:, 0], changed[:, 2])
    assert (changed[0] - changed[1]).abs().mean() > 0.01


def test_a_change_without_strength_or_other_modality_only_blurs() -> None:
    flat = torch.full((4, 3, 32, 32), 0.4)
    changed = IntensityAugmentation(cross_modality=0.0, strength=0.0)(flat, seeded())
    torch.testing.assert_close(changed[..., 1:-1, 1:-1], flat[..., 1:-1, 1:-1])


def test_the_seed_decides() -> None:
    images = torch.rand(4, 3, 32, 32, generator=seeded(1))
    augment = IntensityAugmentation()
    assert torch.equal(augment(images, seeded(2)), augment(images, seeded(2)))
    assert not torch.equal(augment(images, seeded(2)), augment(images, seeded(3)))
    spatial = SpatialAugmentation()
    assert torch.equal(spatial.grid(2, 16, seeded(2)), spatial.grid(2, 16, seeded(2)))
    assert not torch.equal(spatial.grid(2, 16, seeded(2)), spatial.grid(2, 16, seeded(3)))
