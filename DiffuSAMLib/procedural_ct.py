"""How a procedural abdomen looks in CT."""

from __future__ import annotations

import numpy as np

from .procedural_canvas import TISSUE, TISSUE_NAMES, Canvas, by_tissue, grainy_noise, smooth_field, soften

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


def render_ct(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
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
    table = by_tissue(values)
    array = table[canvas.tissue]
    # Bowel and stomach content by each loop's own shade: water and food, or oral contrast.
    contrast = rng.uniform(150, 320) if rng.random() < 0.5 else 30
    content = (canvas.tissue == TISSUE["bowel content"]) | (canvas.tissue == TISSUE["stomach content"])
    filled = np.clip(canvas.shade[content] - 0.45, 0, 1) / 0.55
    array[content] += contrast * filled + 30 * (canvas.shade[content] - 0.5)
    fine, coarse = smooth_field(rng, canvas.axes, 10), smooth_field(rng, canvas.axes, 45)
    rough = by_tissue(
        {n: 0.0 if n == "air" else 5.0 for n in TISSUE_NAMES.values()}
        | {"bone": 90.0, "bone marrow": 55.0, "ribs": 70.0, "lung": 25.0, "muscle": 9.0, "visceral fat": 7.0}
        | {"bowel content": 28.0, "stomach content": 15.0, "heart": 8.0, "kidney sinus": 25.0, "table": 50.0}
    )
    array += rough[canvas.tissue] * (0.75 * fine + 0.4 * coarse)
    lung = canvas.tissue == TISSUE["lung"]
    array[lung] += 900 * np.clip(fine[lung] - 1.7, 0, 0.7)  # its vessels
    array = soften(array, (rng.uniform(0.4, 0.75), 0.25))
    array += rng.uniform(6, 22) * grainy_noise(rng, array.shape, rng.uniform(0, 0.8))
    return np.maximum(array, -1024).astype(np.float32)
