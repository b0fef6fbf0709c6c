"""What fills a procedural abdomen between the organs: stomach, bowel, pancreas and small vessels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .procedural_canvas import Array, Canvas, smooth_field

# (centre line, radius) -> the line moved off the organs.
Clear = Callable[[Array, Array | float], Array]


def paint_stomach(canvas: Canvas, rng: np.random.Generator) -> None:
    """A bag under the left dome that narrows towards the right, with fluid or contrast and air in front."""
    shift = rng.normal(0, 5, 3)
    size = rng.uniform(0.8, 1.15)
    line = np.array([[50, 16, 182], [56, 0, 158], [44, -28, 128], [14, -40, 112], [-14, -22, 112]]) + shift
    box, fraction = canvas.tube(line, np.array([30, 33, 25, 16, 9]) * size)
    wall = rng.uniform(0.82, 0.9)
    mine = canvas.paint(box, fraction < 1, "stomach")
    content = mine & (fraction < wall)
    canvas.paint(box, content, "stomach content", over=("stomach",), shade=rng.uniform(0.01, 1))
    surface = shift[1] + rng.uniform(-60, -5)
    canvas.paint(box, content & (canvas.y[box] < surface), "bowel gas", over=("stomach content",))


def paint_small_vessels(canvas: Canvas, rng: np.random.Generator) -> None:
    """Pancreas with splenic vein, renal and mesenteric vessels, adrenal-like strands, portal trunk."""
    wobble = rng.normal(0, 5, (5, 3))
    line = np.array([[-28, -8, 98], [-22, -12, 116], [8, -16, 124], [38, 2, 132], [66, 20, 142]]) + wobble
    box, fraction = canvas.tube(line, np.array([15, 12, 9, 10, 8]) * rng.uniform(0.8, 1.15))
    lobules = 0.22 * smooth_field(rng, canvas.axes, 9)[box]
    canvas.paint(box, fraction + lobules < 1, "pancreas")
    veins = [
        (line + np.array([0, 11, 2]), 4.5),
        (np.array([[-24, -2, 138], [-14, -4, 122], [-8, -10, 90], [-6, -22, 50], [0, -30, 20]]), 5.0),
        (np.array([[8, 6, 130], [6, -8, 108], [4, -16, 70], [-4, -24, 30]]), 3.2),
        (np.array([[-40, 36, 100], [-22, 20, 104]]), 4.0),
        (np.array([[44, 38, 110], [20, 6, 112], [-20, 16, 112]]), 4.0),
        (np.array([[40, 40, 106], [6, 20, 108], [-38, 38, 98]]), 2.6),
    ]
    for points, radius in veins:
        box, fraction = canvas.tube(points + rng.normal(0, 2, points.shape), radius)
        canvas.paint(box, fraction < 1, "vessel", over=("visceral fat", "pancreas"))
    for side in (-1, 1):
        base = np.array([side * 38, 34, 140 if side < 0 else 148])
        box, fraction = canvas.tube(base + np.array([[0, 0, -14], [side * -5, 6, 12]]), 2.8)
        canvas.paint(box, fraction < 1, "pancreas")
    for _ in range(16):
        start = np.array([rng.uniform(-40, 40), rng.uniform(-40, 0), rng.uniform(20, 100)])
        steps = np.cumsum(rng.normal((0, -4, -6), 14, (4, 3)), 0)
        box, fraction = canvas.tube(np.vstack([start, start + steps]), rng.uniform(1.4, 2.6))
        canvas.paint(box, fraction < 1, "vessel")


def paint_loop(
    canvas: Canvas,
    rng: np.random.Generator,
    line: Array,
    radius: Array | float,
    *,
    gas: float,
    wall_mm: float,
) -> None:
    """A piece of bowel: wall, mottled content, and air in front in a share `gas` of the cases."""
    radius = np.asarray(radius, float)
    box, fraction = canvas.tube(line, radius)
    mine = canvas.paint(box, fraction < 1, "bowel")
    lumen = mine & (fraction < 1 - wall_mm / float(radius.mean()))
    canvas.paint(box, lumen, "bowel content", over=("bowel",), shade=rng.uniform(0.01, 1))
    if rng.random() < gas:
        level = float(line[:, 1].mean()) + rng.uniform(-1.0, 0.8) * float(radius.mean())
        canvas.paint(box, lumen & (canvas.y[box] < level), "bowel gas", over=("bowel content",))


def paint_colon(canvas: Canvas, rng: np.random.Generator, clear: Clear) -> None:
    """Ascending, transverse and descending colon in pieces, each with its own filling and haustra."""
    sag = rng.uniform(40, 95)
    course = np.array(
        [
            [-68, -14, -40], [-75, -10, 0], [-96, 6, 40], [-92, 6, 72], [-80, -28, 88], [-50, -56, sag + 12],
            [-8, -64, sag], [36, -60, sag + 14], [74, -34, 118], [92, -2, 142], [100, 14, 118], [104, 22, 80],
            [100, 20, 40], [80, -4, 0], [70, -6, -40],
        ],
        float,
    )  # fmt: skip
    course += rng.normal(0, 5, course.shape)
    fine = np.linspace(0, len(course) - 1, 57)
    line = np.stack([np.interp(fine, np.arange(len(course)), course[:, k]) for k in range(3)], 1)
    width = np.interp(fine, [0, 16, 30, 40, 56], [24, 21, 19, 16, 13]) * rng.uniform(0.75, 1.15)
    line = clear(line, 0.9 * width)
    width *= 1 + 0.16 * np.cos(np.arange(57) * np.pi)
    for start in range(0, 56, 7):
        piece = slice(start, start + 8)
        paint_loop(canvas, rng, line[piece], width[piece], gas=0.5, wall_mm=2.0)
    mottle = smooth_field(rng, canvas.axes, 9)
    everywhere = (slice(None),) * 3
    canvas.paint(everywhere, mottle > rng.uniform(1.4, 2.4), "bowel gas", over=("bowel content",))


def paint_small_bowel(canvas: Canvas, rng: np.random.Generator, clear: Clear) -> None:
    """Random loops in the lower and middle belly, the duodenum first."""
    duodenum = np.array(
        [
            [-16, -20, 112],
            [-40, -8, 108],
            [-46, 4, 85],
            [-38, 8, 62],
            [-8, 2, 56],
            [24, -2, 66],
            [34, -14, 92],
        ]
    )
    paint_loop(
        canvas, rng, duodenum + rng.normal(0, 3, duodenum.shape), rng.uniform(9, 13), gas=0.3, wall_mm=2.5
    )
    for _ in range(int(rng.integers(22, 34))):
        point = np.array([rng.uniform(-75, 90), rng.uniform(-64, 12), rng.uniform(-30, 105)])
        heading = rng.normal(0, 1, 3)
        points = [point]
        for _ in range(9):
            heading = heading / np.linalg.norm(heading) + rng.normal(0, 0.55, 3)
            # Loops turn back before the wall, the spine and the upper abdomen.
            heading -= 0.9 * ((point - (8, -28, 40)) / (80, 38, 72)) ** 3
            point = point + heading / np.linalg.norm(heading) * 13
            points.append(point)
        radius = rng.uniform(8, 13.5)
        paint_loop(canvas, rng, clear(np.array(points), radius), radius, gas=0.25, wall_mm=2.2)


def paint_table(canvas: Canvas, rng: np.random.Generator) -> None:
    """A curved couch under the back, outside the body."""
    sy = canvas.body.scale[1]
    below = (98 + canvas.body.fat_mm * 1.35) * sy + canvas.body.offset[1] + rng.uniform(4, 16)
    bow = rng.uniform(0.0002, 0.0016)
    _, y, x = canvas.axes
    surface = below - bow * x * x
    gap = np.abs(y[:, None] - surface[None, :]) < rng.uniform(1.2, 2.5)
    gap &= np.abs(x)[None, :] < rng.uniform(170, 260)
    canvas.paint((slice(None),) * 3, np.broadcast_to(gap, canvas.tissue.shape), "table", over=("air",))
