"""The organs, bones, vessels and bowel of a procedural abdomen, painted in order on a canvas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from .procedural_bowel import paint_colon, paint_small_bowel, paint_small_vessels, paint_stomach
from .procedural_canvas import (
    LEFT_KIDNEY,
    LIVER,
    RIGHT_KIDNEY,
    SPLEEN,
    TISSUE,
    VOLUME_RANGES_ML,
    Array,
    Body,
    Box,
    Canvas,
    rotation,
    smooth_field,
    smooth_max,
)

# (organ, box, level function, where it may be) -> the level that bounds the organ.
Level = Callable[[int, Box, Array, Array], float]
_SOFT = ("visceral fat", "muscle")


class Anatomy:
    """One patient. `paint` puts it on a grid. The organs' volumes are fixed at first, on a coarse one.

    Args:
        seed: Decides everything about the patient.

    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        rng = np.random.default_rng([seed, 0])
        self.body = Body.draw(rng)
        room = float(np.prod(self.body.scale))
        self._targets = {k: float(rng.uniform(low, high)) for k, (low, high) in VOLUME_RANGES_ML.items()}
        self._targets[SPLEEN] = float(np.exp(rng.uniform(*np.log(VOLUME_RANGES_ML[SPLEEN]))))
        self._targets[LIVER] = float(
            np.clip(1500 * room**0.8 * rng.uniform(0.85, 1.15), *VOLUME_RANGES_ML[LIVER])
        )
        self._levels: dict[int, float] = {}
        self._calibrate()

    def _calibrate(self) -> None:
        """Find the organs' levels, and the room around them, on a coarse grid that is always the same."""
        step = 5.0
        self._axes = np.arange(-20, 280, step), np.arange(-130, 131, step), np.arange(-175, 176, step)
        canvas = self._canvas(self._axes)
        self._solids(canvas, np.random.default_rng([self._seed, 2]), step**3 / 1000)
        organ = canvas.labels > 0
        outside, inside = ndimage.distance_transform_edt(~organ), ndimage.distance_transform_edt(organ)
        self._distance = ndimage.gaussian_filter(outside - inside, 0.7) * step
        self._away = np.gradient(self._distance, step)

    def clear_of_organs(self, line: Array, radius: Array | float) -> Array:
        """Move the points of a centre line until a tube of this radius no longer cuts into an organ."""
        scale, offset = np.array(self.body.scale), np.array(self.body.offset)
        pivot = np.array([0.0, 0.0, 120.0])
        world = (line - pivot) * scale + pivot + offset
        for _ in range(6):
            index = np.stack([(world[:, 2 - k] - a[0]) / (a[1] - a[0]) for k, a in enumerate(self._axes)])
            lack = np.clip(
                radius - ndimage.map_coordinates(self._distance, index, order=1, mode="nearest"), 0, 12
            )
            for k, gradient in enumerate(self._away):
                world[:, 2 - k] += lack * ndimage.map_coordinates(gradient, index, order=1, mode="nearest")
        return (world - offset - pivot) / scale + pivot

    def _canvas(self, axes: tuple[Array, Array, Array]) -> Canvas:
        return Canvas(axes, self.body, np.random.default_rng([self._seed, 1]))

    def paint(self, axes: tuple[Array, Array, Array]) -> Canvas:
        """Paint the patient on a grid given by its world positions (mm) along z, y and x."""
        canvas = self._canvas(axes)
        porta = self._solids(canvas, np.random.default_rng([self._seed, 2]), None)
        rng = np.random.default_rng([self._seed, 3])
        paint_liver_inside(canvas, rng, porta)
        paint_stomach(canvas, rng)
        paint_small_vessels(canvas, rng)
        paint_colon(canvas, rng, self.clear_of_organs)
        paint_small_bowel(canvas, rng, self.clear_of_organs)
        return canvas

    def _solids(
        self, canvas: Canvas, rng: np.random.Generator, voxel_ml: float | None
    ) -> tuple[float, float, float]:
        """Body, bones and organs; with `voxel_ml` it also finds the levels that give the target volumes."""
        cavity, above = paint_body(canvas, rng)
        paint_bones(canvas, rng, cavity)
        paint_great_vessels(canvas, rng)
        rough = smooth_field(rng, canvas.axes, 24)
        hard = np.maximum(cavity + 3.0, above + 1.5)

        def level(organ: int, box: Box, soft: Array, allowed: Array) -> float:
            if voxel_ml is not None:
                free = (canvas.tissue[box] == TISSUE["visceral fat"]) & allowed
                values = np.sort(soft[free])
                count = min(int(self._targets[organ] / voxel_ml), len(values) - 1)
                self._levels[organ] = float(values[count])
            return self._levels[organ]

        kidneys = [
            paint_kidney(canvas, rng, side, rough, hard, level) for side in (RIGHT_KIDNEY, LEFT_KIDNEY)
        ]
        hard_all = hard.copy()
        for box, f in kidneys:
            np.maximum(hard_all[box], -f, out=hard_all[box])
        paint_spleen(canvas, rng, rough, hard_all, level, (self._targets[SPLEEN] / 200) ** 0.33)
        return paint_liver(canvas, rng, rough, hard_all, level)


