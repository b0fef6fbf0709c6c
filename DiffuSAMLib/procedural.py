"""Procedural volumes with exact labels: abdomens that look like CT or MR.

They are the demo's and the tests' own data, and training material that belongs to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .geometry import Geometry
from .labelmaps import LabelMap
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
    grainy_noise,
    smooth_field,
    soften,
)
from .procedural_ct import render_ct
from .procedural_mr import MRSequence, render_mr
from .volumes import Modality, Volume

__all__ = ["DEMO_SEED", "ORGAN_NAMES", "TISSUE", "TISSUE_NAMES", "Abdomen", "make_abdomen"]

ORGAN_NAMES = {
    SPLEEN: "spleen",
    RIGHT_KIDNEY: "right kidney",
    LEFT_KIDNEY: "left kidney",
    LIVER: "liver",
}

# The abdomen of the demo and of Sample Data: the first there is, not one that was chosen for its result.
DEMO_SEED = 0


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
    sequence: MRSequence = "T2 fat-suppressed",
) -> Abdomen:
    """Make an abdomen: body, bones, organs, bowel and vessels, as a scanner might show them.

    The patient's shape follows from the seed alone: other modalities, grids and appearances show the same
    one. The field of view is centred on the abdomen, whose organs span about 300 x 220 x 220 mm; a smaller
    one cuts them off.

    Args:
        seed: Which patient; 0 or more.
        modality: "CT" in HU, or "MR" in arbitrary units.
        shape: Voxels along `(z, y, x)`.
        spacing: Millimetres along `(x, y, z)`.
        appearance: "natural", or "random" for a random intensity of every tissue.
        sequence: Of an MR with natural appearance; fat is bright in "T2" and "T1".

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
        array = render_ct(canvas, rng)
    else:
        array = render_mr(canvas, rng, sequence)
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = [axis[0] for axis in axes[::-1]]
    geometry = Geometry((shape[0], shape[1], shape[2]), matrix)
    return Abdomen(
        volume=Volume(array, geometry, modality, f"procedural abdomen, seed {seed}"),
        labels=LabelMap(canvas.labels, geometry, dict(ORGAN_NAMES)),
        tissues=canvas.tissue,
    )


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
    array = soften(array, (rng.uniform(0.3, 1.0), 0.3))
    array *= np.exp(rng.uniform(0, 0.25) * smooth_field(rng, canvas.axes, 110))
    array += rng.uniform(0.005, 0.08) * grainy_noise(rng, array.shape, rng.uniform(0, 1))
    if modality == "CT":
        return np.clip(400 * array - 150, -1024, 1500).astype(np.float32)
    return (np.clip(array, 0, 2) * rng.uniform(300, 1500)).astype(np.float32)
