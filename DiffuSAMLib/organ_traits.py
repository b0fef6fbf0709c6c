"""What a prior knows of its organs from the training cases, put to masks and labels of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bright_fat import remove_bright_fat
from .geometry import AxisOrder
from .hounsfield import remove_bright, remove_fat
from .organ_regions import keep_to_regions
from .postprocessing import clean_labels
from .prior import PriorConfig
from .volumes import Volume

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class OrganTraits:
    """Of those organs of a prior that are looked for.

    Labels are 1 for the first of them.

    Attributes:
        config: Of the prior.
        organs: Their indices in it.
    """

    config: PriorConfig
    organs: Sequence[int]

    @property
    def names(self) -> list[str]:
        return [self.config.organs[organ] for organ in self.organs]

    def cleaned(self, labels: np.ndarray, spacing: Spacing) -> np.ndarray:
        """Labels without specks and pinholes: of organs in one piece, that which lies where the organ belongs.

        Args:
            labels: uint8 `(z, y, x)` of a canonical stack.
            spacing: Voxel size `(z, y, x)` in mm.
        """
        several = self._values(self.config.in_pieces)
        single = [value for value in range(1, len(self.organs) + 1) if value not in several]
        places = {value: self.config.layout.get(self.names[value - 1]) for value in single}
        layout = {value: place for value, place in places.items() if place is not None}
        labels = clean_labels(labels, single, spacing=spacing, layout=layout)
        return clean_labels(labels, several, spacing=spacing, keep="major") if several else labels

    def keep_to_regions(self, logits: np.ndarray, spacing: Spacing) -> None:
        """Takes from masks, in place, what lies where the organ cannot be, seen from the others.

        Args:
            logits: `(n, organs, k, k)` of the slices of a canonical stack.
            spacing: Of the masks' pixels, `(z, y, x)` in mm.
        """
        first = np.where(logits.max(axis=1) > 0, logits.argmax(axis=1) + 1, 0).astype(np.uint8)
        keep_to_regions(
            logits,
            self.cleaned(first, spacing),
            self.names,
            layout=self.config.layout,
            regions=self.config.regions,
            spacing=spacing,
        )

    def remove_other_tissue(self, labels: np.ndarray, volume: Volume, order: AxisOrder) -> None:
        """Takes out of organs, in place, what is not of them by its brightness.

        Fat from solid organs, in CT and in MR that shows it bright; in CT what is as bright as bone from soft organs.

        Args:
            labels: uint8 `(z, y, x)` on the volume's grid.
            volume: The image.
            order: From it to the canonical stack.
        """
        solid, spacing = self._values(self.config.solid), order.geometry.spacing[::-1]
        found, image = order.view(labels), order.apply(volume.array)
        if volume.modality == "CT":
            remove_bright(found, image, self._values(self.config.soft))
            remove_fat(found, image, solid, spacing=spacing)
        else:
            remove_bright_fat(found, image, solid, spacing=spacing)

    def _values(self, among: Sequence[str]) -> list[int]:
        """The labels of those whose names are `among` these."""
        return [value for value, name in enumerate(self.names, 1) if name in among]
