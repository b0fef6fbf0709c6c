"""A picture of a result: axial and coronal slices with outlines, the organs in 3D, and their volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from .files import atomic_path
from .surface_rendering import render_surfaces
from .volume_text import volume_text

if TYPE_CHECKING:
    from .geometry import Geometry

PREVIEW_ENDINGS = (".png",)
BACKGROUND = (0.055, 0.063, 0.078)
TEXT = (226, 230, 236)
FAINT_TEXT = (128, 136, 148)
PANEL_WIDTH = 560
SURFACE_WIDTH = 700
MIN_PANEL_HEIGHT = 160
MAX_PANEL_HEIGHT = 800
MIN_LOWER_HEIGHT = 370
LEGEND_WIDTH = 2 * PANEL_WIDTH - SURFACE_WIDTH
GAP = 10
FILL_OPACITY = 0.4
OUTLINE_PIXELS = 1.8
# What the coronal panel shows above and below the organs.
CORONAL_MARGIN_MM = 35.0
BODY_MARGIN_MM = 8.0
# Anything brighter than this, of 1, belongs to the patient when the panels are cropped.
BODY_INTENSITY = 0.06


class Segment(Protocol):
    """One organ of a label map."""

    @property
    def name(self) -> str: ...

    @property
    def value(self) -> int: ...

    @property
    def color(self) -> tuple[float, float, float]:
        """Red, green, blue, each 0 to 1."""
        ...


def write_preview(
    path: Path, image01: np.ndarray, labels: np.ndarray, geometry: Geometry, segments: Sequence[Segment]
) -> None:
    """Write the preview of a result as a PNG file.

    Args:
        path: The PNG file; appears only when complete.
        image01: Intensities on the canonical axial stack, `(z, y, x)`, 0 to 1.
        labels: Labels on the same grid, uint8.
        geometry: The canonical geometry of both.
        segments: The organs to show, in the order of the legend.

    Raises:
        OutputError: The file cannot be written.
        ValueError: A colour is not in 0 to 1.
    """
    picture = draw_preview(image01, labels, geometry, segments)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def draw_preview(
    image01: np.ndarray, labels: np.ndarray, geometry: Geometry, segments: Sequence[Segment]
) -> Image.Image:
    """Draw the picture that `write_preview` writes; the arguments are the same.

    Raises:
        ValueError: A colour is not in 0 to 1.
    """
    for segment in segments:
        if not all(0 <= channel <= 1 for channel in segment.color):
            raise ValueError(f"the colour of {segment.name!r} must be in 0 to 1, not {segment.color}")
    spacing = (geometry.spacing[2], geometry.spacing[1], geometry.spacing[0])
    rows, columns = _body_box(image01, labels, spacing)
    axial = [
        _axial_panel(image01, labels, geometry, segments, z, rows, columns) for z in _axial_positions(labels)
    ]
    if image01.shape[0] == 1:
        legend = _legend_panel(labels, geometry, segments, axial[0].height)
        return _arrange([[axial[0], legend]])
    coronal = _coronal_panel(image01, labels, spacing, segments, columns)
    height = max(coronal.height, MIN_LOWER_HEIGHT)
    lower = [_centred(coronal, PANEL_WIDTH, height), _surface_panel(labels, spacing, segments, height)]
    lower.append(_legend_panel(labels, geometry, segments, height))
    return _arrange([axial, lower])


def _axial_panel(
    image01: np.ndarray,
    labels: np.ndarray,
    geometry: Geometry,
    segments: Sequence[Segment],
    z: int,
    rows: slice,
    columns: slice,
) -> Image.Image:
    spacing = (geometry.spacing[1], geometry.spacing[0])
    panel = _overlay(image01[z, rows, columns], labels[z, rows, columns], spacing, segments)
    centre = [geometry.shape[2] / 2 - 0.5, geometry.shape[1] / 2 - 0.5, z, 1]
    superior = float((geometry.matrix @ centre)[2])
    caption = f"{'S' if superior >= 0 else 'I'} {abs(superior):.0f} mm"
    _write_on(panel, (12, 10), caption, 16, "la")
    _draw_sides(panel)
    return panel


def _coronal_panel(
    image01: np.ndarray,
    labels: np.ndarray,
    spacing: tuple[float, float, float],
    segments: Sequence[Segment],
    columns: slice,
) -> Image.Image:
    y = int(_organ_weights(labels, axis=1).argmax()) if labels.any() else labels.shape[1] // 2
    slices = _coronal_range(labels, spacing[0])
    # Rows run from superior, at the top, to inferior.
    image = image01[slices, y, columns][::-1]
    panel = _overlay(image, labels[slices, y, columns][::-1], (spacing[0], spacing[2]), segments)
    _write_on(panel, (12, 10), "Coronal", 16, "la")
    _draw_sides(panel)
    return panel


def _surface_panel(
    labels: np.ndarray, spacing: tuple[float, float, float], segments: Sequence[Segment], height: int
) -> Image.Image:
    colours = {segment.value: segment.color for segment in segments}
    picture = render_surfaces(labels, spacing, colours, (SURFACE_WIDTH, height), background=BACKGROUND)
    panel = Image.fromarray(picture)
    draw = ImageDraw.Draw(panel)
    if np.isin(labels, list(colours)).any():
        _draw_sides(panel)
    else:
        draw.text(
            (SURFACE_WIDTH / 2, height / 2), "No organ found", fill=FAINT_TEXT, font=_font(22), anchor="mm"
        )
    return panel


def _legend_panel(
    labels: np.ndarray, geometry: Geometry, segments: Sequence[Segment], height: int
) -> Image.Image:
    panel = Image.new("RGB", (LEGEND_WIDTH, height), _rgb(BACKGROUND))
    draw = ImageDraw.Draw(panel)
    line = min(46, (height - 60) // max(len(segments), 1))
    font = _font(max(9, min(22, int(line * 0.5))))
    y = (height - line * len(segments)) / 2 + line / 2
    for segment in segments:
        voxels = int(np.count_nonzero(labels == segment.value))
        volume, found = voxels * geometry.voxel_volume_ml, voxels > 0
        radius = line * 0.2
        draw.ellipse(
            (48 - radius, y - radius, 48 + radius, y + radius),
            fill=_rgb(segment.color) if found else None,
            outline=_rgb(segment.color),
            width=2,
        )
        text = TEXT if found else FAINT_TEXT
        amount = f"{volume_text(volume)} ml" if found else "not found"
        draw.text((76, y), segment.name.capitalize(), fill=text, font=font, anchor="lm")
        draw.text((LEGEND_WIDTH - 40, y), amount, fill=text, font=font, anchor="rm")
        y += line
    draw.text((48, height - 16), "Not for clinical use", fill=FAINT_TEXT, font=_font(14), anchor="ls")
    return panel


def _overlay(
    image: np.ndarray,
    labels: np.ndarray,
    spacing: tuple[float, float],
    segments: Sequence[Segment],
) -> Image.Image:
    """A slice at its true proportions, with the organs filled lightly and outlined, and a scale bar."""
    height_mm, width_mm = image.shape[0] * spacing[0], image.shape[1] * spacing[1]
    pixels_per_mm = min(PANEL_WIDTH / width_mm, MAX_PANEL_HEIGHT / height_mm)
    size = max(1, round(width_mm * pixels_per_mm)), max(1, round(height_mm * pixels_per_mm))
    grey = np.clip(_resized(image, size, Image.Resampling.BICUBIC), 0, 1)[..., None]
    picture = grey.repeat(3, axis=2)
    for segment in segments:
        mask = labels == segment.value
        if not mask.any():
            continue
        inside = _signed_pixels(mask, size, spacing, pixels_per_mm)
        colour = np.array(segment.color, dtype=np.float32)
        # The fill keeps the grey values readable: it tints them instead of veiling them.
        tinted = colour * (0.1 + 0.9 * grey)
        for opacity, paint in (
            (FILL_OPACITY * np.clip(inside + 0.5, 0, 1), tinted),
            (np.clip(OUTLINE_PIXELS / 2 + 0.5 - np.abs(inside), 0, 1), colour),
        ):
            picture += opacity[..., None] * (paint - picture)
    slice_picture = Image.fromarray((picture * 255 + 0.5).astype(np.uint8))
    panel = _centred(slice_picture, PANEL_WIDTH, max(size[1], MIN_PANEL_HEIGHT))
    _draw_scale_bar(panel, pixels_per_mm)
    return panel


def _signed_pixels(
    mask: np.ndarray, size: tuple[int, int], spacing: tuple[float, float], pixels_per_mm: float
) -> np.ndarray:
    """Distance of each pixel of the panel from the outline of a mask, positive inside."""
    # The padding keeps the outline closed where an organ reaches the edge of the slice.
    padded = np.pad(mask, 1)
    inside = ndimage.distance_transform_edt(padded, sampling=spacing)
    outside = ndimage.distance_transform_edt(~padded, sampling=spacing)
    distance = (inside - outside)[1:-1, 1:-1]
    smooth = ndimage.gaussian_filter(_resized(distance, size, Image.Resampling.BILINEAR), OUTLINE_PIXELS)
    down, across = np.gradient(smooth) if min(size) > 1 else (np.ones_like(smooth),) * 2
    return smooth / np.maximum(np.hypot(down, across), 0.1 / pixels_per_mm)


def _resized(array: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    return np.array(Image.fromarray(np.ascontiguousarray(array, dtype=np.float32)).resize(size, how))


def _body_box(
    image01: np.ndarray, labels: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[slice, slice]:
    """Rows and columns of the axial plane that hold the patient, with a small margin."""
    body = (image01.max(axis=0) > BODY_INTENSITY) & (image01.mean(axis=0) > BODY_INTENSITY / 3)
    opened = ndimage.binary_opening(body, iterations=2)
    body = (opened if opened.any() else body) | labels.any(axis=0)
    if not body.any():
        return slice(0, body.shape[0]), slice(0, body.shape[1])
    box = []
    for axis, millimetres in ((0, spacing[1]), (1, spacing[2])):
        filled = np.flatnonzero(body.any(axis=1 - axis))
        margin = int(np.ceil(BODY_MARGIN_MM / millimetres))
        box.append(
            slice(max(0, int(filled[0]) - margin), min(body.shape[axis], int(filled[-1]) + 1 + margin))
        )
    return box[0], box[1]


def _axial_positions(labels: np.ndarray) -> list[int]:
    """Up to three slices through the organs, from superior to inferior."""
    weights = _organ_weights(labels, axis=0) if labels.any() else np.ones(labels.shape[0])
    cumulative = np.cumsum(weights) / weights.sum()
    positions = {int(np.searchsorted(cumulative, share)) for share in (1 / 6, 1 / 2, 5 / 6)}
    return sorted(positions, reverse=True)


def _organ_weights(labels: np.ndarray, *, axis: int) -> np.ndarray:
    """How much of the organs each slice along an axis holds, all organs counting the same."""
    other = tuple(n for n in range(3) if n != axis)
    weights = np.zeros(labels.shape[axis])
    for number, box in enumerate(ndimage.find_objects(labels)):
        if box is not None:
            area = np.count_nonzero(labels[box] == number + 1, axis=other)
            weights[box[axis]] += area / area.max()
    return weights


def _coronal_range(labels: np.ndarray, slice_mm: float) -> slice:
    filled = np.flatnonzero(labels.any(axis=(1, 2)))
    if filled.size == 0:
        return slice(0, labels.shape[0])
    margin = int(np.ceil(CORONAL_MARGIN_MM / slice_mm))
    return slice(max(0, int(filled[0]) - margin), min(labels.shape[0], int(filled[-1]) + 1 + margin))


def _draw_sides(panel: Image.Image) -> None:
    _write_on(panel, (12, panel.height / 2), "R", 18, "lm")
    _write_on(panel, (panel.width - 12, panel.height / 2), "L", 18, "rm")


def _draw_scale_bar(panel: Image.Image, pixels_per_mm: float) -> None:
    length_mm = next((mm for mm in (50, 10) if mm * pixels_per_mm < 0.4 * panel.width), 1)
    x, y = panel.width - 14, panel.height - 14
    bar = (x - length_mm * pixels_per_mm, y - 1, x, y + 1)
    ImageDraw.Draw(panel).rectangle(bar, fill=TEXT)
    _write_on(panel, (x, y - 7), f"{length_mm // 10} cm" if length_mm >= 10 else "1 mm", 14, "rs")


def _write_on(panel: Image.Image, place: tuple[float, float], text: str, size: int, anchor: str) -> None:
    """Text with a dark edge, readable on bright tissue too."""
    draw = ImageDraw.Draw(panel)
    draw.text(place, text, fill=TEXT, font=_font(size), anchor=anchor, stroke_width=2, stroke_fill=0)


def _centred(panel: Image.Image, width: int, height: int) -> Image.Image:
    canvas = Image.new("RGB", (width, height), _rgb(BACKGROUND))
    canvas.paste(panel, ((width - panel.width) // 2, (height - panel.height) // 2))
    return canvas


def _arrange(rows: list[list[Image.Image]]) -> Image.Image:
    width = max(sum(panel.width + GAP for panel in row) for row in rows) + GAP
    height = sum(max(panel.height for panel in row) + GAP for row in rows) + GAP
    canvas = Image.new("RGB", (width, height), _rgb(BACKGROUND))
    y = GAP
    for row in rows:
        x = GAP
        for panel in row:
            canvas.paste(panel, (x, y))
            x += panel.width + GAP
        y += max(panel.height for panel in row) + GAP
    return canvas


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _rgb(colour: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(channel * 255) for channel in colour)
    return red, green, blue
