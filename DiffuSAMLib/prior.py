"""The diffusion prior: generates the memory that a prompt would have made, from the image and an organ's label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones import MASK_LOGIT, Backbone, ImageFeatures, mask_to_logits
from .errors import InputError
from .layout import Position
from .lean_diffusers import DDIMScheduler, UNet2DModel
from .organ_regions import OrganRegion, regions_from_json
from .outline_decoder import GROUPS, OutlineDecoder, compete
from .planes import AXIAL, PLANES, Plane

# Names of the weights that belong to the organs of one prior start so.
ORGAN_WEIGHTS = ("outline_decoder.head.", "denoiser.class_embedding.")
# Pixels of an outline per position of a memory, in each direction.
OUTLINE_PARTS = 4
# Of an outline at that resolution: fewer are taken for nothing.
FEWEST_PIXELS = 3
# Channels are multiples of it, for they are normalised in groups.
WIDTH_STEP = 16
MOST_CHANNELS = 4096
# Of a noise schedule.
MOST_STEPS = 100_000
# Least probability of presence at which an organ is looked for, and steps of sampling, where nobody says otherwise.
PRESENT = 0.5
SAMPLING_STEPS = 2


@dataclass(frozen=True)
class PriorConfig:
    """The shape of a prior.

    Attributes:
        organs: Names of the labels, in the order of their embeddings.
        memory_channels: Channels `m` of the backbone's memories.
        feature_channels: Channels of the backbone's fine, middle and coarse features.
        width: Channels of the denoising UNet at full and at half resolution.
        outline_width: Channels of the decoder of outlines at the finest level of features.
        reach_mm: How far below and above a slice the two are whose features that decoder sees, too; 0: it does not.
        kind: "diffusion", or "regression": the same network without noise, the control that shows what
            diffusion adds.
        training_steps: Length of the noise schedule.
        in_pieces: Those labels that consist of several large pieces in some training case, such as "kidneys".
        solid: Those labels to which neither fat nor gas belongs in most CT training cases.
        soft: Those labels to which nothing as bright as bone or contrast medium belongs in any CT training case.
        layout: Positions `(z, y, x)` of the labels in mm, up to a common shift, as in the training cases.
        regions: Of labels, in the frame of the layout, as in the training cases.
        modalities: Of the scans that the weights have seen; in others organs are kept to their regions.
        planes: Those it has learnt from, the axial one first.
        mr_gamma: Exponent of MR intensities scaled to 0..1, see `mr_gamma`; above 1 shows them darker.
        appearance: How much it counts how bright organs are in the scan at hand, see `appearance_weight`; 0: nothing.

    Raises:
        ValueError: A value is not possible.
    """

    organs: tuple[str, ...]
    memory_channels: int
    feature_channels: tuple[int, int, int]
    width: tuple[int, int] = (16, 32)
    outline_width: int = 32
    reach_mm: float = 0.0
    kind: Literal["diffusion", "regression"] = "diffusion"
    training_steps: int = 1000
    in_pieces: tuple[str, ...] = ()
    solid: tuple[str, ...] = ()
    soft: tuple[str, ...] = ()
    layout: Mapping[str, Position] = field(default_factory=dict)
    regions: Mapping[str, OrganRegion] = field(default_factory=dict)
    modalities: tuple[str, ...] = ("CT", "MR")
    planes: tuple[Plane, ...] = AXIAL
    mr_gamma: float = 1.0
    appearance: float = 0.0

    def __post_init__(self) -> None:
        # Headers are made by others, too.
        for name in ("organs", "in_pieces", "solid", "soft", "modalities"):
            names = getattr(self, name)
            if not isinstance(names, tuple) or not all(isinstance(each, str) for each in names):
                raise ValueError(f"{name} must be texts, not {names}")
        for name, counts, step in (
            ("memory_channels", (self.memory_channels,), 1),
            ("feature_channels", self.feature_channels, 1),
            ("width", self.width, WIDTH_STEP),
            ("outline_width", (self.outline_width,), GROUPS),
        ):
            if not all(isinstance(n, int) and 0 < n <= MOST_CHANNELS and n % step == 0 for n in counts):
                raise ValueError(f"{name} must be multiples of {step} up to {MOST_CHANNELS}, not {counts}")
        if len(self.feature_channels) != 3 or len(self.width) != 2:
            raise ValueError("there must be three feature_channels and two numbers of width")
        if self.kind not in ("diffusion", "regression"):
            raise ValueError(f"kind must be diffusion or regression, not {self.kind}")
        if not isinstance(self.training_steps, int) or not 2 <= self.training_steps <= MOST_STEPS:
            raise ValueError(f"training_steps must be 2 to {MOST_STEPS}, not {self.training_steps}")
        if self.planes not in (AXIAL, PLANES):
            raise ValueError(f"planes must be {AXIAL} or {PLANES}, not {self.planes}")
        if not 0 <= self.reach_mm < float("inf"):
            raise ValueError(f"reach_mm must be 0 or more, not {self.reach_mm}")
        if not 0 < self.mr_gamma < float("inf"):
            raise ValueError(f"mr_gamma must be above 0, not {self.mr_gamma}")
        if not 0 <= self.appearance < float("inf"):
            raise ValueError(f"appearance must be 0 or more, not {self.appearance}")
        if not all(len(place) == 3 and np.isfinite(place).all() for place in dict(self.layout).values()):
            raise ValueError(f"layout must have three numbers for each label, not {self.layout}")

    @classmethod
    def for_backbone(cls, backbone: Backbone, organs: tuple[str, ...], **options: Any) -> PriorConfig:
        """The default shape for a backbone; wider for Meta's, whose memories are larger."""
        if backbone.name != "compact":
            options = {"width": (64, 128), "outline_width": 48, **options}
        return cls(
            organs=organs,
            memory_channels=backbone.memory_shape[0],
            feature_channels=backbone.feature_channels,
            **options,
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PriorConfig:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**{**fields, "regions": regions_from_json(fields.get("regions", {}))})


