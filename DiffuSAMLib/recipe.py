"""The recipe of a prior: every setting of its training, in one readable file that also travels in the prior."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .augmentation import IntensityAugmentation, SpatialAugmentation
from .backbones import Backbone
from .config_json import from_json, with_settings
from .errors import InputError, WeightsError
from .files import atomic_path
from .held_out import ValidationConfig
from .listing import is_file, is_there
from .outline_decoder import GROUPS
from .prior import MOST_CHANNELS, MOST_STEPS, WIDTH_STEP, PriorConfig
from .prior_files import LARGEST_SIDE, read_header
from .sam2_network import SIDE_STEP
from .weights import DEFAULT_IMAGE_SIZE, PAPER_IMAGE_SIZE, prior_path

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 7
# Slices farther away show other organs.
FARTHEST_MM = 100.0


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are found.

    Attributes:
        iterations: Steps of the optimizer.
        minutes: Ends earlier when this time is up; None sets no limit. The learning rate falls to zero at
            whichever end comes first.
        batch: Slices in a step; a memory is learnt of each.
        slice_uses: In how many steps an augmented slice is used on average, each time under other noise, before a
            new one is augmented and encoded in its place; 1 never uses one twice.
        optimizer: "adamw", or "adam", which takes the weight decay as part of the gradient.
        learning_rate: The highest.
        weight_decay: Of the optimizer.
        schedule: "cosine" lets the learning rate fall to zero, "constant" keeps it.
        warmup: Iterations in which the learning rate rises from zero.
        prior_weight: Lambda of the squared error on latents (equation 1).
        segmentation_weight: Lambda of the segmentation loss (equation 2).
        outline_weight: Weight of the loss on outlines; not in the paper.
        last_step_share: Share of samples at the last timestep, where sampling starts.
        recycle: Put under noise what the prior guesses from noise alone, as in sampling (arXiv 2308.16355), rather than
            the true latent: then further steps of sampling keep to the guess instead of wandering off.
        absent_share: Share of slices whose memory may be that of an organ that is not there.
        average: Decay of the exponential moving average of the weights.
        seed: Of weights, sampling, noise and augmentation.
        checkpoint_seconds: How often the run is saved.
        spatial, intensity: The augmentation.
    """

    iterations: int = 7800
    minutes: float | None = None
    batch: int = 8
    slice_uses: int = 4
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 6e-4
    weight_decay: float = 0.02
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 100
    prior_weight: float = 1.0
    segmentation_weight: float = 1.0
    outline_weight: float = 1.0
    last_step_share: float = 0.5
    recycle: bool = True
    absent_share: float = 0.25
    average: float = 0.998
    seed: int = 0
    checkpoint_seconds: float = 110.0
    spatial: SpatialAugmentation = field(default_factory=SpatialAugmentation)
    intensity: IntensityAugmentation = field(default_factory=IntensityAugmentation)

    def check(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            InputError: A value is out of range.
        """
        if self.iterations < 1 or (self.minutes is not None and not self.minutes > 0):
            raise InputError("A training needs at least one iteration and more than 0 minutes.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"The seed must be 0 to {2**32 - 1}, not {self.seed}.")
        for name in ("batch", "slice_uses"):
            if getattr(self, name) < 1:
                raise InputError(f"The setting {name} must be 1 or more, not {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise InputError(f"The learning rate must be more than 0, not {self.learning_rate:g}.")
        for name in ("weight_decay", "prior_weight", "segmentation_weight", "outline_weight", "warmup"):
            if getattr(self, name) < 0:
                raise InputError(f"The setting {name} must be 0 or more, not {getattr(self, name):g}.")
        self.spatial.check()
        self.intensity.check()
        for name in ("last_step_share", "absent_share", "average"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"The setting {name} must be 0 to 1, not {getattr(self, name):g}.")


@dataclass(frozen=True)
class Recipe:
    """Every setting that decides what a training makes of its cases.

    The defaults are the recipe "compact", tuned for the bundled backbone and few volumes.

    Attributes:
        name: Of the recipe it began as: "compact", "one-modality", "paper", or a name of the user's own.
        backbone: Name of the frozen backbone.
        image_size: Side of the slices in pixels.
        kind: "diffusion", or "regression" for the control without noise.
        width: Channels of the denoising UNet at full and at half resolution.
        outline_width: Channels of the decoder of outlines at the finest level of features.
        reach_mm: How far below and above a slice the two are whose features that decoder sees, too; 0: it does not.
        training_steps: Length of the noise schedule.
        planes: In which the cases are cut into slices: "axial", "three", or "auto", which takes three where every
            case is small and its voxels are about as long as wide. Segmenting then joins the three as well.
        procedural: Number of procedural abdomens to add; they have spleen, kidneys and liver, and show the modality that
            the cases do not.
        twins: Number of MR-like twins of the CT cases to add.
        start: Name or file of the prior whose weights to begin with; "none" begins anew, "auto" takes the bundled
            prior where it was made for the same backbone and has the same shape.
        training: How the weights are found.
        validation: How they are checked meanwhile.
    """

    name: str = "compact"
    backbone: str = "compact"
    image_size: int = DEFAULT_IMAGE_SIZE["compact"]
    kind: Literal["diffusion", "regression"] = "diffusion"
    width: tuple[int, int] = (16, 32)
    outline_width: int = 32
    reach_mm: float = 9.0
    training_steps: int = 1000
    planes: Literal["auto", "axial", "three"] = "auto"
    procedural: int = 0
    twins: int = 0
    start: str = "auto"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def check(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            InputError: A value is out of range.
        """
        self.training.check()
        self.validation.check()
        if self.image_size % SIDE_STEP or not SIDE_STEP <= self.image_size <= LARGEST_SIDE:
            raise InputError(
                f"The image size must be a multiple of {SIDE_STEP} up to {LARGEST_SIDE}, not {self.image_size}."
            )
        for name, channels, step in (
            ("width", self.width, WIDTH_STEP),
            ("outline_width", (self.outline_width,), GROUPS),
        ):
            if not all(0 < count <= MOST_CHANNELS and count % step == 0 for count in channels):
                raise InputError(f"The setting {name} must be multiples of {step} up to {MOST_CHANNELS}.")
        if not 0 <= self.reach_mm <= FARTHEST_MM:
            raise InputError(f"The setting reach_mm must be 0 to {FARTHEST_MM:g}, not {self.reach_mm:g}.")
        if not 2 <= self.training_steps <= MOST_STEPS or self.procedural < 0 or self.twins < 0:
            raise InputError(
                f"A recipe needs 2 to {MOST_STEPS} training steps, and 0 or more procedural abdomens and twins."
            )

    def prior_config(self, backbone: Backbone, organs: tuple[str, ...], **traits: Any) -> PriorConfig:
        """The shape of the prior to be trained.

        Args:
            backbone: That of the recipe.
            organs: Names of the labels.
            traits: What the cases decide: further fields of `PriorConfig`.
        """
        return PriorConfig.for_backbone(
            backbone,
            organs,
            kind=self.kind,
            width=self.width,
            outline_width=self.outline_width,
            reach_mm=self.reach_mm,
            training_steps=self.training_steps,
            **traits,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the schema version first."""
        # By way of JSON, so that tuples compare equal with what is read back.
        content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return {"schema_version": SCHEMA_VERSION, **content}

    @classmethod
    def from_dict(cls, content: Any, *, source: str = "The recipe") -> Recipe:
        """The recipe of `to_dict`, also one of an older schema.

        Raises:
            InputError: It is none, has an unknown setting or a value that cannot be, or a newer schema.
        """
        if not isinstance(content, dict):
            raise InputError(f"{source} is not a recipe: it is not a JSON object.")
        # The first recipes had no version: the training's settings alone.
        version = content.get("schema_version", 0)
        if not isinstance(version, int) or isinstance(version, bool) or version < 0:
            raise InputError(f"{source} has no usable schema_version.", hint=f"Write {SCHEMA_VERSION}.")
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{source} is a recipe of a newer DiffuSAM Segment.", hint="Update DiffuSAM Segment."
            )
        while version < SCHEMA_VERSION:
            content = UPGRADES[version](content)
            version += 1
        settings = {key: value for key, value in content.items() if key != "schema_version"}
        recipe = from_json(cls, settings, source=source)
        recipe.check()
        return recipe

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """The recipe with some settings changed.

        Args:
            settings: Values by their places in the file, such as "training.batch".

        Raises:
            InputError: There is no such setting, or it cannot have the value.
        """
        hint = "See all of a recipe's with diffusam train --write-config FILE."
        content = with_settings(self.to_dict(), settings, hint=hint)
        return Recipe.from_dict(content)

    def write(self, path: Path) -> None:
        """Writes the recipe as an indented JSON file.

        Raises:
            OutputError: The file cannot be written.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")


def _with_sections(content: dict[str, Any]) -> dict[str, Any]:
    """The first recipes had the settings of the training alone, and organs got no curves of their own."""
    if isinstance(intensity := content.get("intensity"), dict):
        content = {**content, "intensity": {"organ_curves": 0.0, **intensity}}
    return {"training": content}


def _with_slice_uses(content: dict[str, Any]) -> dict[str, Any]:
    """Every slice was encoded anew each time."""
    return _with_training(content, slice_uses=1)


def _with_start(content: dict[str, Any]) -> dict[str, Any]:
    """Every training began anew, unless an option beside the recipe said otherwise."""
    return {"start": "none", **content}


def _with_planes(content: dict[str, Any]) -> dict[str, Any]:
    """All slices were axial."""
    return {"planes": "axial", **content}


def _without_condition(content: dict[str, Any]) -> dict[str, Any]:
    """A UNet of its own read the image, and outlines were read from that."""
    return {key: value for key, value in content.items() if key != "condition_width"}


def _without_recycling(content: dict[str, Any]) -> dict[str, Any]:
    """Trainings put the true latents under noise."""
    return _with_training(content, recycle=False)


def _without_reach(content: dict[str, Any]) -> dict[str, Any]:
    """The decoder of outlines saw the slice alone."""
    return {"reach_mm": 0.0, **content}


def _with_training(content: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """With what settings of the training were before there was a choice."""
    if not isinstance(training := content.get("training", {}), dict):
        return content
    return {**content, "training": {**settings, **training}}


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    0: _with_sections,
    1: _with_slice_uses,
    2: _with_start,
    3: _with_planes,
    4: _without_condition,
    5: _without_recycling,
    6: _without_reach,
}
"""For each older schema version, what turns a recipe into one of the next version."""

PAPER = Recipe(
    name="paper",
    backbone="sam2.1_tiny",
    image_size=PAPER_IMAGE_SIZE,
    width=(64, 128),
    outline_width=48,
    reach_mm=0.0,
    planes="axial",
    start="none",
    training=TrainingConfig(
        iterations=7800,
        batch=4,
        slice_uses=1,
        optimizer="adam",
        learning_rate=1e-4,
        weight_decay=0.0,
        schedule="constant",
        warmup=0,
        prior_weight=1.0,
        segmentation_weight=1.0,
        recycle=False,
    ),
)
"""What arXiv 2604.24719 states; where it is silent (augmentation, averaging), our own settings. So are outlines."""

ONE_MODALITY = Recipe(
    name="one-modality",
    training=TrainingConfig(
        intensity=IntensityAugmentation(cross_modality=0.1, organ_curves=0.0, strength=0.7)
    ),
)
"""The compact recipe for priors that need not work in another modality than their cases'."""

RECIPES = {"compact": Recipe(), "one-modality": ONE_MODALITY, "paper": PAPER}


def default_recipe(backbone: str) -> Recipe:
    """The paper's recipe for Meta's backbones, the tuned one for the bundled one."""
    return RECIPES["compact"] if backbone == "compact" else dataclasses.replace(PAPER, backbone=backbone)


def load_recipe(name: str | Path) -> Recipe:
    """A recipe by its name, from its file, or from a prior that was trained with it.

    Raises:
        InputError: The name is unknown, or the file is no recipe.
        WeightsError: A prior's file is damaged.
    """
    if isinstance(name, str) and name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix == ".safetensors":
        return _recipe_of_prior(path)
    if not path.suffix and not is_there(path):
        try:
            prior = prior_path(str(name))
        except WeightsError:
            pass  # said below, with all that it may be
        else:
            return _recipe_of_prior(prior)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"The recipe {name} cannot be read ({error.strerror}).",
            hint=f"Give {', '.join(RECIPES)}, a JSON file, or a prior.",
        ) from error
    except ValueError as error:
        raise InputError(f"The recipe {name} is not JSON: {str(error).rstrip('.')}.") from error
    return Recipe.from_dict(content, source=str(path))


def _recipe_of_prior(path: Path) -> Recipe:
    """The recipe in a prior's file; it begins with the default where the prior that it began with is not here.

    A prior's file tells the name alone of the file that its training began with.
    """
    recipe = Recipe.from_dict(read_header(path).training.get("recipe"), source=str(path))
    if recipe.start in ("auto", "none"):
        return recipe
    try:
        if is_file(prior_path(recipe.start)):
            return recipe
    except (InputError, WeightsError):
        pass  # a name that is not known here, or a file that is not whole
    logger.warning(
        "%s began with %s, which is not here; its recipe is taken with the start auto.", path, recipe.start
    )
    return dataclasses.replace(recipe, start=Recipe().start)
