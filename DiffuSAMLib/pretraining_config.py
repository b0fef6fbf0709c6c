"""How the compact backbone is pretrained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .augmentation import IntensityAugmentation, SpatialAugmentation
from .config_json import from_json, with_settings
from .errors import InputError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PretrainingConfig:
    """How the backbone is pretrained; travels in its model card.

    Attributes:
        minutes: Time to train; the learning rate falls to zero over it.
        small_part: Part of the time spent at `small_size`, where a step costs a quarter.
        small_size: Side of the slices in the first part, in pixels.
        pairs: Pairs of neighbouring slices in a step at full size; twice as many at the small one.
        small_objects: Objects prompted in each pair at the small size.
        objects: The same at full size, where following masks has been learnt.
        farthest: Largest distance between the slices of a pair, in slices.
        learning_rate: Highest learning rate (AdamW).
        weight_decay: AdamW's.
        follow_every: Masks are followed in one of so many steps; the others teach outlines alone, in half the time.
        outline_weight: Weight of the outlines of all organs.
        memory_noise: Largest noise added to memories, in their channels' standard deviations, so that the
            memory space is smooth and a generated memory need not be exact.
        average: Decay of the exponential moving average of the weights.
        seed: Of weights, sampling and augmentation.
        spatial, intensity: The augmentation.
    """

    minutes: float = 60.0
    small_part: float = 0.4
    small_size: int = 128
    pairs: int = 6
    small_objects: int = 2
    objects: int = 1
    farthest: int = 3
    learning_rate: float = 8e-4
    weight_decay: float = 0.02
    follow_every: int = 4
    outline_weight: float = 1.0
    memory_noise: float = 0.5
    average: float = 0.998
    seed: int = 0
    spatial: SpatialAugmentation = field(default_factory=SpatialAugmentation)
    intensity: IntensityAugmentation = field(default_factory=IntensityAugmentation)

    @classmethod
    def with_settings(cls, settings: Mapping[str, Any]) -> PretrainingConfig:
        """The defaults with some settings changed.

        Args:
            settings: Values by their places, such as "intensity.strength".

        Raises:
            InputError: There is no such setting, or it cannot have the value.
        """
        names = ", ".join(item.name for item in fields(cls))
        content = with_settings(asdict(cls()), settings, hint=f"The settings are {names}.")
        config = from_json(cls, content, source="The pretraining")
        config.check()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the schema version first."""
        # By way of JSON, so that tuples compare equal with what is read back.
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"schema_version": SCHEMA_VERSION, **content}

    def check(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            InputError: A value is out of range.
        """
        if self.minutes <= 0 or self.seed < 0:
            raise InputError("The training needs more than 0 minutes and a seed of 0 or more.")
        for name in ("pairs", "small_objects", "objects", "farthest", "follow_every"):
            if getattr(self, name) < 1:
                raise InputError(f"The setting {name} must be 1 or more, not {getattr(self, name)}.")
        if self.pairs * self.objects < 2:
            raise InputError(
                "The settings pairs and objects must not both be 1: half of a batch would be empty."
            )
        for name in ("small_part", "average"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"The setting {name} must be 0 to 1, not {getattr(self, name):g}.")
        for name in ("learning_rate", "weight_decay", "outline_weight", "memory_noise"):
            if getattr(self, name) < 0:
                raise InputError(f"The setting {name} must be 0 or more, not {getattr(self, name):g}.")
        if self.small_size < 64 or self.small_size % 32:
            raise InputError(f"The setting small_size must be a multiple of 32, not {self.small_size}.")
        self.spatial.check()
        self.intensity.check()
