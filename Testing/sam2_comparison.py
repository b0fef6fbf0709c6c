"""Our backbone beside sam2's own video predictor: the same weights, slices and masks for both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from DiffuSAMLib.backbones import Backbone, Decoded, ImageFeatures, Memory, Pointer, mask_to_logits
from DiffuSAMLib.sam2_network import build_network

PREDICTOR = "sam2.sam2_video_predictor.SAM2VideoPredictor"
SIZE = 128
# SAM2 measures the distance of pointers against the length of the video, up to 16 frames.
COUNT = 16
# Nine slices: the last ones see six neighbours and the given slice, and no longer the first neighbour.
UP = range(4, 13)
DOWN = range(12, 3, -1)
TOLERANCE = 1e-4


def save_slices(folder: Path) -> None:
    """A smooth random volume as the JPEGs that sam2 reads, named by number."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 5, 7, 7, generator=generator)
    smooth = F.interpolate(coarse, size=(COUNT, SIZE, SIZE), mode="trilinear", align_corners=True)[0]
    for number in range(COUNT):
        pixels = (255 * smooth[:, number].permute(1, 2, 0)).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg")


def read_slices(folder: Path) -> Tensor:
    """`(n, 3, s, s)` in `[0, 1]`."""
    images = [np.asarray(Image.open(path), np.float32) / 255 for path in sorted(folder.glob("*.jpg"))]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def given_masks() -> Tensor:
    """Four objects `(4, 1, s, s)`; the last is not in the slice."""
    masks = torch.zeros(4, 1, SIZE, SIZE)
    masks[0, :, 20:60, 15:50] = 1
    masks[1, :, 50:110, 60:120] = 1
    masks[2, :, 100:115, 10:25] = 1
    return masks


def enlarged(logits: Tensor, size: int) -> Tensor:
    return F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)


@dataclass
class Pair:
    """Our backbone and sam2's own predictor, with the same weights, on the same slices."""

    ours: Backbone
    theirs: Any
    state: dict[str, Any]
    features: dict[int, ImageFeatures]

    def our_features(self, number: int) -> ImageFeatures:
        return self.features[number].repeat(len(given_masks()))

    def shift_object_scores(self, offset: float) -> None:
        for network in (self.ours.network, self.theirs):
            network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias += offset

    def track_step(self, number: int, output: dict[str, Any], **options: Any) -> dict[str, Any]:
        """One slice by sam2, remembered in `output`; masks in `mask_inputs` make it a conditioning one."""
        first = options.get("mask_inputs") is not None
        options = {"mask_inputs": None, "track_in_reverse": False, **options}
        _, _, features, positions, sizes = self.theirs._get_image_feature(
            self.state, number, len(given_masks())
        )
        found = self.theirs.track_step(
            frame_idx=number,
            is_init_cond_frame=first,
            current_vision_feats=features,
            current_vision_pos_embeds=positions,
            feat_sizes=sizes,
            point_inputs=None,
            output_dict=output,
            num_frames=COUNT,
            **options,
        )
        output["cond_frame_outputs" if first else "non_cond_frame_outputs"][number] = found
        return found


@torch.no_grad()
def make_pair(ours: Backbone, folder: Path) -> Pair:
    theirs = build_network(ours.name, image_size=SIZE, target=PREDICTOR).eval()
    theirs.load_state_dict(ours.network.state_dict(), strict=True)
    state = theirs.init_state(str(folder))
    for number in UP:
        image = state["images"][number].unsqueeze(0)
        state["cached_features"][number] = (image, theirs.forward_image(image))
    slices = read_slices(folder)
    features = {number: ours.encode_image(slices[number : number + 1]) for number in UP}
    pair = Pair(ours, theirs, state, features)
    # Random weights prefer the same one of the three masks everywhere, and find every object or none: without
    # these offsets only one case would occur.
    memory = Memory(ours.encode_memory(pair.our_features(4), mask_to_logits(given_masks())))
    heads = [heads_of_sam2(pair, number, memory) for number in UP]
    overlaps = torch.cat([head[2] for head in heads])
    for network in (ours.network, theirs):
        network.sam_mask_decoder.iou_prediction_head.layers[-1].bias[1:] -= overlaps.logit().mean(0)
    pair.shift_object_scores(-float(torch.cat([head[-1] for head in heads]).median()))
    return pair


def heads_of_sam2(pair: Pair, number: int, memory: Memory) -> tuple[Tensor, ...]:
    """All masks, enlarged masks, overlaps, best mask, enlarged best mask, pointer and object score."""
    features = pair.our_features(number)
    return pair.theirs._forward_sam_heads(
        backbone_features=pair.ours._attend(features.coarse, [memory], []),
        high_res_features=[features.fine, features.middle],
        multimask_output=True,
    )


def assert_equal(ours: Tensor, theirs: Tensor, *, tolerance: float = TOLERANCE) -> None:
    """Every row's difference is small beside that row's own largest value."""
    assert ours.shape == theirs.shape
    error = (ours - theirs).flatten(1).abs().amax(1) / theirs.flatten(1).abs().amax(1)
    assert error.max() < tolerance


@dataclass
class Chain:
    """Both programs from slice to slice, each with its own memories; every step is compared."""

    pair: Pair
    start: int
    reverse: bool = False
    pointers: bool = True

    def __post_init__(self) -> None:
        pair, start = self.pair, self.start
        self.output: dict[str, Any] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        given = pair.track_step(start, self.output, mask_inputs=given_masks())
        memory = pair.ours.encode_memory(pair.our_features(start), mask_to_logits(given_masks()))
        assert_equal(memory, given["maskmem_features"])
        self.memories = {start: memory}
        # The pointer of a given mask needs SAM2's mask prompt, which ours does not have.
        self.object_pointers = {start: given["obj_ptr"]}

    def decode(self, number: int) -> Decoded:
        """Ours."""
        distances = {other: abs(other - number) for other in self.memories}
        bank = [Memory(self.memories[self.start])]
        bank += [
            Memory(memory, distance=distances[other])
            for other, memory in self.memories.items()
            if other != self.start and distances[other] <= 6
        ]
        pointers = [
            Pointer(pointer, distance=distances[other])
            for other, pointer in self.object_pointers.items()
            if self.pointers
        ]
        return self.pair.ours.decode(self.pair.our_features(number), bank, pointers)

    def advance(self, number: int) -> Tensor:
        """Both, compared; returns the object scores `(4,)`."""
        theirs = self.pair.track_step(number, self.output, track_in_reverse=self.reverse)
        decoded = self.decode(number)
        memory = self.pair.ours.encode_memory(
            self.pair.our_features(number), decoded.logits, object_score=decoded.object_score
        )
        assert_equal(decoded.logits, theirs["pred_masks"])
        assert_equal(decoded.object_score.T, theirs["object_score_logits"].T)
        assert_equal(decoded.pointer, theirs["obj_ptr"])
        assert_equal(memory, theirs["maskmem_features"])
        absent = decoded.object_score[:, 0] <= 0
        assert (theirs["pred_masks"][absent] == -1024).all()
        assert torch.equal(decoded.pointer[absent], self.pair.theirs.no_obj_ptr.expand(int(absent.sum()), -1))
        self.memories[number], self.object_pointers[number] = memory, decoded.pointer
        return decoded.object_score[:, 0]
