"""Where the labels of a label map lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from scipy import ndimage


def boxes_and_masks(
    labels: np.ndarray, values: Iterable[int]
) -> Iterator[tuple[tuple[slice, slice, slice], np.ndarray]]:
    """The smallest box that holds a label, and the mask of that label in it, of each that is there.

    Args:
        labels: `(z, y, x)`, uint8. The boxes are found at the beginning; a mask is what there is of a label when its
            turn comes.
        values: The labels.
    """
    boxes = ndimage.find_objects(labels)
    for value in values:
        box = boxes[value - 1] if 0 < value <= len(boxes) else None
        if box is not None:
            yield box, labels[box] == value
