"""The diffusion prior: generates the memory that a prompt would have made, from the image and an organ's label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones import MASK_LOGIT, Backbone, ImageFeatures
from .errors import InputError
from .planes import AXIAL, PLANES, Plane

# Names of the weights that belong to the organs of one prior start so.
ORGAN_WEIGHTS = ("outline_head.", "presence_head.", "denoiser.class_embedding.")
# Outlines per position of the condition, in each direction.
OUTLINE_PARTS = 4


@dataclass(frozen=True)
class PriorConfig:
    """The shape of a prior.

    Attributes:
        organs: Names of the labels, in the order of their embeddings.
        memory_channels: Channels `m` of the backbone's memories.
        feature_channels: Channels of the backbone's fine, middle and coarse features.
        width: Channels of the denoising UNet at full and at half resolution.
        condition_width: Channels of the image condition, and of the UNet that makes it, at both resolutions.
        kind: "diffusion", or "regression": the same network without noise, the control that shows what
            diffusion adds.
        training_steps: Length of the noise schedule.
        in_pieces: Those labels that consist of several large pieces in some training case, such as "kidneys".
        solid: Those labels to which neither fat nor gas belongs in most CT training cases.
        planes: Those it has learnt from, the axial one first.
        mr_gamma: Exponent of MR intensities scaled to 0..1, see `mr_gamma`; above 1 shows them darker.

    Raises:
        ValueError: The planes are neither the axial one nor all three, or the exponent is not above 0.
    """

    organs: tuple[str, ...]
    memory_channels: int
    feature_channels: tuple[int, int, int]
    width: tuple[int, int] = (32, 64)
    condition_width: tuple[int, int] = (80, 112)
    kind: Literal["diffusion", "regression"] = "diffusion"
    training_steps: int = 1000
    in_pieces: tuple[str, ...] = ()
    solid: tuple[str, ...] = ()
    planes: tuple[Plane, ...] = AXIAL
    mr_gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.planes not in (AXIAL, PLANES):
            raise ValueError(f"planes must be {AXIAL} or {PLANES}, not {self.planes}")
        if not 0 < self.mr_gamma < float("inf"):
            raise ValueError(f"mr_gamma must be above 0, not {self.mr_gamma}")

    @classmethod
    def for_backbone(cls, backbone: Backbone, organs: tuple[str, ...], **options: Any) -> PriorConfig:
        """The default shape for a backbone; wider for Meta's, whose memories are larger."""
        if backbone.name != "compact":
            options = {"width": (64, 128), "condition_width": (128, 192), **options}
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
        return cls(**fields)