def paint_body(canvas: Canvas, rng: np.random.Generator) -> tuple[Array, Array]:
    """Skin, fat, muscle wall, cavity, lungs and heart; returns the levels of cavity and diaphragm."""
    x, y, z, body = canvas.x, canvas.y, canvas.z, canvas.body
    p = body.exponent
    girth = 1 + 0.05 * np.clip((40 - z) / 60, -0.3, 1) - body.waist * np.exp(-(((z - 60) / 55) ** 2))
    ax, ay = np.abs(x), np.abs(y + 2 * np.cos(np.clip(x, -40, 40) / 40 * np.pi / 2))
    r = np.exp(np.log((ax / 140) ** p + (ay / 98) ** p + 1e-9) / p) / girth
    depth = np.sqrt(x * x + y * y) * (1 - 1 / (r + 1e-3))
    depth += 7 * np.exp(-((x / 16) ** 2)) * np.clip(y / 98, 0, 1)
    lower = np.clip((170 - z) / 120, 0, 1)
    fat = body.fat_mm * (0.55 + 0.45 * lower) * (1 + 0.35 * np.clip(y / 98, -1, 1)) + 2.5
    fat *= 1 - 0.3 * np.exp(-((x / 90) ** 2)) * (y < 0)
    inside = depth < fat
    canvas.tissue[inside] = TISSUE["skin"]
    canvas.tissue[depth < fat - 2.2] = TISSUE["body fat"]
    canvas.tissue[depth < 0] = TISSUE["muscle"]
    back = np.clip(y / 80, 0, 1)
    wall = rng.uniform(8, 11) + 14 * back * back + 8 * np.clip((25 - z) / 30, 0, 1)
    cavity = depth + wall
    # Fat planes between the layers of the wall and around the back muscles.
    planes = (np.abs(cavity - 0.45 * wall) < 0.9) & (y < 45) & (z < 150)
    planes |= (np.abs(smooth_field(rng, canvas.axes, 30)) < 0.07) & (y > 30) & (depth < -4)
    canvas.tissue[planes & (canvas.tissue == TISSUE["muscle"])] = TISSUE["body fat"]
    hollow = cavity < 0
    canvas.tissue[hollow] = TISSUE["visceral fat"]

    top_right, top_left = rng.uniform(206, 224), rng.uniform(196, 212)
    centre = np.where(x < 0, -64.0, 60.0).astype(np.float32)
    u, v = (x - centre) / 74, (y + 10) / 84
    u = np.where(np.abs(x) < np.abs(centre), 0.65 * u, u)  # the domes join under the heart
    behind = np.clip(v, 0, 2)
    dome = np.where(x < 0, top_right, top_left) - 34 * (u * u + v * v) - 45 * behind * behind
    dome += 4 * smooth_field(rng, canvas.axes, 60)
    steep = np.sqrt(1 + (68 * u / 74) ** 2 / 4 + ((68 * v + 90 * behind) / 84) ** 2 / 2)
    above = (z - dome) / steep
    chest = hollow & (above > 0)
    canvas.tissue[chest] = TISSUE["muscle"]
    spine_room = np.exp(-((np.clip(y - 10, -200, 0) / 60) ** 2))
    lung = chest & (above > 1.0) & (np.abs(x + 4) > 9 + 16 * spine_room) & (cavity < -1.5)
    canvas.tissue[lung] = TISSUE["lung"]
    canvas.tissue[chest & ~lung & (above > 3)] = TISSUE["body fat"]
    box, f = canvas.ellipsoid(
        (rng.uniform(8, 20), -30, rng.uniform(240, 252)), (58, 44, 40), rotation(0, 0.2, 0.3)
    )
    canvas.paint(box, f < 0, "heart", over=("lung", "muscle", "body fat"))
    return cavity, above


