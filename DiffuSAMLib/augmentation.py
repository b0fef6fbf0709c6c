"""Random changes of training slices, on batches: in space, and in intensity across modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import InputError


def _check(settings: object, highest: Mapping[str, float]) -> None:
    for name, most in highest.items():
        value = getattr(settings, name)
        if not 0 <= value <= most:
            raise InputError(f"The augmentation's {name} must be 0 to {most:g}, not {value:g}.")


@dataclass(frozen=True)
class SpatialAugmentation:
    """Rotation, scaling, shift and a smooth elastic deformation; never a flip, for sides carry meaning.

    Attributes:
        rotation: Largest angle in degrees.
        scale: Largest relative change of size, each axis on its own by a third of it.
        shift: Largest shift, as a part of the image's side.
        elastic: Standard deviation of the coarse displacements, as a part of the image's side.
    """

    rotation: float = 15.0
    scale: float = 0.25
    shift: float = 0.08
    elastic: float = 0.015

    def check(self) -> None:
        """Refuses what cannot be done.

        Raises:
            InputError: A value is out of range.
        """
        _check(self, {"rotation": 180.0, "scale": 4.0, "shift": 1.0, "elastic": 1.0})

    def grid(self, batch: int, size: int, generator: torch.Generator) -> Tensor:
        """Sampling positions `(batch, size, size, 2)` for `grid_sample`."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator) * 2 - 1

        angle = uniform(batch) * math.radians(self.rotation)
        zoom = torch.exp(
            uniform(batch, 1) * math.log1p(self.scale) + uniform(batch, 2) * math.log1p(self.scale / 3)
        )
        matrix = torch.zeros(batch, 2, 3)
        matrix[:, 0, 0], matrix[:, 0, 1] = zoom[:, 0] * angle.cos(), -zoom[:, 0] * angle.sin()
        matrix[:, 1, 0], matrix[:, 1, 1] = zoom[:, 1] * angle.sin(), zoom[:, 1] * angle.cos()
        matrix[:, :, 2] = uniform(batch, 2) * 2 * self.shift
        grid = F.affine_grid(matrix, [batch, 1, size, size], align_corners=False)
        coarse = torch.randn(batch, 2, 6, 6, generator=generator) * 2 * self.elastic
        smooth = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
        return grid + smooth.permute(0, 2, 3, 1)


