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


def picture(host: Any, path: Path, panel: Any = None) -> Path:
    """Four views, beside the panel if one is given."""
    from slicer_host.render import save_picture

    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(host, path, panel=panel)
    with Image.open(path) as image:
        _shrink(image, path)
    return path


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
    """Saves a picture in 256 colours: a slice of CT is grey anyway."""
    with atomic_path(path) as temporary:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            temporary, format="PNG", optimize=True
        )