def paint_bones(canvas: Canvas, rng: np.random.Generator, cavity: Array) -> None:
    """Spine with discs and canal, its muscles, ribs and the iliac wings."""
    x, y, z = canvas.x, canvas.y, canvas.z
    pitch, phase = rng.uniform(32, 36), rng.uniform(0, 34)
    any_soft = ("visceral fat", "muscle", "body fat", "lung", "skin")
    for side in (-1, 1):
        box, f = canvas.ellipsoid((side * 32, 76, 110), (27, 17, 400))
        canvas.paint(box, f < 0, "muscle", over=("visceral fat", "body fat"))
        psoas = np.array(
            [[side * 24, 50, 130], [side * 30, 50, 90], [side * 39, 42, 40], [side * 56, 26, -40]]
        )
        box, fraction = canvas.tube(psoas, np.array([5, 10, 16, 19]) * rng.uniform(0.85, 1.15))
        canvas.paint(box, fraction < 1, "muscle")
        box, f = canvas.ellipsoid((side * 58, 71, 45), (18, 8, 55), rotation(0, 0, side * -0.35))
        canvas.paint(box, f < 0, "muscle")
    box = canvas.box((-48, 10, -400), (48, 105, 400))
    u, v, w = canvas.local(box, (0, 46, phase))
    cycle = np.abs(((w / pitch) % 1) - 0.5) * pitch
    flare = 1 + 0.1 * np.clip(cycle / 14, 0, 1) ** 2
    vertebra = (np.sqrt((u / 23) ** 2 + (v / 17) ** 2) / flare - 1) * 19
    disc = cycle > pitch / 2 - 4
    canvas.paint(box, vertebra < 0, "bone", over=any_soft)
    canvas.paint(box, (vertebra < -2.0) & (cycle < pitch / 2 - 5.5), "bone marrow", over=("bone",))
    canvas.paint(box, (vertebra < 0.5) & disc, "intervertebral disc", over=("bone", "visceral fat", "muscle"))
    arch = np.sqrt((u / 17) ** 2 + ((v - 27) / 13) ** 2)
    level = np.abs(((w / pitch + 0.12) % 1) - 0.5) * pitch
    spinous = (np.abs(u) < 3.5) & (v > 34) & (v < 58 - 0.3 * level) & (level < 10)
    transverse = (np.abs(v - 25 + 0.12 * np.abs(u)) < 4) & (np.abs(u) < 40) & (level < 5)
    pedicle = (np.abs(np.abs(u) - 13) < 4) & (v > 8) & (v < 28) & (level < 8)
    canvas.paint(box, ((arch < 1) & (level < 12)) | spinous | transverse | pedicle, "bone", over=any_soft)
    canvas.paint(
        box, np.sqrt((u / 10) ** 2 + ((v - 24) / 8) ** 2) < 1, "spinal canal", over=(*any_soft, "bone")
    )

    # Ribs run in the wall, from high at the spine to low at the side and in front.
    angle = np.arctan2(np.abs(x) / 140, y / 98)
    slope, spacing = rng.uniform(45, 62), rng.uniform(25, 29)
    along = (z + slope * angle + rng.uniform(0, 25)) / spacing
    across = (np.abs((along % 1) - 0.5)) * spacing
    margin = 120 - 40 * np.sin(angle) ** 2 + 80 * (angle / np.pi) ** 4
    shell = np.abs(cavity - rng.uniform(3.5, 5.0))
    rib = (across < 6) & (shell < 3.6) & (z > margin) & (np.abs(x) > 12) & (angle < 2.6)
    canvas.paint((slice(None),) * 3, rib, "ribs", over=("muscle", "visceral fat", "body fat"))
    inner = rib & (across < 3.8) & (shell < 1.8)
    canvas.paint((slice(None),) * 3, inner, "bone marrow", over=("ribs",))

    crest = rng.uniform(18, 40)
    for side in (-1, 1):
        box = canvas.box((min(side * 125, side * 25), -20, -400), (max(side * 125, side * 25), 90, crest))
        u, v, w = canvas.local(box, (side * 76, 26, 0))
        along_wing = (u * side * 0.58 - v * 0.81) / 60
        plate = (u * side * 0.81 + v * 0.58) + 9 * along_wing**2 - 4 - 0.12 * w
        top = crest * (1 - 1.3 * along_wing**2)
        wing = (np.abs(along_wing) < 1) & (w < top)
        canvas.paint(box, wing & (np.abs(plate) < 16), "muscle")
        canvas.paint(box, wing & (np.abs(plate) < 4.5), "bone", over=any_soft)
        canvas.paint(box, wing & (np.abs(plate) < 2.2) & (w < top - 3), "bone marrow", over=("bone",))


