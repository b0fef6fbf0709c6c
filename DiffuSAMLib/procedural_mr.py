"""How a procedural abdomen looks in MR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

from .procedural_canvas import TISSUE, Canvas, by_tissue, grainy_noise, smooth_field, soften

MRSequence = Literal["T2 fat-suppressed", "T2", "T1"]

# Relative signal, 1 near the brightest organ: mean and spread between patients. T2 with fat suppression first.
_T2_FAT_SUPPRESSED: dict[str, tuple[float, float]] = {
    "air": (0.0, 0.0),
    "skin": (0.22, 0.06),
    "body fat": (0.16, 0.08),
    "visceral fat": (0.17, 0.08),
    "muscle": (0.21, 0.04),
    "bone": (0.08, 0.03),
    "bone marrow": (0.30, 0.09),
    "ribs": (0.10, 0.03),
    "intervertebral disc": (0.35, 0.14),
    "spinal canal": (1.15, 0.15),
    "lung": (0.04, 0.02),
    "heart": (0.20, 0.08),
    "aorta": (0.13, 0.08),
    "inferior vena cava": (0.16, 0.10),
    "liver": (0.42, 0.07),
    "liver vessel": (0.70, 0.18),
    "liver lesion": (0.85, 0.2),
    "gallbladder": (1.2, 0.2),
    "spleen": (0.82, 0.10),
    "kidney": (0.86, 0.09),
    "kidney medulla": (0.84, 0.14),
    "kidney sinus": (0.65, 0.25),
    "kidney cyst": (1.2, 0.1),
    "stomach": (0.42, 0.1),
    "stomach content": (0.65, 0.3),
    "bowel": (0.45, 0.1),
    "bowel content": (0.6, 0.2),
    "bowel gas": (0.04, 0.02),
    "pancreas": (0.52, 0.1),
    "vessel": (0.45, 0.25),
    "esophagus": (0.38, 0.1),
    "table": (0.0, 0.0),
}
_T2 = _T2_FAT_SUPPRESSED | {
    "body fat": (0.75, 0.20),
    "bone marrow": (0.45, 0.12),
    "kidney sinus": (0.75, 0.20),
}
_T1: dict[str, tuple[float, float]] = {
    "air": (0.0, 0.0),
    "skin": (0.40, 0.10),
    "body fat": (1.0, 0.15),
    "muscle": (0.30, 0.06),
    "bone": (0.08, 0.03),
    "bone marrow": (0.45, 0.12),
    "ribs": (0.20, 0.08),
    "intervertebral disc": (0.25, 0.06),
    "spinal canal": (0.15, 0.05),
    "lung": (0.04, 0.02),
    "heart": (0.22, 0.12),
    "aorta": (0.18, 0.15),
    "inferior vena cava": (0.18, 0.12),
    "liver": (0.40, 0.09),
    "liver vessel": (0.22, 0.12),
    "liver lesion": (0.22, 0.08),
    "gallbladder": (0.25, 0.18),
    "spleen": (0.26, 0.07),
    "kidney": (0.32, 0.08),
    "kidney medulla": (0.24, 0.07),
    "kidney sinus": (0.65, 0.20),
    "kidney cyst": (0.12, 0.05),
    "stomach": (0.28, 0.07),
    "stomach content": (0.30, 0.20),
    "bowel": (0.30, 0.07),
    "bowel content": (0.32, 0.15),
    "bowel gas": (0.04, 0.02),
    "pancreas": (0.45, 0.09),
    "vessel": (0.22, 0.15),
    "esophagus": (0.30, 0.07),
    "table": (0.0, 0.0),
}
_SIGNALS = {"T2 fat-suppressed": _T2_FAT_SUPPRESSED, "T2": _T2, "T1": _T1}
_FLUIDS = ("spinal canal", "gallbladder", "kidney cyst", "stomach content", "bowel content")


def render_mr(canvas: Canvas, rng: np.random.Generator, sequence: MRSequence) -> np.ndarray:
    """Arbitrary units `(z, y, x)`: a bias field from the coil, Rician noise and an arbitrary scale."""
    array = by_tissue(tissue_signals(rng, sequence))[canvas.tissue]
    content = (canvas.tissue == TISSUE["bowel content"]) | (canvas.tissue == TISSUE["stomach content"])
    array[content] += (0.4 if sequence == "T1" else 0.9) * (canvas.shade[content] - 0.4)
    fine, coarse = smooth_field(rng, canvas.axes, 9), smooth_field(rng, canvas.axes, 50)
    array *= np.clip(1 + 0.09 * fine + 0.05 * coarse, 0.3, 2)
    # Small vessels, nodes and folds between the loops.
    mesentery = canvas.tissue == TISSUE["visceral fat"]
    sign = 1 if sequence == "T2 fat-suppressed" else -1
    array[mesentery] += sign * rng.uniform(0.05, 0.25) * np.clip(fine[mesentery] - 0.3, 0, 2)
    if sequence == "T2 fat-suppressed":
        array += unsuppressed(mesentery | (canvas.tissue == TISSUE["body fat"]), canvas.axes, rng)
    body = (canvas.tissue != TISSUE["air"]) & (canvas.tissue != TISSUE["table"])
    return receive(array, canvas.axes, rng, body=body)


def unsuppressed(fat: np.ndarray, axes: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The signal `(z, y, x)` of fat where its suppression fails.

    Args:
        fat: How much of each voxel is fat, 0 to 1, `(z, y, x)`.
        axes: World positions in mm along z, y and x.
        rng: Decides.
    """
    failure = np.clip(smooth_field(rng, axes, 70) - rng.uniform(0.2, 2.2), 0, 1)
    return rng.uniform(0.2, 0.6) * failure * fat


