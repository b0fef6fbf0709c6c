"""A shaded picture of labelled organs as smooth surfaces, without a graphics library.

Each organ becomes a smooth distance field, interpolated between slices by shape, so that thick slices
leave no terraces. Parallel rays are marched to its surface, and what they hit is lit by the field's
gradient. A depth buffer decides between organs and darkens the creases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

AZIMUTH_DEGREES = 14.0
ELEVATION_DEGREES = 12.0

_SUPERSAMPLING = 2
_SMOOTHING_MM = 2.2
_FINEST_STEP_MM = 1.5
_MAX_FIELD_VOXELS = 600_000
# Distances are cut here: between slices the outline may jump this far and still be interpolated.
_FARTHEST_MM = 40.0
# Around an organ, in its field, and around all of them, in the picture.
_MARGIN_MM = 6.0
_FRAME_SHARE = 0.04
# Between slices a distance can change faster than the ray advances, so a ray takes part of it only.
_ADVANCE = 0.75
_CREASE_MM = 7.0
# In camera axes (right, up, towards the scene): key light from the upper left, a weak fill from the right.
_KEY_LIGHT = np.array([-0.45, 0.60, -0.66])
_FILL_LIGHT = np.array([0.75, -0.10, -0.65])


@dataclass(frozen=True)
class _Field:
    """Smooth signed distances from the surface of one organ, on cubic voxels.

    Attributes:
        array: mm, positive inside, `(z, y, x)`.
        level: Where the surface is: 0, or less for an organ so thin that smoothing would lose it.
        corner: Position `(z, y, x)` of voxel 0 in mm.
        step: Voxel size in mm.
    """

    array: np.ndarray
    level: float
    corner: np.ndarray
    step: float

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Values at `(3, n)` points `(z, y, x)` in mm."""
        index = (points - self.corner[:, None]) / self.step
        return ndimage.map_coordinates(self.array, index, order=1, mode="nearest", prefilter=False)

    def gradient(self, points: np.ndarray) -> np.ndarray:
        """Unit normals pointing out of the organ, `(3, n)` in `(z, y, x)`."""
        normals = np.empty_like(points)
        for axis in range(3):
            offset = np.zeros((3, 1), dtype=points.dtype)
            offset[axis] = self.step
            normals[axis] = self.sample(points - offset) - self.sample(points + offset)
        return normals / np.maximum(np.linalg.norm(normals, axis=0), 1e-6)


def render_surfaces(
    labels: np.ndarray,
    spacing: tuple[float, float, float],
    colours: Mapping[int, tuple[float, float, float]],
    size: tuple[int, int],
    *,
    background: tuple[float, float, float],
) -> np.ndarray:
    """Draw the organs as seen from the front, the patient's right on the left, slightly turned.

    Args:
        labels: Labels on the canonical axial stack, `(z, y, x)`.
        spacing: Voxel size `(z, y, x)` in mm.
        colours: Label number to red, green, blue, each 0 to 1; other labels are not drawn.
        size: Width and height in pixels.
        background: Red, green, blue, each 0 to 1.

    Returns:
        `(height, width, 3)` uint8; background only when no organ is present.
    """
    width, height = (n * _SUPERSAMPLING for n in size)
    boxes = ndimage.find_objects(labels)
    present = {v: boxes[v - 1] for v in colours if 0 < v <= len(boxes) and boxes[v - 1] is not None}
    camera = _camera_axes()
    picture = np.broadcast_to(np.array(background, dtype=np.float32), (height, width, 3)).copy()
    if present:
        origin, mm_per_pixel = _frame(labels, spacing, present, camera, width, height)
        depth = np.full((height, width), np.inf, dtype=np.float32)
        for value, box in present.items():
            field = _organ_field(labels[box] == value, [s.start for s in box], spacing)
            _draw(field, colours[value], camera, origin, mm_per_pixel, picture, depth)
        _darken_creases(picture, depth, mm_per_pixel)
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def _camera_axes() -> np.ndarray:
    """Rows right, up, forward as unit vectors `(z, y, x)`."""
    azimuth, elevation = np.radians([AZIMUTH_DEGREES, ELEVATION_DEGREES])
    # The camera stands in front of the patient, moved towards the patient's left and up.
    forward = np.array(
        [-np.sin(elevation), np.cos(elevation) * np.cos(azimuth), -np.cos(elevation) * np.sin(azimuth)]
    )
    right = np.array([0.0, np.sin(azimuth), np.cos(azimuth)])
    up = np.array(
        [np.cos(elevation), np.sin(elevation) * np.cos(azimuth), -np.sin(elevation) * np.sin(azimuth)]
    )
    return np.stack([right, up, forward]).astype(np.float32)


