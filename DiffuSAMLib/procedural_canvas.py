"""The grid on which a procedural abdomen is painted, and the implicit solids it is painted with.

Everything is a function in the frame of a reference patient (millimetres; x to the patient's left, y to
posterior, z to superior; x = 0 on the spine, z = 0 at the iliac crests, z = 240 above the liver), reached
from the world by a scale and a smooth random displacement. No anatomy is drawn at random per voxel, so one
seed is one patient whatever the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage, sparse

Array = np.ndarray
Box = tuple[slice, slice, slice]

_NAMES = """air, skin, body fat, visceral fat, muscle, bone, bone marrow, ribs, intervertebral disc,
spinal canal, lung, heart, aorta, inferior vena cava, liver, liver vessel, liver lesion, gallbladder,
spleen, kidney, kidney medulla, kidney sinus, kidney cyst, stomach, stomach content, bowel, bowel content,
bowel gas, pancreas, vessel, esophagus, table"""
TISSUE_NAMES: dict[int, str] = dict(enumerate(" ".join(_NAMES.split()).split(", ")))
TISSUE: dict[str, int] = {name: index for index, name in TISSUE_NAMES.items()}
SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, LIVER = 1, 2, 3, 4
VOLUME_RANGES_ML = {
    SPLEEN: (110, 390),
    RIGHT_KIDNEY: (125, 195),
    LEFT_KIDNEY: (125, 195),
    LIVER: (1230, 1770),
}

# The box in world mm over which random fields have control points; beyond it they stay constant.
_DOMAIN = ((-80.0, 320.0), (-220.0, 220.0), (-220.0, 220.0))
_MAX_SHIFT_MM = 14.0


def spline_basis(points: Array, low: float, high: float, count: int) -> sparse.csr_array:
    """Uniform cubic B-spline weights, `(len(points), count)` float32; points outside are clamped.

    Sparse, because four weights a row need no BLAS, whose threads fight with a training run's for the cores.
    """
    t = np.clip((np.asarray(points, np.float64) - low) / (high - low), 0, 1 - 1e-9) * (count - 3)
    start = t.astype(int)
    u = t - start
    weights = [
        (1 - u) ** 3 / 6,
        (3 * u**3 - 6 * u**2 + 4) / 6,
        (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6,
        u**3 / 6,
    ]
    columns = start[:, None] + np.arange(4)
    data = np.stack(weights, 1).astype(np.float32)
    return sparse.csr_array((data.ravel(), columns.ravel(), np.arange(len(t) + 1) * 4), shape=(len(t), count))


def smooth_field(rng: np.random.Generator, axes: Sequence[Array], scale_mm: float) -> Array:
    """A smooth random field of mean 0 and deviation near 1, `(z, y, x)` float32.

    Args:
        rng: The source of the control values; how much it draws does not depend on the axes.
        axes: World positions in mm along z, y and x.
        scale_mm: Distance of the control points.

    """
    counts = [max(4, round((high - low) / scale_mm) + 3) for low, high in _DOMAIN]
    out = rng.standard_normal((counts[1], counts[2], counts[0]), dtype=np.float32) * 3.0
    for k in (1, 2, 0):  # the axis at hand comes first and goes to the end, z last of all
        basis = spline_basis(axes[k], *_DOMAIN[k], counts[k])
        rest = out.shape[1:]
        out = (basis @ out.reshape(counts[k], -1)).reshape(len(axes[k]), *rest)
        if k:
            out = np.ascontiguousarray(np.moveaxis(out, 0, -1))
    return out


def smooth_max(a: Array, b: Array, width: float) -> Array:
    """A maximum with its crease rounded over `width` mm: solids meet in a soft edge."""
    h = np.maximum(width - np.abs(a - b), 0) / width
    return np.maximum(a, b) + h * h * (width / 4)


def rotation(ax: float, ay: float, az: float) -> Array:
    """Rotation matrix from angles in radians about x, y and z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([ax, ay, az]), np.sin([ax, ay, az])
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return rz @ ry @ rx