def receive(
    array: np.ndarray, axes: Sequence[np.ndarray], rng: np.random.Generator, *, body: np.ndarray
) -> np.ndarray:
    """What coils receive of relative signals `(z, y, x)`: a bias field, Rician noise, an arbitrary scale.

    Args:
        array: How bright each voxel would be with an even coil and no noise; 0 is nothing.
        axes: World positions in mm along z, y and x, in the frame of a procedural abdomen.
        rng: Decides.
        body: Where the patient is, bool `(z, y, x)`.
    """
    array = soften(np.maximum(array, 0), (rng.uniform(0.4, 0.8), 0.3))
    array *= _near_coils(body, axes, rng)
    array *= np.exp(rng.uniform(0.1, 0.3) * smooth_field(rng, axes, 130))
    # The coil ends near the dome of the liver, and the depth of the body darkens.
    top = rng.uniform(200, 250)
    array *= (0.25 + 0.75 / (1 + np.exp((axes[0] - top) / rng.uniform(8, 20)))).astype(np.float32)[
        :, None, None
    ]
    sigma = rng.uniform(0.004, 0.035)
    real = array + sigma * grainy_noise(rng, array.shape, 0.3)
    imaginary = sigma * grainy_noise(rng, array.shape, 0.3)
    return (np.hypot(real, imaginary) * rng.uniform(500, 1500)).astype(np.float32)


def _near_coils(body: np.ndarray, axes: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """How much brighter `(z, y, x)` the coils on the skin show what is near them: fat as bright as organs, at times."""
    spacing = tuple(float(axis[1] - axis[0]) for axis in axes[1:])
    depth = np.stack([ndimage.distance_transform_edt(part, sampling=spacing) for part in body])
    gain = rng.uniform(0, 1.5) * np.clip(1 + 0.7 * smooth_field(rng, axes, 90), 0, 2.5)
    return (1 + gain * np.exp(-depth / rng.uniform(12, 35))).astype(np.float32)


def tissue_signals(rng: np.random.Generator, sequence: MRSequence) -> dict[str, float]:
    """The relative signal of each tissue in one patient, 1 near the brightest organ."""
    values = {name: max(0.0, rng.normal(mean, spread)) for name, (mean, spread) in _SIGNALS[sequence].items()}
    if sequence != "T2 fat-suppressed":
        values["visceral fat"] = values["body fat"] * rng.uniform(0.85, 1.0)
    if sequence == "T1":
        values["spleen"] = min(values["spleen"], values["liver"])
        return values
    # Iron darkens the liver of some patients, and of some of them the spleen too.
    if rng.random() < 0.15:
        values["liver"] *= rng.uniform(0.3, 0.7)
        values["spleen"] *= rng.choice([1.0, rng.uniform(0.2, 0.7)])
    else:
        for name in ("spleen", "kidney"):
            values[name] = max(values[name], values["liver"] + rng.uniform(0.15, 0.35))
    # The longer the echo time, the more fluid outshines the organs.
    for name in _FLUIDS:
        values[name] *= np.exp(rng.uniform(-0.3, 0.1) + 0.6 * (rng.random() < 0.08))
    return values