def _organ_field(mask: np.ndarray, start: list[int], spacing: tuple[float, float, float]) -> _Field:
    voxel = np.array(spacing)
    margin = np.array([spacing[0], _MARGIN_MM, _MARGIN_MM])
    extent = (np.array(mask.shape) - 1) * voxel + 2 * margin
    step = max(_FINEST_STEP_MM, float((np.prod(extent) / _MAX_FIELD_VOXELS) ** (1 / 3)))
    shape = np.ceil(extent / step).astype(int) + 1
    in_plane = _resample(
        mask.astype(np.float32),
        voxel / [voxel[0], step, step],
        margin * [0, 1, 1] / voxel,
        (mask.shape[0], *shape[1:]),
        mode="constant",
    )
    distance = _slice_distances(in_plane > 0.5 * min(1.0, float(in_plane.max())), step)
    # The caps: past the end the shape shrinks so that its thickest place ends a whole slice further.
    first, last = (distance[n] - max(float(distance[n].max()), step) for n in (0, -1))
    distance = np.concatenate([first[None], distance, last[None]])
    array = _resample(distance, np.array([voxel[0] / step, 1, 1]), np.zeros(3), tuple(shape), mode="nearest")
    array = ndimage.gaussian_filter(array, _SMOOTHING_MM / step, truncate=3)
    low = np.array(start) * voxel - margin
    return _Field(array, min(0.0, float(array.max()) - 0.5 * step), low.astype(np.float32), step)


def _resample(
    array: np.ndarray, factors: np.ndarray, before: np.ndarray, shape: tuple[int, ...], *, mode: str
) -> np.ndarray:
    """Linear resampling to `factors` times as many voxels per axis, starting `before` voxels early."""
    return ndimage.affine_transform(
        array, 1 / factors, offset=-before, output_shape=shape, order=1, mode=mode, prefilter=False
    )


def _slice_distances(mask: np.ndarray, step: float) -> np.ndarray:
    """Signed distance in mm to the outline within each slice, positive inside, `(z, y, x)`."""
    distance = np.full(mask.shape, -_FARTHEST_MM, dtype=np.float32)
    for n in np.flatnonzero(mask.any(axis=(1, 2))):
        inside = ndimage.distance_transform_edt(mask[n])
        outside = ndimage.distance_transform_edt(~mask[n])
        distance[n] = np.where(mask[n], inside - 0.5, 0.5 - outside) * step
    return np.maximum(distance, -_FARTHEST_MM)