class Prior(nn.Module):
    """Draws where the organs are, and generates from it the memory that a prompt would have made.

    A decoder draws rough outlines from the image features. Marked on the slice, an outline makes a memory; what the
    diffusion models is how the memory of the true mask differs from it, standardised per channel: a conditional UNet
    predicts the clean difference (x0-prediction) from a noisy one.

    The outlines are drawn once per slice and shared by all steps.
    """

    latent_deviation: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        organs = len(config.organs)
        self.outline_decoder = OutlineDecoder(
            config.feature_channels, organs, width=config.outline_width, sees_beside=config.reach_mm > 0
        )
        self.denoiser = _unet(
            config.memory_channels + OUTLINE_PARTS**2, config.memory_channels, config.width, organs=organs
        )
        # A new prior generates the memories of its outlines as they are.
        for parameter in self.denoiser.conv_out.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("latent_deviation", torch.ones(config.memory_channels, 1, 1))
        # Zero terminal SNR: sampling starts at pure noise, so training must have seen it (arXiv 2305.08891).
        self.scheduler = DDIMScheduler(
            num_train_timesteps=config.training_steps,
            prediction_type="sample",
            clip_sample=False,
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        )

    def outlines(self, features: ImageFeatures) -> Tensor:
        """Probabilities `(n, organs, s/4, s/4)` that a pixel is the organ's.

        Args:
            features: With the slices beside them where the prior has a reach.
        """
        return compete(self.outline_decoder(features))

    def presence(self, outlines: Tensor) -> Tensor:
        """How surely the organs are in the slices, `(n, organs)` in `[0, 1)`; from 0.5 there is something to mark.

        Args:
            outlines: `(n, organs, s/4, s/4)` from `outlines`.
        """
        pixels = (outlines > 0.5).flatten(2).sum(2).to(outlines)
        return pixels / (pixels + FEWEST_PIXELS)

    def denoise(self, noisy: Tensor, timestep: Tensor | int, outlines: Tensor, organs: Tensor) -> Tensor:
        """The clean latent `f(z_t, t, z_img, l)` of equation 1.

        Args:
            noisy: `(b, m, h, w)` latents at `timestep`; not looked at by a regression prior.
            timestep: 0 to `training_steps - 1`, one or `(b,)`.
            outlines: `(b, 4h, 4w)`, those of the organs: what is known of the image.
            organs: `(b,)` index of the label.
        """
        if self.config.kind == "regression":
            noisy = torch.zeros_like(noisy)
            timestep = self.config.training_steps - 1
        condition = F.pixel_unshuffle(outlines[:, None], OUTLINE_PARTS)
        return self.denoiser(torch.cat((noisy, condition), dim=1), timestep, class_labels=organs).sample

    def sample(
        self,
        outlines: Tensor,
        organs: Tensor,
        *,
        steps: int,
        noise: Tensor,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Generates latents `(b, m, h, w)` from pure noise with DDIM (arXiv 2010.02502).

        Args:
            outlines: `(b, 4h, 4w)`, those of the organs.
            organs: `(b,)`.
            steps: 1 to `training_steps`; a regression prior takes one whatever is asked.
            noise: `(b, m, h, w)`, standard normal: what sampling starts from.
            on_step: Given each timestep and the clean latents believed there.

        Raises:
            InputError: The number of steps is out of range.
        """
        if not 1 <= steps <= self.config.training_steps:
            raise InputError(
                f"The number of sampling steps must be 1 to {self.config.training_steps}, not {steps}."
            )
        if self.config.kind == "regression":
            steps = 1
        # The scheduler's own list of timesteps ends at -1 for some numbers of steps, and its steps are all equally
        # long, which misses the next timestep wherever the schedule cannot be divided evenly.
        length = self.config.training_steps
        timesteps = [round(length * left / steps) - 1 for left in range(steps, 0, -1)]
        kept = self.scheduler.alphas_cumprod.tolist()
        latent = noise
        for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
            clean = self.denoise(latent, timestep, outlines, organs)
            if on_step is not None:
                on_step(timestep, clean)
            if following is None:
                latent = clean
            else:
                remaining = (latent - kept[timestep] ** 0.5 * clean) / (1 - kept[timestep]) ** 0.5
                latent = kept[following] ** 0.5 * clean + (1 - kept[following]) ** 0.5 * remaining
        return latent

    def to_latent(self, memory: Tensor, outlined: Tensor) -> Tensor:
        """Memories as standardised latents; `outlined` from `outline_memory`, both `(b, m, h, w)`."""
        return (memory - outlined) / self.latent_deviation

    def to_memory(self, latent: Tensor, outlined: Tensor) -> Tensor:
        """The inverse of `to_latent`."""
        return latent * self.latent_deviation + outlined


def outline_memory(backbone: Backbone, features: ImageFeatures, outlines: Tensor) -> Tensor:
    """The memories `(b, m, h, w)` that outlines make, marked on their slices.

    Args:
        backbone: Frozen.
        features: Of `b` slices, one per outline.
        outlines: Probabilities `(b, 4h, 4w)`.
    """
    side = 16 * features.coarse.shape[-1]
    likely = F.interpolate(outlines[:, None], size=(side, side), mode="bilinear", align_corners=False)
    # A positive score also where nothing is marked: the mark of absence is part of what the prior generates.
    score = features.coarse.new_full((len(features), 1), MASK_LOGIT)
    return backbone.encode_memory(features, mask_to_logits(likely > 0.5).to(score), object_score=score)


def _unet(inputs: int, outputs: int, widths: tuple[int, int], *, organs: int) -> UNet2DModel:
    return UNet2DModel(
        in_channels=inputs,
        out_channels=outputs,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=WIDTH_STEP,
        add_attention=False,
        num_class_embeds=organs,
    )
