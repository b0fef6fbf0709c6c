"""The image features of a volume's slices, and how they lie in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from .backbones import Backbone, ImageFeatures
from .geometry import AxisOrder
from .lanes import Lanes, even_parts
from .planes import Plane, to_plane
from .poses import UPRIGHT, Pose
from .slices import SliceGrid, as_channels, numbers_beside
from .tensor_store import TensorStore
from .volumes import Volume, intensity_window, scale_intensity

# Slices encoded at a time. The encoder needs the most memory, and on a CPU is as fast with few.
ENCODED_AT_ONCE = 4
CHUNK = 8


class EncodedVolume:
    """The image features of a volume in one plane and pose, kept so that other organs need no second encoding.

    Args:
        volume: CT or MR, on any grid.
        backbone: Encodes its slices.
        plane: Of the slices.
        gamma: Exponent of the intensities scaled to 0..1.
        pose: Of the slices when they are encoded.

    Attributes:
        order: Between the input's axes and the stack of slices.
        grid: Between the stack and the square slices.
        store: Features by slice number, on disk.
    """

    def __init__(
        self,
        volume: Volume,
        backbone: Backbone,
        *,
        plane: Plane = "axial",
        gamma: float = 1.0,
        pose: Pose = UPRIGHT,
    ) -> None:
        self.volume, self.plane, self.gamma, self.pose = volume, plane, gamma, pose
        self.order: AxisOrder = to_plane(volume.geometry, plane)
        self.grid = SliceGrid.fit(self.order.geometry, backbone.image_size)
        side = backbone.image_size // 4
        fine, middle, coarse = backbone.feature_channels
        shapes = [(fine, side, side), (middle, side // 2, side // 2), (coarse, side // 4, side // 4)]
        self.store = TensorStore(shapes)
        self._backbone = backbone

    def __len__(self) -> int:
        return self.order.geometry.shape[0]

    @property
    def complete(self) -> bool:
        """Whether every slice is encoded."""
        return all(number in self.store for number in range(len(self)))

    def encode(self, report: Callable[[int, int], None]) -> None:
        """Encodes all slices that are not yet in the store."""
        stack = self.order.view(self.volume.array)
        low, high = intensity_window(self.volume)
        lanes: Lanes[tuple[range, ImageFeatures | None]] = Lanes(self._backbone.device)
        most = CHUNK if lanes.count == 1 else ENCODED_AT_ONCE
        done = 0

        def keep(result: tuple[range, ImageFeatures | None]) -> None:
            nonlocal done
            numbers, features = result
            if features is not None:
                for row, number in enumerate(numbers):
                    self.store.put(number, [level[row] for level in features.levels()])
            done += len(numbers)
            report(done, len(self))

        def encoded(numbers: range) -> Iterator[tuple[range, ImageFeatures | None]]:
            missing = any(number not in self.store for number in numbers)
            yield numbers, self._encoded(stack, numbers, low, high) if missing else None

        parts = even_parts(len(self), most=most, lanes=lanes.count)
        lanes.run((encoded(numbers) for numbers in parts), keep)

    def _encoded(self, stack: np.ndarray, numbers: range, low: float, high: float) -> ImageFeatures:
        context = self._backbone.slice_context
        first = max(0, numbers.start - context)
        squares = self._squares(stack[first : numbers.stop + context], low, high)
        if self.gamma != 1:
            squares = squares.clamp(0, 1) ** self.gamma
        inner = torch.arange(numbers.start - first, numbers.stop - first)
        images = as_channels(self.pose.shown(squares), inner, context=context)
        return self._backbone.encode_image(images.to(self._backbone.device))

    def _squares(self, slices: np.ndarray, low: float, high: float) -> torch.Tensor:
        """Slices of the stack as squares `(n, s, s)`, the window's intensities from 0 to 1."""
        return self.grid.to_slices(torch.from_numpy(scale_intensity(np.ascontiguousarray(slices), low, high)))

    def guide(self, numbers: range, size: int) -> np.ndarray:
        """Slices as images `(n, size, size)`, float32, 0 to 1, for what follows their edges."""
        stack, window = self.order.view(self.volume.array), intensity_window(self.volume)
        images = np.empty((len(numbers), size, size), np.float32)
        for some in even_parts(len(numbers), most=CHUNK, lanes=1):
            squares = self._squares(stack[numbers.start :][some.start : some.stop], *window)
            images[some] = F.interpolate(
                squares.clamp(0, 1)[:, None],
                size=(size, size),
                mode="bilinear",
                antialias=True,
                align_corners=False,
            )[:, 0].numpy()
        return images

    def features(self, numbers: Sequence[int], *, reach_mm: float = 0.0) -> ImageFeatures:
        """Of slices of these numbers, encoded before; with a reach, of the ones so far below and above, too."""
        features = ImageFeatures.of_levels(self.store.get(numbers, device=self._backbone.device))
        if not reach_mm:
            return features
        beside = numbers_beside(
            numbers, count=len(self), spacing=self.order.geometry.spacing[2], reach_mm=reach_mm
        )
        return features.between(*(self.features(others) for others in beside))