def paint_great_vessels(canvas: Canvas, rng: np.random.Generator) -> None:
    """Aorta, inferior vena cava, their iliac branches and the esophagus."""
    over = (*_SOFT, "body fat", "lung")
    fork = rng.uniform(22, 40)
    radius = rng.uniform(8, 12.5)
    bend = rng.uniform(-5, 5)
    trunk = np.array([[14, 24, 330], [13, 22, 210], [8 + bend, 17, 150], [5 - bend, 19, 90], [3, 18, fork]])
    box, fraction = canvas.tube(trunk, radius * np.array([1.15, 1.1, 1, 0.9, 0.8]))
    canvas.paint(box, fraction < 1, "aorta", over=over)
    cava = np.array([[-20, 21, fork - 4], [-21, 19, 95], [-23, 14, 150], [-24, 2, 190], [-14, -6, 226]])
    box, fraction = canvas.tube(cava, rng.uniform(9.5, 13.5))
    canvas.paint(box, fraction < 1, "inferior vena cava", over=over)
    for side in (-1, 1):
        box, fraction = canvas.tube(
            np.array([[3, 18, fork], [side * 28, 22, -10], [side * 48, 20, -60]]), 5.5
        )
        canvas.paint(box, fraction < 1, "aorta", over=over)
        box, fraction = canvas.tube(
            np.array([[-20, 22, fork], [side * 30, 29, -10], [side * 46, 27, -60]]), 7.0
        )
        canvas.paint(box, fraction < 1, "inferior vena cava", over=over)
    box, fraction = canvas.tube(np.array([[2, 8, 330], [4, 6, 215], [18, -2, 190]]), 8.0)
    canvas.paint(box, fraction < 1, "esophagus", over=over)


def paint_kidney(
    canvas: Canvas, rng: np.random.Generator, organ: int, rough: Array, hard: Array, level: Level
) -> tuple[Box, Array]:
    """A bean with cortex, pyramids and a sinus open to the middle; returns its box and its fat's level."""
    side = -1 if organ == RIGHT_KIDNEY else 1
    height = rng.uniform(88, 108) + (0 if side < 0 else rng.uniform(2, 18))
    centre = (side * rng.uniform(60, 68), rng.uniform(36, 44), height)
    radii = np.array([26, 24, 53]) * rng.uniform(0.92, 1.08, 3)
    turn = rotation(rng.uniform(-0.3, -0.08), side * rng.uniform(-0.32, -0.12), side * rng.uniform(0.2, 0.7))
    reach = 70.0
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


def paint_spleen(
    canvas: Canvas, rng: np.random.Generator, rough: Array, hard: Array, level: Level, size: float
) -> None:
    """A crescent against the left posterior wall, hollowed by the stomach and the kidney."""
    centre = (rng.uniform(84, 96), rng.uniform(26, 42), rng.uniform(138, 156))
    turn = rotation(rng.uniform(-0.5, 0.1), rng.uniform(-0.25, 0.25), rng.uniform(-0.35, 0.25))
    box = canvas.box([c - 85 for c in centre], [c + 85 for c in centre])
    u, v, w = canvas.local(box, centre, turn)
    outer = (np.sqrt((u / 44) ** 2 + (v / 48) ** 2 + (w / rng.uniform(46, 62)) ** 2) - size) * 46
    inward = rng.uniform(28, 40)
    hollow = (np.sqrt(((u + inward) / 40) ** 2 + ((v + 22) / 48) ** 2 + (w / 90) ** 2) - 1) * 42
    medial = (54 - canvas.x[box]) * 2.0
    soft = smooth_max(smooth_max(outer, medial, 10.0), -hollow, 10.0) + 2.0 * rough[box]
    f = np.maximum(soft - level(SPLEEN, box, soft, hard[box] < 0), hard[box])
    canvas.labels[box][canvas.paint(box, f < 0, "spleen")] = SPLEEN


