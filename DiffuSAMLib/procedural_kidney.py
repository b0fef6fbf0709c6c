"""The kidneys of a procedural abdomen, where most have them and elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .procedural_canvas import RIGHT_KIDNEY, Array, Box, Canvas, Level, rotation, smooth_max

# Of the kidneys that may lie anywhere.
UNUSUAL_SHARE = 0.4


@dataclass(frozen=True)
class KidneyPlace:
    """How a kidney differs from most.

    Attributes:
        shift: Millimetres along (x, y, z) of the reference patient.
        turn: Radians about x, y and z.
        size: Its volume, relative to most.
    """

    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    size: float = 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> KidneyPlace:
        """As most have it, or sunken, pushed to the front, turned, large or small."""
        if rng.random() >= UNUSUAL_SHARE:
            return cls()
        sunken, forward = rng.uniform(0, 1, 2)
        return cls(
            (rng.uniform(-10, 10), 10 - 50 * forward, 15 - 85 * sunken),
            (rng.uniform(-0.6, 0.4), rng.uniform(-0.4, 0.4), rng.uniform(-0.9, 0.9)),
            rng.uniform(0.6, 1.7),
        )


def paint_kidney(
    canvas: Canvas,
    rng: np.random.Generator,
    organ: int,
    rough: Array,
    hard: Array,
    level: Level,
    place: KidneyPlace,
) -> tuple[Box, Array]:
    """A bean with cortex, pyramids and a sinus open to the middle; returns its box and its fat's level."""
    side = -1 if organ == RIGHT_KIDNEY else 1
    height = rng.uniform(88, 108) + (0 if side < 0 else rng.uniform(2, 18))
    usual = np.array((side * rng.uniform(60, 68), rng.uniform(36, 44), height))
    centre = usual + place.shift
    radii = np.array([26, 24, 53]) * rng.uniform(0.92, 1.08, 3) * np.cbrt(place.size)
    turn = rotation(rng.uniform(-0.3, -0.08), side * rng.uniform(-0.32, -0.12), side * rng.uniform(0.2, 0.7))
    turn = rotation(*place.turn) @ turn
    reach = 70.0 * np.cbrt(place.size)
    box = canvas.box([c - reach for c in centre], [c + reach for c in centre])
    u, v, w = canvas.local(box, centre, turn)
    u = -side * u  # positive towards the middle of the body
    bean = u - rng.uniform(7, 13) * ((w / 52) ** 2 - 0.25)
    norm = np.sqrt((bean / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
    hilum_z = rng.uniform(-6, 6)
    hilum = (
        np.sqrt(((u - 24) / 15) ** 2 + ((v + 2) / 8) ** 2 + ((w - hilum_z) / rng.uniform(13, 19)) ** 2) - 1
    ) * 11
    soft = smooth_max((norm - 1) * 30, -hilum, 5.0) + 1.3 * rough[box]
    f = soft - level(organ, box, soft, hard[box] < 0)
    mine = canvas.paint(box, (f < 0) & (hard[box] < 0), "kidney")
    canvas.labels[box][mine] = organ

    lobes = (
        np.cos(w * 2 * np.pi / rng.uniform(15, 20))
        + 0.8 * np.cos(2.5 * np.arctan2(v, bean + 4))
        + 0.5 * rough[box]
    )
    canvas.paint(box, (f < -6.5) & (f > -15) & (lobes > -0.15), "kidney medulla", over=("kidney",))
    sinus = np.sqrt(((u - 9) / 13) ** 2 + (v / 8) ** 2 + ((w - hilum_z) / 25) ** 2) + 0.18 * rough[box]
    canvas.paint(box, (sinus < 1) & (f < -3), "kidney sinus", over=("kidney", "kidney medulla"))
    if rng.random() < 0.25:
        size = rng.uniform(6, 20)
        at = rotation(0, 0, rng.uniform(0, 6)) @ (15, 0, 0) + (0, 0, rng.uniform(-30, 30))
        cyst = np.sqrt((u - at[0]) ** 2 + (v - at[1]) ** 2 + (w - at[2]) ** 2) < size
        canvas.paint(box, cyst, "kidney cyst", over=("kidney", "kidney medulla", "kidney sinus"))
    # The fat around the kidney is thickest towards the spine and the back: other organs stay in front.
    return box, f - 2.5 - 10 * np.clip(u / 25, 0, 1) - 10 * np.clip(v / 22, 0, 1)