@dataclass
class Body:
    """What makes one patient differ from the next at large.

    Args:
        scale: World mm per reference mm along (x, y, z).
        fat_mm: Thickness of the subcutaneous fat.
        exponent: Of the superellipse that is the outline: 2 is an ellipse, more is boxier.
        waist: Share by which the waist is narrower.
        offset: World mm along (x, y, z) by which the patient lies off centre.

    """

    scale: tuple[float, float, float]
    fat_mm: float
    exponent: float
    waist: float
    offset: tuple[float, float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Body:
        width = rng.uniform(122, 150)
        depth = width * rng.uniform(0.67, 0.8)
        fat = 4 + 28 * rng.beta(1.4, 2.2)
        fat = min(fat, 166 - width)
        scale = (width / 140, depth / 98, rng.uniform(0.92, 1.08))
        offset = (rng.uniform(-6, 6), rng.uniform(-10, 6), rng.uniform(-12, 12))
        return cls(scale, fat, rng.uniform(2.15, 2.7), rng.uniform(0.0, 0.07), offset)


@dataclass
class Canvas:
    """A grid on which tissues are painted, with each voxel's place in the reference patient."""

    axes: tuple[Array, Array, Array]
    body: Body
    rng: np.random.Generator
    x: Array = field(init=False)
    y: Array = field(init=False)
    z: Array = field(init=False)
    tissue: Array = field(init=False)
    labels: Array = field(init=False)
    shade: Array = field(init=False)

    def __post_init__(self) -> None:
        (sx, sy, sz), (ox, oy, oz) = self.body.scale, self.body.offset
        self._centre_axes = (
            ((self.axes[0] - 120 - oz) / sz + 120).astype(np.float32),
            ((self.axes[1] - oy) / sy).astype(np.float32),
            ((self.axes[2] - ox) / sx).astype(np.float32),
        )
        z, y, x = (
            a.reshape(s) for a, s in zip(self._centre_axes, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
        )
        shifts = self._shift(4.0), self._shift(4.5), self._shift(4.5)
        self._reach = [float(np.abs(s).max()) for s in shifts]
        self.z, self.y, self.x = z + shifts[0], y + shifts[1], x + shifts[2]
        shape = self.x.shape
        self.tissue = np.zeros(shape, np.uint8)
        self.labels = np.zeros(shape, np.uint8)
        self.shade = np.zeros(shape, np.float32)

    def _shift(self, amount: float) -> Array:
        coarse, fine = smooth_field(self.rng, self.axes, 75), smooth_field(self.rng, self.axes, 32)
        return np.clip(amount * coarse + 0.3 * amount * fine, -_MAX_SHIFT_MM, _MAX_SHIFT_MM)

    def box(self, low: Sequence[float], high: Sequence[float]) -> Box:
        """The part of the grid that can hold points between two corners (x, y, z)."""
        parts = []
        for axis, a, b, reach in zip(self._centre_axes, low[::-1], high[::-1], self._reach, strict=True):
            start = int(np.searchsorted(axis, a - reach))
            parts.append(slice(start, max(start, int(np.searchsorted(axis, b + reach)))))
        return parts[0], parts[1], parts[2]

    def local(
        self, box: Box, centre: Sequence[float] | Array, turn: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Coordinates (u, v, w) about `centre`, in axes given by the columns of `turn`."""
        p = (self.x[box] - centre[0], self.y[box] - centre[1], self.z[box] - centre[2])
        if turn is None:
            return p
        m = turn.astype(np.float32)
        u, v, w = (m[0, k] * p[0] + m[1, k] * p[1] + m[2, k] * p[2] for k in range(3))
        return u, v, w

    def ellipsoid(
        self, centre: Sequence[float] | Array, radii: Sequence[float] | Array, turn: Array | None = None
    ) -> tuple[Box, Array]:
        """An ellipsoid's box and its level function, about mm from the surface and negative inside."""
        reach = max(radii) if turn is not None else np.asarray(radii, float)
        box = self.box(list(np.asarray(centre) - reach), list(np.asarray(centre) + reach))
        u, v, w = self.local(box, centre, turn)
        norm = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
        return box, (norm - 1) * float(np.mean(radii))

    def tube(self, points: Array, radii: Array | float) -> tuple[Box, Array]:
        """A tube's box and each voxel's distance from the centre line as a fraction of the radius.

        Args:
            points: `(n, 3)` centre line (x, y, z), or `(m, 2, 3)` separate segments.
            radii: mm, one for all or one per point (per segment for separate segments).

        """
        points = np.asarray(points, np.float32)
        segments = points if points.ndim == 3 else np.stack([points[:-1], points[1:]], 1)
        radii = np.broadcast_to(np.asarray(radii, np.float32), (len(points),))
        reach = float(radii.max())
        flat = segments.reshape(-1, 3)
        whole = self.box(list(flat.min(0) - reach), list(flat.max(0) + reach))
        fraction = np.full(self.x[whole].shape, 9.0, np.float32)
        for k, (a, b) in enumerate(segments):
            r0, r1 = (radii[k], radii[k]) if points.ndim == 3 else (radii[k], radii[k + 1])
            r = max(r0, r1)
            box = self.box(list(np.minimum(a, b) - r), list(np.maximum(a, b) + r))
            u, v, w = self.local(box, a)
            d = b - a
            t = np.clip((u * d[0] + v * d[1] + w * d[2]) / max(float(d @ d), 1e-6), 0, 1)
            distance = np.sqrt((u - t * d[0]) ** 2 + (v - t * d[1]) ** 2 + (w - t * d[2]) ** 2)
            part = tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(box, whole, strict=True))
            np.minimum(fraction[part], distance / (r0 + t * (r1 - r0)), out=fraction[part])
        return whole, fraction

    def paint(
        self,
        box: Box,
        inside: Array,
        tissue: str,
        *,
        over: Sequence[str] = ("visceral fat",),
        shade: float = 0.0,
    ) -> Array:
        """Paint a tissue where it may go, and return the mask of what was painted (in the box)."""
        old = self.tissue[box]
        free = old == TISSUE[over[0]]
        for name in over[1:]:
            free |= old == TISSUE[name]
        free &= inside
        old[free] = TISSUE[tissue]
        if shade:
            self.shade[box][free] = shade
        return free


def soften(array: np.ndarray, spacing_sigma: tuple[float, float]) -> np.ndarray:
    """A slight blur: `(sigma in plane, sigma across slices)` in voxels."""
    for axis, sigma in ((2, spacing_sigma[0]), (1, spacing_sigma[0]), (0, spacing_sigma[1])):
        array = ndimage.gaussian_filter1d(array, sigma, axis=axis, truncate=2.5)
    return array


def grainy_noise(rng: np.random.Generator, shape: tuple[int, ...], grain: float) -> np.ndarray:
    """Unit noise with a grain of about `grain` voxels in plane."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if grain > 0.2:
        noise = ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(noise, grain, axis=2), grain, axis=1)
        noise /= noise.std()
    return noise


def by_tissue(values: dict[str, float]) -> np.ndarray:
    """Values by the name of a tissue as a table by its number."""
    return np.array([values[TISSUE_NAMES[k]] for k in range(len(TISSUE_NAMES))], np.float32)