def paint_liver(
    canvas: Canvas, rng: np.random.Generator, rough: Array, hard: Array, level: Level
) -> tuple[float, float, float]:
    """The liver fills the right dome down to an oblique visceral surface, with the gallbladder there;
    returns the place of the portal vein's entry.
    """
    box = canvas.box((-150, -105, 10), (130, 90, 230))
    porta = (rng.uniform(-32, -20), rng.uniform(-8, 4), rng.uniform(108, 124))
    u, v, w = canvas.local(box, porta)
    tilt = rng.uniform(0.6, 0.85)
    below = (tilt * u + rng.uniform(0.05, 0.3) * v - w) / 1.3
    # The back surface hardly gives way when the liver is made larger: spine and retroperitoneum are there.
    behind = (v - rng.uniform(22, 34) + rng.uniform(0.6, 0.85) * u) * 2.0
    tip = rng.uniform(35, 95)
    egg = (np.sqrt(((u + 20) / (tip + 48)) ** 2 + ((v + 2) / 98) ** 2 + ((w - 18) / 110) ** 2) - 1) * 75
    coarse = smooth_field(rng, canvas.axes, 50)[box]
    soft = smooth_max(smooth_max(below, behind, 18.0), egg, 25.0) + 2.5 * rough[box] + 4 * coarse
    # The fissure between the lobes, open to below and front.
    cleft = rng.uniform(20, 34)
    fissure = np.maximum(np.abs(u - cleft + 0.2 * v) - 2.2, w - rng.uniform(5, 25))
    soft = smooth_max(soft, -fissure, 4.0)
    gall = np.add(porta, rng.uniform((-22, -40, -32), (-8, -28, -18)))
    turn = rotation(rng.uniform(0.3, 0.8), rng.uniform(-0.3, 0.3), 0)
    gall_box, gall_f = canvas.ellipsoid(gall, np.array([12, 12, 27]) * rng.uniform(0.75, 1.2), turn)
    hard = hard.copy()
    if rng.random() < 0.85:
        canvas.paint(gall_box, (gall_f < 0) & (hard[gall_box] < 0), "gallbladder")
        np.maximum(hard[gall_box], -gall_f, out=hard[gall_box])
    allowed = (hard[box] < 0) & (smooth_max(below, behind, 18.0) < 60)
    f = np.maximum(soft - level(LIVER, box, soft, allowed), hard[box])
    canvas.labels[box][canvas.paint(box, (f < 0) & allowed, "liver")] = LIVER
    return porta


def paint_liver_inside(canvas: Canvas, rng: np.random.Generator, porta: tuple[float, float, float]) -> None:
    """Hepatic and portal veins, and in some patients lesions."""
    caliber = rng.uniform(0.8, 1.25)
    segments: list[tuple[Array, Array]] = []
    radii: list[float] = []
    for root, radius in (((-22.0, -4.0, 192.0), 4.2), (porta, 5.0)):
        for target in rng.uniform((-115, -65, 100), (-30, 55, 195), (4, 3)):
            grow_vessel(rng, np.array(root), target, radius * caliber, 2, segments, radii)
        left = np.array([rng.uniform(10, 40), rng.uniform(-60, -30), rng.uniform(150, 190)])
        grow_vessel(rng, np.array(root), left, radius * caliber * 0.8, 1, segments, radii)
    box, fraction = canvas.tube(np.array(segments), np.array(radii))
    canvas.paint(box, fraction < 1, "liver vessel", over=("liver",))
    # Where two smooth fields are both zero lie curves: the finer branches.
    fine = np.hypot(smooth_field(rng, canvas.axes, 17), smooth_field(rng, canvas.axes, 17))
    canvas.paint((slice(None),) * 3, fine < rng.uniform(0.1, 0.24), "liver vessel", over=("liver",))
    for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.3 else 0):
        at = (rng.uniform(-105, 0), rng.uniform(-50, 40), rng.uniform(110, 195))
        box, lesion = canvas.ellipsoid(at, rng.uniform(4, 18) * rng.uniform(0.8, 1.2, 3))
        canvas.paint(box, lesion < 0, "liver lesion", over=("liver", "liver vessel"))


def grow_vessel(
    rng: np.random.Generator,
    start: Array,
    target: Array,
    radius: float,
    depth: int,
    segments: list[tuple[Array, Array]],
    radii: list[float],
) -> None:
    """Add a vessel from `start` to `target` that bends, thins and sends out branches of its own."""
    length = float(np.linalg.norm(target - start))
    bends = np.linspace(0, 1, 5)[1:, None]
    course = start + (target - start) * bends + rng.normal(0, 0.07 * length, (4, 3))
    for end in course:
        segments.append((start, end))
        radii.append(radius)
        start, radius = end, radius * 0.82
        if depth > 1:
            aside = start + rng.normal(0, 0.3 * length, 3) + 0.15 * (target - start)
            grow_vessel(rng, start, aside, radius * 0.7, depth - 1, segments, radii)
