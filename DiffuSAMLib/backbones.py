"""The frozen SAM2 as three calls: `encode_image`, `encode_memory` and `decode`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sam2_network import build_network

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

# Logits that SAM2 writes where it believes the object absent, and for a given mask's inside and outside.
ABSENT_LOGIT = -1024.0
MASK_LOGIT = 10.0
# What SAM2's checkpoints were trained with; ours is pretrained alike.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageFeatures:
    """What the image encoder gives for `n` slices.

    Attributes:
        fine: `(n, c/8, s/4, s/4)`.
        middle: `(n, c/4, s/8, s/8)`.
        coarse: `(n, c, s/16, s/16)`.
        beside: Of the slices below and above, each level of both joined to twice as many channels, where the
            prior's decoder of outlines sees them; see `slices.numbers_beside`.
    """

    fine: Tensor
    middle: Tensor
    coarse: Tensor
    beside: ImageFeatures | None = None

    @classmethod
    def of_levels(cls, levels: Iterable[Tensor], *, beside: ImageFeatures | None = None) -> ImageFeatures:
        """From the fine, the middle and the coarse level."""
        fine, middle, coarse = levels
        return cls(fine, middle, coarse, beside)

    @classmethod
    def stacked(cls, parts: Sequence[ImageFeatures]) -> ImageFeatures:
        """The slices of all parts, one after the other; all have slices beside them, or none."""
        levels = (torch.cat(level) for level in zip(*(part.levels() for part in parts), strict=True))
        beside = [part.beside for part in parts if part.beside is not None]
        return cls.of_levels(levels, beside=cls.stacked(beside) if beside else None)

    def levels(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.fine, self.middle, self.coarse

    def __len__(self) -> int:
        return self.coarse.shape[0]

    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> ImageFeatures:
        beside = None if self.beside is None else self.beside[index]
        return ImageFeatures(self.fine[index], self.middle[index], self.coarse[index], beside)

    def repeat(self, organs: int) -> ImageFeatures:
        """Each slice `organs` times in a row: `(n * organs, ...)`, without those beside it."""
        return self.of_levels(level.repeat_interleave(organs, dim=0) for level in self.levels())

    def between(self, below: ImageFeatures, above: ImageFeatures) -> ImageFeatures:
        """The same slices, each with its own one of `n` below and above beside it."""
        joined = (torch.cat(pair, dim=1) for pair in zip(below.levels(), above.levels(), strict=True))
        return self.of_levels(self.levels(), beside=self.of_levels(joined))


@dataclass(frozen=True)
class Memory:
    """A spatial memory and where it stands relative to the slice that attends to it.

    Attributes:
        features: `(b, m, s/16, s/16)`.
        distance: 0 for a conditioning (generated or prompted) memory, else how many slices away, 1 to 6.
    """

    features: Tensor
    distance: int = 0


@dataclass(frozen=True)
class Pointer:
    """An object pointer `(b, c)` and its signed distance in slices (0: this slice).

    SAM2 scales distances to the length of the video where that is below 16 frames; ours always to 16.
    """

    features: Tensor
    distance: int = 0


@dataclass(frozen=True)
class Decoded:
    """What the mask decoder says of `b` objects.

    Attributes:
        raw_logits: `(b, 1, s/4, s/4)`, before the object score is looked at.
        object_score: `(b, 1)` logit: is the object in the slice at all?
        iou: `(b, 1)` the decoder's own estimate of its mask's intersection over union.
        pointer: `(b, c)` the object pointer.
    """

    raw_logits: Tensor
    object_score: Tensor
    iou: Tensor
    pointer: Tensor

    @property
    def logits(self) -> Tensor:
        """Mask logits as SAM2 gives them: `ABSENT_LOGIT` everywhere where the object is absent."""
        return torch.where(self.object_score[..., None, None] > 0, self.raw_logits, ABSENT_LOGIT)


class Backbone(nn.Module):
    """SAM2 with the prompt taken away: images in, memories in, masks out.

    Args:
        name: "compact", "sam2.1_tiny", "sam2.1_small", "sam2.1_base_plus" or "sam2.1_large".
        image_size: Side of the square slices in pixels; None takes the network's own (256 or 1024).
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, name: str, *, image_size: int | None = None) -> None:
        super().__init__()
        self.name = name
        self.network: SAM2Base = build_network(name, image_size=image_size)
        self.image_size: int = self.network.image_size
        # Ours sees the neighbouring slices in the outer channels (2.5D); Meta's saw photographs.
        self.slice_context = 1 if name == "compact" else 0
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    @property
    def memory_shape(self) -> tuple[int, int, int]:
        """`(m, s/16, s/16)`."""
        return self.network.mem_dim, self.image_size // 16, self.image_size // 16

    @property
    def feature_channels(self) -> tuple[int, int, int]:
        """Channels of the fine, middle and coarse features."""
        width = self.network.hidden_dim
        return width // 8, width // 4, width

    @property
    def device(self) -> torch.device:
        return self.network.device

    def freeze(self) -> Backbone:
        """No gradients to the weights, no dropout: the state in which a prior meets it."""
        return self.eval().requires_grad_(False)

    def encode_image(self, slices: Tensor) -> ImageFeatures:
        """Features of slices `(n, 3, s, s)` with values in `[0, 1]`."""
        normalised = (slices - self.pixel_mean) / self.pixel_std
        fine, middle, coarse = self.network.forward_image(normalised)["backbone_fpn"]
        return ImageFeatures(fine, middle, coarse)

    def encode_memory(
        self, features: ImageFeatures, masks: Tensor, *, object_score: Tensor | None = None
    ) -> Tensor:
        """The memory `(b, m, s/16, s/16)` that SAM2 keeps of masks on slices (equation 3, `ME`).

        Args:
            features: Of `b` slices, one per mask.
            masks: `(b, 1, h, w)` logits, or `(1, 1, h, w)` for the same mask on all slices; resized to the
                slices' size where they differ.
            object_score: `(b, 1)` logits; an object with a score below 0 is remembered as absent.
                None: present where any mask logit is above 0, as SAM2 does for a given mask.
        """
        if object_score is None:
            object_score = torch.where(masks.flatten(1).amax(1, keepdim=True) > 0, MASK_LOGIT, -MASK_LOGIT)
        size = tuple(16 * side for side in features.coarse.shape[-2:])
        if masks.shape[-2:] != size:
            masks = F.interpolate(masks.float(), size=size, mode="bilinear", align_corners=False)
        memory, _ = self.network._encode_new_memory(
            current_vision_feats=[_as_sequence(features.coarse)],
            feat_sizes=[features.coarse.shape[-2:]],
            pred_masks_high_res=masks,
            object_score_logits=object_score,
            is_mask_from_pts=False,
        )
        return memory

    def decode(
        self, features: ImageFeatures, memories: Sequence[Memory], pointers: Sequence[Pointer] = ()
    ) -> Decoded:
        """Masks from features and memories (equation 3, `D[MA[...]]`).

        Args:
            features: Of `b` slices, one per object.
            memories: At least one; every one with batch `b`.
            pointers: Object pointers of other slices; SAM2 attends to them, the paper leaves them out.
        """
        network = self.network
        attended = self._attend(features.coarse, memories, pointers)
        batch = attended.shape[0]
        no_point = (
            attended.new_zeros(batch, 1, 2),
            -torch.ones(batch, 1, dtype=torch.int32, device=attended.device),
        )
        sparse, dense = network.sam_prompt_encoder(points=no_point, boxes=None, masks=None)
        side = attended.shape[-1]
        # The encoder's own grid is fixed at the full size; training also runs at smaller sizes.
        position = network.sam_prompt_encoder.pe_layer((side, side)).unsqueeze(0)
        masks, ious, tokens, object_score = network.sam_mask_decoder(
            image_embeddings=attended,
            image_pe=position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense[..., :side, :side],
            multimask_output=network._use_multimask(False, None),
            repeat_image=False,
            high_res_features=[features.fine, features.middle],
        )
        best = ious.argmax(dim=1)
        rows = torch.arange(batch, device=best.device)
        token = tokens[rows, best] if tokens.shape[1] > 1 else tokens[:, 0]
        return Decoded(
            raw_logits=masks[rows, best].unsqueeze(1).float(),
            object_score=object_score.float(),
            iou=ious[rows, best].unsqueeze(1).float(),
            pointer=self._pointer(token, object_score),
        )

    def _pointer(self, token: Tensor, object_score: Tensor) -> Tensor:
        """The object pointer, replaced by SAM2's `no_obj_ptr` where the object is absent."""
        network = self.network
        present = (object_score > 0).to(token.dtype)
        return present * network.obj_ptr_proj(token) + (1 - present) * network.no_obj_ptr

    def _attend(self, coarse: Tensor, memories: Sequence[Memory], pointers: Sequence[Pointer]) -> Tensor:
        """Image features `(b, c, h, w)` after memory attention.

        The order and encodings are those of `SAM2Base._prepare_memory_conditioned_features`: conditioning
        memories first, then from the furthest to the nearest slice, then pointers.
        """
        network = self.network
        ordered = sorted(memories, key=lambda memory: -memory.distance if memory.distance else -1000)
        tokens, positions = [], []
        for memory in ordered:
            tokens.append(_as_sequence(memory.features))
            spatial = _as_sequence(network.memory_encoder.position_encoding(memory.features))
            row = network.num_maskmem - 1 if memory.distance == 0 else memory.distance - 1
            positions.append(spatial + network.maskmem_tpos_enc[row])
        pointer_tokens = 0
        if pointers:
            pointer_sequence, pointer_position = self._pointer_tokens(pointers)
            tokens.append(pointer_sequence)
            positions.append(pointer_position)
            pointer_tokens = pointer_sequence.shape[0]
        position_layer = network.image_encoder.neck.position_encoding
        attended = network.memory_attention(
            curr=_as_sequence(coarse),
            curr_pos=_as_sequence(position_layer(coarse).to(coarse.dtype)),
            memory=torch.cat(tokens),
            memory_pos=torch.cat(positions),
            num_obj_ptr_tokens=pointer_tokens,
        )
        return attended.permute(1, 2, 0).reshape(coarse.shape)

    def _pointer_tokens(self, pointers: Sequence[Pointer]) -> tuple[Tensor, Tensor]:
        """Pointers as `(tokens, b, m)`, each split into `c / m` tokens, and their temporal encodings."""
        from sam2.modeling.sam2_utils import get_1d_sine_pe

        network = self.network
        stacked = torch.stack([pointer.features for pointer in pointers])
        count, batch, width = stacked.shape
        distances = torch.tensor([float(pointer.distance) for pointer in pointers], device=stacked.device)
        encoding = get_1d_sine_pe(distances / (network.max_obj_ptrs_in_encoder - 1), dim=width)
        encoding = network.obj_ptr_tpos_proj(encoding).unsqueeze(1).expand(-1, batch, network.mem_dim)
        parts = width // network.mem_dim
        tokens = stacked.reshape(count, batch, parts, network.mem_dim).permute(0, 2, 1, 3).flatten(0, 1)
        return tokens, encoding.repeat_interleave(parts, dim=0)


def _as_sequence(grid: Tensor) -> Tensor:
    """`(b, c, h, w)` to sam2's `(h * w, b, c)`."""
    return grid.flatten(2).permute(2, 0, 1)


def mask_to_logits(masks: Tensor) -> Tensor:
    """Binary masks as the logits that SAM2 gives to a mask prompt: -10 outside, 10 inside."""
    return masks.float() * (2 * MASK_LOGIT) - MASK_LOGIT