def _frame(
    labels: np.ndarray,
    spacing: tuple[float, float, float],
    boxes: Mapping[int, tuple[slice, ...]],
    camera: np.ndarray,
    width: int,
    height: int,
) -> tuple[np.ndarray, float]:
    """Position `(z, y, x)` in mm behind the top left pixel, and mm per pixel, so that all organs fit."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for value, box in boxes.items():
        thin = tuple(slice(s.start, s.stop, max(1, (s.stop - s.start) // 48)) for s in box)
        points = (
            np.argwhere(labels[thin] == value) * [s.step for s in thin] + [s.start for s in thin]
        ) * spacing
        if points.size == 0:
            points = np.array([[s.start for s in box], [s.stop - 1 for s in box]]) * spacing
        projected = points @ camera.T
        low, high = np.minimum(low, projected.min(axis=0)), np.maximum(high, projected.max(axis=0))
    extent = np.maximum(high - low + 2 * max(spacing), 20.0)
    mm_per_pixel = float(max(extent[0] / width, extent[1] / height) * (1 + 2 * _FRAME_SHARE))
    centre = (low + high) / 2
    corner = [centre[0] - mm_per_pixel * width / 2, centre[1] + mm_per_pixel * height / 2, low[2] - 50.0]
    return (np.array(corner) @ camera).astype(np.float32), mm_per_pixel


def _draw(
    field: _Field,
    colour: tuple[float, float, float],
    camera: np.ndarray,
    origin: np.ndarray,
    mm_per_pixel: float,
    picture: np.ndarray,
    depth: np.ndarray,
) -> None:
    height, width = depth.shape
    right, up, forward = camera
    low, high = field.corner, field.corner + (np.array(field.array.shape, dtype=np.float32) - 1) * field.step
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T - origin
    columns, rows = corners @ right / mm_per_pixel, -(corners @ up) / mm_per_pixel
    x0, x1 = max(0, int(columns.min())), min(width, int(columns.max()) + 1)
    y0, y1 = max(0, int(rows.min())), min(height, int(rows.max()) + 1)
    y, x = (n.ravel() for n in np.mgrid[y0:y1, x0:x1].astype(np.int32))
    starts = origin[:, None] + mm_per_pixel * (right[:, None] * (x + 0.5) - up[:, None] * (y + 0.5))
    starts = starts.astype(np.float32)
    with np.errstate(divide="ignore"):
        first = (low[:, None] - starts) / forward[:, None]
        second = (high[:, None] - starts) / forward[:, None]
    enter = np.minimum(first, second).max(axis=0)
    leave = np.minimum(np.maximum(first, second).min(axis=0), depth[y, x])
    ray, distance = _march(field, starts, forward, enter, leave)
    points = starts[:, ray] + distance * forward[:, None]
    shade = _shade(camera @ field.gradient(points), np.array(colour, dtype=np.float32))
    picture[y[ray], x[ray]] = shade
    depth[y[ray], x[ray]] = distance


def _march(
    field: _Field, starts: np.ndarray, forward: np.ndarray, enter: np.ndarray, leave: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rays that reach the surface between `enter` and `leave`, and the distances in mm."""
    ray = np.flatnonzero(enter < leave)
    distance, end = enter[ray], leave[ray]
    previous_distance, previous_value = distance, np.full_like(distance, field.level - field.step)
    hit_rays, hit_distances = [], []
    while ray.size:
        value = field.sample(starts[:, ray] + distance * forward[:, None])
        inside = value >= field.level
        if inside.any():
            below, above = previous_value[inside], value[inside]
            share = (field.level - below) / np.maximum(above - below, 1e-6)
            hit_rays.append(ray[inside])
            begin = previous_distance[inside]
            hit_distances.append(begin + np.clip(share, 0, 1) * (distance[inside] - begin))
        advanced = distance + np.maximum((field.level - value) * _ADVANCE, 0.7 * field.step)
        going = ~inside & (advanced < end)
        previous_distance, previous_value = distance[going], value[going]
        ray, distance, end = ray[going], advanced[going], end[going]
    if not hit_rays:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.float32)
    return np.concatenate(hit_rays), np.concatenate(hit_distances)


def _shade(normals: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Colours `(n, 3)` for normals `(3, n)` in camera axes."""
    key = _KEY_LIGHT / np.linalg.norm(_KEY_LIGHT)
    fill = _FILL_LIGHT / np.linalg.norm(_FILL_LIGHT)
    view = np.array([0.0, 0.0, -1.0])
    halfway = (key + view) / np.linalg.norm(key + view)
    # Wrapped light: it fades out behind the terminator instead of stopping there, as on soft tissue.
    diffuse = np.clip((key @ normals + 0.25) / 1.25, 0, 1)
    light = 0.26 + 0.74 * diffuse + 0.20 * np.clip(fill @ normals, 0, 1)
    specular = 0.22 * np.clip(halfway @ normals, 0, 1) ** 40
    rim = 0.10 * (1 - np.clip(view @ normals, 0, 1)) ** 3
    return (light[:, None] * colour + (specular + rim)[:, None]).astype(np.float32)


def _darken_creases(picture: np.ndarray, depth: np.ndarray, mm_per_pixel: float) -> None:
    """Darken what lies behind its surroundings (T. Luft et al., 2006: unsharp masking of the depth buffer)."""
    covered = np.isfinite(depth)
    if not covered.any():
        return
    # At a quarter of the resolution, as the blur is far wider than a pixel.
    weight = covered[::4, ::4].astype(np.float32)
    surface = np.where(covered, depth, 0).astype(np.float32)[::4, ::4]
    sigma = _CREASE_MM / (4 * mm_per_pixel)
    blurred = ndimage.gaussian_filter(surface, sigma) / np.maximum(
        ndimage.gaussian_filter(weight, sigma), 1e-3
    )
    size = (depth.shape[1], depth.shape[0])
    around = np.asarray(Image.fromarray(blurred).resize(size, Image.Resampling.BILINEAR))
    behind = np.clip((depth[covered] - around[covered]) / 30.0, 0, 1)
    picture[covered] *= (1 - 0.6 * behind)[:, None]
