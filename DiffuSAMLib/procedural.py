"""Procedural volumes with exact labels: abdomens that look like CT or MR, and scenes of random shapes.

They are the demo's and the tests' own data, and training material that belongs to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from .geometry import Geometry
from .procedural_anatomy import Anatomy
from .procedural_bowel import paint_table
from .procedural_canvas import (
    LEFT_KIDNEY,
    LIVER,
    RIGHT_KIDNEY,
    SPLEEN,
    TISSUE,
    TISSUE_NAMES,
    Canvas,
    smooth_field,
    spline_basis,
)
from .volumes import LabelMap, Modality, Volume

__all__ = ["DEMO_SEED", "ORGAN_NAMES", "TISSUE", "TISSUE_NAMES", "Abdomen", "make_abdomen", "make_shapes"]

ORGAN_NAMES = {
    SPLEEN: "spleen",
    RIGHT_KIDNEY: "right kidney",
    LEFT_KIDNEY: "left kidney",
    LIVER: "liver",
}

# The abdomen of the demo and of Sample Data: the first there is, not one that was chosen for its result.
DEMO_SEED = 0

# HU by contrast phase: none, arterial, portal venous, late.
_CT_PHASES: dict[str, tuple[float, float, float, float]] = {
    "muscle": (52, 56, 60, 60),
    "heart": (42, 210, 145, 115),
    "aorta": (42, 250, 160, 120),
    "inferior vena cava": (42, 85, 140, 120),
    "vessel": (42, 150, 155, 118),
    "liver": (60, 72, 108, 98),
    "liver vessel": (42, 95, 155, 118),
    "liver lesion": (38, 48, 58, 62),
    "spleen": (50, 115, 122, 102),
    "kidney": (34, 165, 185, 160),
    "kidney medulla": (32, 80, 155, 170),
    "kidney sinus": (-15, 10, 30, 120),
    "pancreas": (42, 95, 92, 76),
    "stomach": (42, 70, 80, 70),
    "bowel": (40, 80, 85, 72),
    "esophagus": (38, 50, 60, 55),
}
_CT_FIXED: dict[str, float] = {
    "air": -1000,
    "skin": 15,
    "body fat": -105,
    "visceral fat": -102,
    "bone": 430,
    "bone marrow": 190,
    "ribs": 420,
    "intervertebral disc": 90,
    "spinal canal": 28,
    "lung": -850,
    "gallbladder": 8,
    "kidney cyst": 6,
    "stomach content": 20,
    "bowel content": 20,
    "bowel gas": -900,
    "table": 0,
}
# Relative T2 signal with fat suppression, 1 near the brightest tissue: mean and spread between patients.
_MR: dict[str, tuple[float, float]] = {
    "air": (0.0, 0.0),
    "skin": (0.16, 0.04),
    "body fat": (0.11, 0.05),
    "visceral fat": (0.08, 0.04),
    "muscle": (0.14, 0.03),
    "bone": (0.05, 0.02),
    "bone marrow": (0.16, 0.05),
    "ribs": (0.06, 0.02),
    "intervertebral disc": (0.32, 0.14),
    "spinal canal": (1.05, 0.15),
    "lung": (0.02, 0.01),
    "heart": (0.12, 0.06),
    "aorta": (0.10, 0.06),
    "inferior vena cava": (0.12, 0.08),
    "liver": (0.34, 0.06),
    "liver vessel": (0.62, 0.2),
    "liver lesion": (0.85, 0.2),
    "gallbladder": (1.1, 0.2),
    "spleen": (0.68, 0.10),
    "kidney": (0.70, 0.09),
    "kidney medulla": (0.82, 0.10),
    "kidney sinus": (0.55, 0.25),
    "kidney cyst": (1.15, 0.1),
    "stomach": (0.4, 0.1),
    "stomach content": (0.5, 0.3),
    "bowel": (0.42, 0.1),
    "bowel content": (0.5, 0.1),
    "bowel gas": (0.02, 0.01),
    "pancreas": (0.42, 0.1),
    "vessel": (0.35, 0.25),
    "esophagus": (0.35, 0.1),
    "table": (0.0, 0.0),
}


@dataclass(frozen=True)
class Abdomen:
    """A procedural patient.

    Args:
        volume: The image.
        labels: 1 spleen, 2 right kidney, 3 left kidney, 4 liver, on the same grid.
        tissues: `(z, y, x)` uint8, every voxel's tissue; names in `TISSUE_NAMES`.

    """

    volume: Volume
    labels: LabelMap
    tissues: np.ndarray


def make_abdomen(
    seed: int,
    *,
    modality: Modality = "CT",
    shape: tuple[int, int, int] = (48, 160, 160),
    spacing: tuple[float, float, float] = (2.0, 2.0, 5.0),
    appearance: Literal["natural", "random"] = "natural",
) -> Abdomen:
    """Make an abdomen: body, bones, organs, bowel and vessels, as a scanner might show them.

    The patient's shape follows from the seed alone: other modalities, grids and appearances show the same
    one. The field of view is centred on the abdomen, whose organs span about 300 x 220 x 220 mm; a smaller
    one cuts them off.

    Args:
        seed: Which patient; 0 or more.
        modality: "CT" in HU, or "MR" like fat-suppressed T2 in arbitrary units.
        shape: Voxels along `(z, y, x)`.
        spacing: Millimetres along `(x, y, z)`.
        appearance: "natural", or "random" for a random intensity of every tissue.

    Raises:
        ValueError: The shape or the spacing is not positive.

    """
    if min(shape) < 1 or min(spacing) <= 0:
        raise ValueError(f"An abdomen needs a positive shape and spacing, not {shape} and {spacing}.")
    centre = (120.0, 0.0, 0.0)
    axes = tuple(
        c + (np.arange(n) - (n - 1) / 2) * s for c, n, s in zip(centre, shape, spacing[::-1], strict=True)
    )
    canvas = Anatomy(seed).paint((axes[0], axes[1], axes[2]))
    rng = np.random.default_rng([seed, 10, modality == "MR", appearance == "random"])
    if modality == "CT" and rng.random() < 0.7:
        paint_table(canvas, rng)
    if appearance == "random":
        array = _render_random(canvas, rng, modality)
    elif modality == "CT":
        array = _render_ct(canvas, rng)
    else:
        array = _render_mr(canvas, rng)
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = [axis[0] for axis in axes[::-1]]
    geometry = Geometry((shape[0], shape[1], shape[2]), matrix)
    return Abdomen(
        volume=Volume(array, geometry, modality, f"procedural abdomen, seed {seed}"),
        labels=LabelMap(canvas.labels, geometry, dict(ORGAN_NAMES)),
        tissues=canvas.tissue,
    )


def _soften(array: np.ndarray, spacing_sigma: tuple[float, float]) -> np.ndarray:
    """A slight blur: `(sigma in plane, sigma across slices)` in voxels."""
    for axis, sigma in ((2, spacing_sigma[0]), (1, spacing_sigma[0]), (0, spacing_sigma[1])):
        array = ndimage.gaussian_filter1d(array, sigma, axis=axis, truncate=2.5)
    return array


def _noise(rng: np.random.Generator, shape: tuple[int, ...], grain: float) -> np.ndarray:
    """Unit noise with a grain of about `grain` voxels in plane."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if grain > 0.2:
        noise = ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(noise, grain, axis=2), grain, axis=1)
        noise /= noise.std()
    return noise


