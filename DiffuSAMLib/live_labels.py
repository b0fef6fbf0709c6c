"""Labels while they appear, in a raw file that another process reads along."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .encoded_volume import EncodedVolume
from .files import CHUNK_BYTES, output_error

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First and last + 1 along each axis of the array on disk."""


class LiveLabels:
    """A uint8 file `(z, y, x)` on the image's own grid, filled organ by organ and slice by slice.

    Masks are enlarged from the network's resolution as in the final result, but not kept to regions, weighed by
    brightness, smoothed, refined or cleaned. Where two organs claim a pixel, the surer one has it. After `finish` the
    file holds the final labels.

    Args:
        path: Raw file without a header; made new with the first run.
        on_change: Called with (organ, box of the array that changed) after each mask that shows something.
    """

    def __init__(self, path: Path, on_change: Callable[[str, Box], None]) -> None:
        self._path = path
        self._on_change = on_change
        self._organs: list[tuple[str, int]] = []
        self._masks: dict[int, dict[int, Tensor]] = {}

    def begin(self, encoded: EncodedVolume, values: Mapping[str, int]) -> None:
        """Makes the file, all background.

        Args:
            encoded: Tells the grid and how slices lie in it.
            values: Label of each organ, in the order of the run.

        Raises:
            OutputError: The file cannot be made.
        """
        shape = encoded.volume.geometry.shape
        self._grid, self._order = encoded.grid, encoded.order
        self._organs = list(values.items())
        self._masks = {}
        try:
            _write_zeros(self._path, math.prod(shape))
            self._labels = np.memmap(self._path, np.uint8, "r+", shape=shape)
        except OSError as error:
            raise output_error(self._path, error) from error

    def __call__(self, number: int, organ: int, mask: Tensor) -> None:
        """Takes the mask logits `(k, k)` of one organ in one slice of the canonical stack."""
        mask = mask.half().float()  # as the final result is made from
        masks = self._masks.setdefault(number, {})
        masks[organ] = mask
        if not bool((mask > 0).any()):
            return
        inside = self._enlarge([mask])[0] > 0
        target = self._order.view(self._labels)[number]
        if (target[inside] > 0).any():
            # As in the final result: the largest of the logits wins, the first organ at a tie.
            organs = sorted(masks)
            winner = np.array(organs)[self._enlarge([masks[k] for k in organs]).argmax(axis=0)]
            inside &= winner == organ
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if not len(rows):
            return
        name, value = self._organs[organ]
        target[inside] = value
        box = (
            (number, number + 1),
            (int(rows[0]), int(rows[-1]) + 1),
            (int(columns[0]), int(columns[-1]) + 1),
        )
        self._on_change(name, self._on_disk(box))

    def finish(self, labels: np.ndarray) -> None:
        """Puts the final labels `(z, y, x)` into the file and lets go of it."""
        self._labels[:] = labels
        self._labels.flush()
        del self._labels

    def _enlarge(self, masks: Sequence[Tensor]) -> np.ndarray:
        """Masks `(k, k)` at the resolution of the slices, `(n, rows, columns)`."""
        enlarged: np.ndarray = self._grid.from_slices(torch.stack(list(masks))[None])[0].numpy()
        return enlarged

    def _on_disk(self, box: Box) -> Box:
        """A box of the canonical stack as one of the array on disk."""
        found = [(0, 0)] * 3
        for axis, (low, high) in enumerate(box):
            source = self._order.axes[axis]
            count = self._order.source.shape[source]
            found[source] = (count - high, count - low) if self._order.flips[axis] else (low, high)
        return found[0], found[1], found[2]


def _write_zeros(path: Path, count: int) -> None:
    """A file of so many bytes that has its place on the disk.

    Of one that was only made as long, the first byte that finds no place would end the process with a signal.
    """
    with path.open("wb") as file:
        for start in range(0, count, CHUNK_BYTES):
            file.write(bytes(min(CHUNK_BYTES, count - start)))