class Prior(nn.Module):
    """A conditional UNet that predicts the clean memory (x0-prediction) from a noisy one.

    What it models is not the memory itself but the mark that a mask leaves in it: the difference to the memory of
    the same slice with an empty mask, standardised per channel. What depends on the image alone need not be learnt.

    The image condition is computed once per slice and shared by all organs and steps.
    """

    latent_deviation: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        fine, middle, coarse = config.feature_channels
        wide, deep = config.condition_width
        self.project = nn.Conv2d(16 * fine + 4 * middle + coarse, wide, kernel_size=1)
        self.condition_unet = _unet(wide, wide, (wide, deep), attention=True)
        # Quarters of a position in both directions: the size of the decoder's masks.
        self.outline_head = nn.Conv2d(wide, len(config.organs) * OUTLINE_PARTS**2, kernel_size=1)
        self.presence_head = nn.Linear(2 * wide + 2 * len(config.organs), len(config.organs))
        self.denoiser = _unet(
            config.memory_channels + wide, config.memory_channels, config.width, organs=len(config.organs)
        )
        self.register_buffer("latent_deviation", torch.ones(config.memory_channels, 1, 1))
        # Zero terminal SNR: sampling starts at pure noise, so training must have seen it (arXiv 2305.08891).
        self.scheduler = DDIMScheduler(
            num_train_timesteps=config.training_steps,
            prediction_type="sample",
            clip_sample=False,
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        )

    def condition(self, features: ImageFeatures) -> Tensor:
        """The image condition `(n, c, h, w)` at stride 16, from all three feature levels."""
        stacked = torch.cat(
            (F.pixel_unshuffle(features.fine, 4), F.pixel_unshuffle(features.middle, 2), features.coarse),
            dim=1,
        )
        return self.condition_unet(self.project(stacked), 0).sample

    def outlines(self, condition: Tensor) -> Tensor:
        """Logits `(n, organs, 4h, 4w)` of where the organs are, as far as the condition alone knows.

        Training asks for them so that the condition soon learns to tell organs apart; presence is read from them.
        """
        return F.pixel_shuffle(self.outline_head(condition), OUTLINE_PARTS)

    def presence(self, condition: Tensor, outlines: Tensor | None = None) -> Tensor:
        """Logits `(n, organs)`: is the organ in the slice? Tells where generating a memory is worth while.

        Args:
            condition: From `condition`.
            outlines: From `outlines`, where they were computed already.
        """
        inside = (self.outlines(condition) if outlines is None else outlines).sigmoid()
        surest = F.avg_pool2d(inside, OUTLINE_PARTS).amax((2, 3)).logit(eps=1e-3)
        pooled = (condition.mean((2, 3)), condition.amax((2, 3)), surest, inside.mean((2, 3)).sqrt())
        return self.presence_head(torch.cat(pooled, dim=1))

    def denoise(self, noisy: Tensor, timestep: Tensor | int, condition: Tensor, organs: Tensor) -> Tensor:
        """The clean latent `f(z_t, t, z_img, l)` of equation 1.

        Args:
            noisy: `(b, m, h, w)` latents at `timestep`; not looked at by a regression prior.
            timestep: 0 to `training_steps - 1`, one or `(b,)`.
            condition: `(b, c, h, w)` from `condition`.
            organs: `(b,)` index of the label.
        """
        if self.config.kind == "regression":
            noisy = torch.zeros_like(noisy)
            timestep = self.config.training_steps - 1
        return self.denoiser(torch.cat((noisy, condition), dim=1), timestep, class_labels=organs).sample

    def sample(
        self,
        condition: Tensor,
        organs: Tensor,
        *,
        steps: int,
        noise: Tensor,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Generates latents `(b, m, h, w)` from pure noise with DDIM (arXiv 2010.02502).

        Args:
            condition: `(b, c, h, w)`.
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
            clean = self.denoise(latent, timestep, condition, organs)
            if on_step is not None:
                on_step(timestep, clean)
            if following is None:
                latent = clean
            else:
                remaining = (latent - kept[timestep] ** 0.5 * clean) / (1 - kept[timestep]) ** 0.5
                latent = kept[following] ** 0.5 * clean + (1 - kept[following]) ** 0.5 * remaining
        return latent

    def to_latent(self, memory: Tensor, empty: Tensor) -> Tensor:
        """Memories as standardised latents; `empty` from `empty_memory`, both `(b, m, h, w)`."""
        return (memory - empty) / self.latent_deviation

    def to_memory(self, latent: Tensor, empty: Tensor) -> Tensor:
        """The inverse of `to_latent`."""
        return latent * self.latent_deviation + empty


def empty_memory(backbone: Backbone, features: ImageFeatures) -> Tensor:
    """The memories `(n, m, h, w)` of slices with nothing marked on them."""
    # One mask for all: what the memory encoder makes of the mask alone is the same for every slice.
    nothing = features.coarse.new_full((1, 1, *(16 * s for s in features.coarse.shape[-2:])), -MASK_LOGIT)
    # A positive score: the mark of absence is part of what the prior generates.
    return backbone.encode_memory(
        features, nothing, object_score=nothing.new_full((len(features), 1), MASK_LOGIT)
    )


def _unet(
    inputs: int, outputs: int, widths: tuple[int, int], *, organs: int | None = None, attention: bool = False
) -> UNet2DModel:
    return UNet2DModel(
        in_channels=inputs,
        out_channels=outputs,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D" if attention else "DownBlock2D"),
        up_block_types=("AttnUpBlock2D" if attention else "UpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        attention_head_dim=16,
        add_attention=attention,
        num_class_embeds=organs,
    )