def sample_images(images: Tensor, grid: Tensor) -> Tensor:
    """Images `(b, c, h, w)` at a grid `(b, s, s, 2)`, linear, zeros outside."""
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def sample_labels(labels: Tensor, grid: Tensor) -> Tensor:
    """Integer labels `(b, h, w)` at a grid `(b, s, s, 2)`, nearest neighbour, 0 outside."""
    sampled = F.grid_sample(
        labels[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return sampled[:, 0].to(labels.dtype)


@dataclass(frozen=True)
class IntensityAugmentation:
    """Changes of appearance that keep the anatomy.

    Ordinary contrast, gamma, noise, blur and bias field on every image; with probability `cross_modality`,
    first a change that makes another modality of it: a random curve for the whole image and, at times, another one
    for each organ (as the global and local location-scale augmentations of SLAug, arXiv 2211.14805), or random
    shallow convolutions (GIN, arXiv 2111.12525).

    Attributes:
        cross_modality: Probability of such a change.
        organ_curves: Part of the images changed by a curve whose organs get curves of their own.
        strength: Scales the ordinary changes.
    """

    cross_modality: float = 0.4
    organ_curves: float = 0.25
    strength: float = 1.0

    def check(self) -> None:
        """Refuses what cannot be done.

        Raises:
            InputError: A value is out of range.
        """
        _check(self, {"cross_modality": 1.0, "organ_curves": 1.0, "strength": 5.0})

    def __call__(self, images: Tensor, generator: torch.Generator, *, labels: Tensor | None = None) -> Tensor:
        """Images `(b, c, s, s)` in `[0, 1]`, changed, in `[0, 1]`; all channels of one image alike.

        Args:
            images: To change.
            generator: Decides.
            labels: Organ of every pixel `(b, c, s, s)`, 0 elsewhere; without it, organs get no curves of their own.
        """
        batch = len(images)

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(batch, 1, 1, 1, generator=generator) * (high - low) + low

        images = images.clone()
        chosen = torch.rand(batch, generator=generator)
        own = torch.rand(batch, generator=generator) < self.organ_curves
        for of_organs in (False, True):
            rows = (chosen < self.cross_modality / 2) & (own == of_organs)
            if rows.any():
                curved = _random_curve(images[rows], generator)
                if of_organs and labels is not None:
                    curved = _organ_curves(images[rows], curved, labels[rows], generator)
                images[rows] = curved
        rows = (chosen >= self.cross_modality / 2) & (chosen < self.cross_modality)
        if rows.any():
            images[rows] = _random_convolutions(images[rows], generator)

        s = self.strength
        images = images.clamp(0, 1) ** torch.exp(uniform(-0.4 * s, 0.4 * s))
        images = (images - 0.5) * torch.exp(uniform(-0.3 * s, 0.3 * s)) + 0.5 + uniform(-0.1 * s, 0.1 * s)
        bias = torch.randn(batch, 1, 3, 3, generator=generator) * 0.15 * s
        images = images * torch.exp(
            F.interpolate(bias, size=images.shape[-2:], mode="bicubic", align_corners=False)
        )
        blurred = F.avg_pool2d(images, 3, stride=1, padding=1)
        images = torch.lerp(images, blurred, uniform(-0.5, 1.0).clamp(min=0))
        noise = torch.randn(images.shape, generator=generator) * uniform(0, 0.05 * s)
        return (images + noise).clamp(0, 1)


def _random_curve(images: Tensor, generator: torch.Generator, *, knots: int = 6) -> Tensor:
    """A random piecewise linear intensity curve per image, not necessarily monotonic; air stays dark."""
    batch = len(images)
    values = torch.rand(batch, knots, generator=generator)
    values[:, 0] = 0.1 * values[:, 0]
    position = images.clamp(0, 1) * (knots - 1)
    low = position.floor().clamp(max=knots - 2)
    flat = low.flatten(1).long()
    start = values.gather(1, flat).view_as(images)
    end = values.gather(1, flat + 1).view_as(images)
    return torch.lerp(start, end, position - low)


def _organ_curves(images: Tensor, curved: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """The images with another curve in each organ, its edge as soft as a pixel's partial volume."""
    for organ in labels.unique().tolist():
        if organ:
            inside = (labels == organ).to(images)
            soft = F.avg_pool2d(inside, 3, stride=1, padding=1)
            curved = torch.lerp(curved, _random_curve(images, generator), soft)
    return curved


def _random_convolutions(
    images: Tensor, generator: torch.Generator, *, layers: int = 4, width: int = 2
) -> Tensor:
    """A shallow network with fresh random weights per image, mixed with the image, its contrast kept."""
    batch, channels, height, _ = images.shape
    # Every channel (a neighbouring slice) goes through the same network, so that they stay neighbours.
    flat = images.transpose(0, 1).reshape(channels, batch, height, -1)
    x = flat
    for layer in range(layers):
        inputs = 1 if layer == 0 else width
        outputs = 1 if layer == layers - 1 else width
        kernel = 1 if torch.rand((), generator=generator) < 0.5 else 3
        weight = torch.randn(batch * outputs, inputs, kernel, kernel, generator=generator)
        x = F.conv2d(x, weight, padding=kernel // 2, groups=batch)
        x = x + torch.randn(1, batch * outputs, 1, 1, generator=generator) * 0.5
        if layer < layers - 1:
            x = F.leaky_relu(x, 0.1)
    x = x.reshape(channels, batch, height, -1).transpose(0, 1)
    alpha = torch.rand(batch, 1, 1, 1, generator=generator)
    low = x.amin((1, 2, 3), keepdim=True)
    x = (x - low) / (x.amax((1, 2, 3), keepdim=True) - low + 1e-6)
    return torch.lerp(images, x, alpha)