def _table_of(values: dict[str, float]) -> np.ndarray:
    return np.array([values[TISSUE_NAMES[k]] for k in range(len(TISSUE_NAMES))], np.float32)


def _render_ct(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Hounsfield units: a contrast phase between the tabulated ones, texture, blur and noise."""
    phase = float(rng.choice([0.0, 1.0, 2.0, 2.0, 2.0, 3.0])) + rng.uniform(-0.3, 0.3)
    spread = rng.uniform(0.85, 1.15)
    values = dict(_CT_FIXED)
    for name, levels in _CT_PHASES.items():
        values[name] = float(np.interp(phase, range(4), levels)) * spread + rng.normal(0, 4)
    for name in ("bone", "bone marrow", "ribs"):
        values[name] *= rng.uniform(0.75, 1.25)
    values["table"] = rng.uniform(-600, 150)
    values["liver"] -= 25 * (rng.random() < 0.12)
    values["liver lesion"] = rng.choice([values["liver lesion"], 8.0])
    table = _table_of(values)
    array = table[canvas.tissue]
    # Bowel and stomach content by each loop's own shade: water and food, or oral contrast.
    contrast = rng.uniform(150, 320) if rng.random() < 0.5 else 30
    content = (canvas.tissue == TISSUE["bowel content"]) | (canvas.tissue == TISSUE["stomach content"])
    filled = np.clip(canvas.shade[content] - 0.45, 0, 1) / 0.55
    array[content] += contrast * filled + 30 * (canvas.shade[content] - 0.5)
    fine, coarse = smooth_field(rng, canvas.axes, 10), smooth_field(rng, canvas.axes, 45)
    grain = _table_of(
        {n: 0.0 if n == "air" else 5.0 for n in TISSUE_NAMES.values()}
        | {"bone": 90.0, "bone marrow": 55.0, "ribs": 70.0, "lung": 25.0, "muscle": 9.0, "visceral fat": 7.0}
        | {"bowel content": 28.0, "stomach content": 15.0, "heart": 8.0, "kidney sinus": 25.0, "table": 50.0}
    )
    array += grain[canvas.tissue] * (0.75 * fine + 0.4 * coarse)
    lung = canvas.tissue == TISSUE["lung"]
    array[lung] += 900 * np.clip(fine[lung] - 1.7, 0, 0.7)  # its vessels
    array = _soften(array, (rng.uniform(0.4, 0.75), 0.25))
    array += rng.uniform(6, 22) * _noise(rng, array.shape, rng.uniform(0, 0.8))
    return np.maximum(array, -1024).astype(np.float32)


def _render_mr(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Fat-suppressed T2: a bias field from the coil, Rician noise and an arbitrary scale."""
    values = {name: max(0.0, rng.normal(mean, spread)) for name, (mean, spread) in _MR.items()}
    for name in ("spleen", "kidney"):
        values[name] = max(values[name], values["liver"] + rng.uniform(0.12, 0.3))
    array = _table_of(values)[canvas.tissue]
    content = (canvas.tissue == TISSUE["bowel content"]) | (canvas.tissue == TISSUE["stomach content"])
    array[content] += 0.9 * (canvas.shade[content] - 0.4)
    fine, coarse = smooth_field(rng, canvas.axes, 9), smooth_field(rng, canvas.axes, 50)
    array *= np.clip(1 + 0.09 * fine + 0.05 * coarse, 0.3, 2)
    # Fat suppression fails in places, mostly low and at the side.
    fatty = (canvas.tissue == TISSUE["body fat"]) | (canvas.tissue == TISSUE["visceral fat"])
    failure = np.clip(smooth_field(rng, canvas.axes, 70) - rng.uniform(1.0, 2.2), 0, 1)
    array += 0.35 * failure * fatty
    array = _soften(np.maximum(array, 0), (rng.uniform(0.4, 0.8), 0.3))
    array *= np.exp(rng.uniform(0.1, 0.3) * smooth_field(rng, canvas.axes, 130))
    # The coil ends near the dome of the liver, and the depth of the body darkens.
    top = rng.uniform(200, 250)
    array *= (0.25 + 0.75 / (1 + np.exp((canvas.axes[0] - top) / rng.uniform(8, 20)))).astype(np.float32)[
        :, None, None
    ]
    sigma = rng.uniform(0.015, 0.05)
    real = array + sigma * _noise(rng, array.shape, 0.3)
    imaginary = sigma * _noise(rng, array.shape, 0.3)
    return (np.hypot(real, imaginary) * rng.uniform(500, 1500)).astype(np.float32)


def _render_random(canvas: Canvas, rng: np.random.Generator, modality: Modality) -> np.ndarray:
    """A random intensity and texture for every tissue, spread over the window that normalisation keeps."""
    count = len(TISSUE_NAMES)
    table = rng.uniform(0, 1, count).astype(np.float32)
    table[TISSUE["air"]] = rng.choice([0.0, 0.0, rng.uniform(0, 1)])
    table[TISSUE["table"]] = table[TISSUE["air"]]
    rough = rng.uniform(0, 0.12, count).astype(np.float32)
    array = table[canvas.tissue] + 0.25 * rng.uniform(-1, 1) * canvas.shade
    array += rough[canvas.tissue] * smooth_field(rng, canvas.axes, rng.uniform(7, 14))
    array += rng.uniform(0, 0.08) * smooth_field(rng, canvas.axes, 50)
    array = _soften(array, (rng.uniform(0.3, 1.0), 0.3))
    array *= np.exp(rng.uniform(0, 0.25) * smooth_field(rng, canvas.axes, 110))
    array += rng.uniform(0.005, 0.08) * _noise(rng, array.shape, rng.uniform(0, 1))
    if modality == "CT":
        return np.clip(400 * array - 150, -1024, 1500).astype(np.float32)
    return (np.clip(array, 0, 2) * rng.uniform(300, 1500)).astype(np.float32)


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
