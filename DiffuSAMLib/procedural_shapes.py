"""Procedural scenes of random shapes: training material that knows no anatomy, and belongs to nobody."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .procedural_canvas import spline_basis


def _texture(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """A smooth random image `(size, size)` of mean 0 and deviation near 1."""
    basis = spline_basis(np.linspace(0, 1, size), 0, 1, cells + 3)
    control = 2.1 * rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    return (basis @ (basis @ control).T).T


def make_shapes(rng: np.random.Generator, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """A pair of neighbouring slices of a random scene: blobs and stars over a textured background.

    In the second slice every object has moved, turned, grown or changed its outline a little; some vanish and
    some appear.

    Args:
        rng: The source of randomness.
        size: Pixels along each side.

    Returns:
        Images `(2, size, size)` float32 in [0, 1] and masks `(2, size, size)` uint8: 0 background, 1..n
        objects, each in at least one of the slices.

    """
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    textures = [_texture(rng, size, int(cells)) for cells in (4, 10, rng.integers(16, 40))]
    images = np.empty((2, size, size), np.float32)
    base = rng.uniform(0, 1)
    images[0] = base + sum(rng.uniform(0, 0.12) * t for t in textures)
    images[1] = images[0] + rng.uniform(0, 0.05) * textures[int(rng.integers(3))]
    masks = np.zeros((2, size, size), np.uint8)
    warp = rng.uniform(0, 0.03), rng.uniform(0, 0.03)
    bent = (
        (grid[None, :], grid[:, None]),
        (grid[None, :] + warp[0] * textures[0], grid[:, None] + warp[1] * textures[0].T),
    )
    for label in range(1, int(rng.integers(4, 13)) + 1):
        centre = rng.uniform(-0.85, 0.85, 2)
        radius = float(np.exp(rng.uniform(np.log(0.05), np.log(0.55))))
        stretch, turn = rng.uniform(0.45, 1.0), rng.uniform(0, np.pi)
        order = np.arange(2, 7)
        waves = rng.normal(0, 1, (5, 2)) * rng.uniform(0, 0.28) / order[:, None] * 1.5
        # Brighter or darker than the background by enough to be seen.
        level = base + rng.choice([-1, 1]) * rng.uniform(0.08, 0.7)
        depth, texture = rng.uniform(0, 0.12), textures[int(rng.integers(3))]
        shown = rng.choice([3, 3, 3, 3, 3, 3, 3, 1, 2])
        for k in range(2):
            if k == 1:
                centre = centre + rng.normal(0, 0.03, 2) + rng.normal(0, 0.08, 2) * radius
                radius *= float(np.exp(rng.normal(0, 0.09)))
                turn, waves = turn + rng.normal(0, 0.08), waves + rng.normal(0, 0.015, (5, 2))
            if not shown & (1 << k):
                continue
            x, y = bent[k][0] - np.float32(centre[0]), bent[k][1] - np.float32(centre[1])
            c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
            z = (c * x + s * y) + 1j * ((c * y - s * x) / np.float32(stretch))
            reach = np.abs(z) + np.float32(1e-6)
            unit = z / reach
            outline, power = np.ones_like(reach), unit
            for a, b in waves:
                power = power * unit
                outline += np.float32(a) * power.real + np.float32(b) * power.imag
            inside = reach < radius * np.maximum(outline, 0.2)
            images[k][inside] = (level + depth * texture)[inside]
            masks[k][inside] = label
    blur, grain = rng.uniform(0.2, 1.0) * size / 256, rng.uniform(0, 0.08)
    images = ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(images, blur, axis=1), blur, axis=2)
    images += grain * rng.standard_normal(images.shape, dtype=np.float32)
    images -= images.min()
    images /= max(float(images.max()), 1e-6)
    return images, _renumber(masks)


def _renumber(masks: np.ndarray) -> np.ndarray:
    """Labels without gaps: objects hidden in both slices drop out."""
    present = np.bincount(masks.ravel(), minlength=256) > 0
    present[0] = True
    return (np.cumsum(present) - 1).astype(np.uint8)[masks]
