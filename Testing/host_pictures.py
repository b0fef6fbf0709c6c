"""The pictures of `make host-demo`: panel and views, windows, and the thumbnails of the samples."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from DiffuSAMLib.files import atomic_path
from DiffuSAMLib.procedural import DEMO_SEED, Modality, make_abdomen

CAPTION_HEIGHT = 24
# As Slicer's own samples have them.
THUMBNAIL_SIZE = (260, 280)
_CT_WINDOW = (-125.0, 275.0)
# What is cut off on each side, as a part of the width.
_AIR = 0.06


def picture(host: Any, path: Path, panel: Any, *, surfaces: bool = True) -> None:
    """Four views beside the panel, with surfaces as after *Show 3D*."""
    from slicer_host.render import save_picture

    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(host, path, panel=panel, surfaces=surfaces)
    with Image.open(path) as image:
        _shrink(image, path)


def window_picture(host: Any, widget: Any, path: Path) -> None:
    """A window or a part of one by itself, with the caption of the other pictures."""
    from slicer_host.render import CAPTION

    host.process_events(0.1)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "window.png"
        widget.grab().save(str(file))
        with Image.open(file) as window:
            whole = Image.new("RGB", (window.width, window.height + CAPTION_HEIGHT), "white")
            whole.paste(window.convert("RGB"))
    place = (8, whole.height - 18)
    ImageDraw.Draw(whole).text(place, CAPTION, fill="black", font=ImageFont.load_default(12))
    _shrink(whole, path)


def sample_thumbnail(modality: Modality, path: Path) -> None:
    """What Sample Data shows of the procedural abdomen: the slice with all organs that is nearest to the middle."""
    abdomen = make_abdomen(DEMO_SEED, modality=modality)
    labels, values = abdomen.labels.array, abdomen.volume.array.astype(np.float32)
    present = [z for z in range(len(labels)) if len(np.unique(labels[z])) == len(abdomen.labels.names) + 1]
    z = min(present, key=lambda number: abs(number - len(labels) // 2))
    low, high = _CT_WINDOW if modality == "CT" else (0.0, float(np.percentile(values[z], 99.5)))
    grey = np.clip((values[z] - low) / (high - low), 0, 1) * 255
    # Of the patient's axes, the first goes to the left side and the second to the back, as in the axial view.
    slice_image = Image.fromarray(grey.round().astype(np.uint8))
    border = round(_AIR * slice_image.width)
    inner = slice_image.crop((border, border, slice_image.width - border, slice_image.height - border))
    width, height = THUMBNAIL_SIZE
    square = inner.resize((width, width), Image.Resampling.BICUBIC)
    whole = Image.new("L", THUMBNAIL_SIZE)
    whole.paste(square, (0, (height - width) // 2))
    with atomic_path(path) as temporary:
        whole.save(temporary, format="PNG", optimize=True)


def _shrink(image: Image.Image, path: Path) -> None:
    """Saves a picture in 256 colours, for a quarter of the bytes."""
    image = image.convert("RGB")
    with atomic_path(path) as temporary:
        image.quantize(palette=_palette(image), dither=Image.Dither.NONE).save(
            temporary, format="PNG", optimize=True
        )


def _palette(image: Image.Image) -> Image.Image:
    """64 greys for slices and panel; the other colours for organs, each hue counted once however little it covers."""
    pixels = np.asarray(image).reshape(-1, 3)
    coloured = np.unique(pixels[np.ptp(pixels, axis=1) > 8] // 2 * 2, axis=0)
    colours = np.repeat(np.linspace(0, 255, 64).round().astype(np.uint8)[:, None], 3, axis=1)
    if len(coloured):
        found = Image.fromarray(coloured[None]).quantize(256 - len(colours), kmeans=2).getpalette()
        colours = np.concatenate([colours, np.reshape(np.array(found, np.uint8), (-1, 3))])
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.ravel().tolist())
    return palette
