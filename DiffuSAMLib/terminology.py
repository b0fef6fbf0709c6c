"""What an organ is called, coded and coloured in 3D Slicer and in DICOM."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from .organ_names import organ_key
from .resources import resource_path

# Successive multiples of the golden ratio are spread over the colour wheel for any number of labels.
GOLDEN_RATIO = 0.618033988749895


@dataclass(frozen=True)
class Segment:
    """One structure of a segmentation.

    Args:
        value: Its label, 1 to 255.
        name: Its name for people.
        color: Red, green, blue from 0 to 1.
        terminology: Slicer's serialized terminology entry (the value of the tag `TerminologyEntry`).
    """

    value: int
    name: str
    color: tuple[float, float, float]
    terminology: str


@cache
def organ_table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(resource_path("Terminology", "organs.json").read_text("utf-8"))
    return table


def segment_for(name: str, value: int) -> Segment:
    """The segment of an organ.

    An organ that the bundled table lacks is coded as `Tissue` and gets a colour of its own by its value.

    Args:
        name: Organ name; letter case and underscores do not matter for finding it, and are kept.
        value: Its label, 1 to 255.
    """
    table = organ_table()
    organ = table["organs"].get(organ_key(name))
    if organ is None:
        color = colorsys.hsv_to_rgb(value * GOLDEN_RATIO % 1.0, 0.6, 0.9)
        unknown = table["unknown"]
        return Segment(value, name, color, entry(unknown["context"], unknown["category"], unknown["type"]))
    red, green, blue = (level / 255 for level in organ["color"])
    text = entry(organ["context"], table["category"], organ["type"], organ["modifier"])
    return Segment(value, name, (red, green, blue), text)


def entry(
    context: str, category: Sequence[str], kind: Sequence[str], modifier: Sequence[str] | None = None
) -> str:
    """A terminology entry as Slicer serializes it: context, category, type, modifier, no anatomic region."""
    table = organ_table()

    def code(pair: Sequence[str] | None) -> str:
        return "^".join([table["scheme"], *pair]) if pair else "^^"

    return "~".join(
        [
            context,
            code(category),
            code(kind),
            code(modifier),
            table["anatomic_context"],
            code(None),
            code(None),
        ]
    )
