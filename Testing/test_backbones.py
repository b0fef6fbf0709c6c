"""That our three calls do what sam2's own video predictor does with the same weights, slices and masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_backbone
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from DiffuSAMLib.backbones import Backbone, Decoded, ImageFeatures, Memory, Pointer, mask_to_logits
from DiffuSAMLib.sam2_network import build_network

PREDICTOR = "sam2.sam2_video_predictor.SAM2VideoPredictor"
SIZE = 256
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
    masks[0, :, 40:120, 30:100] = 1
    masks[1, :, 100:220, 120:240] = 1
    masks[2, :, 200:230, 20:50] = 1
    return masks


@dataclass
class Pair:
    """Our backbone and sam2's own predictor, with the same weights, on the same slices."""

    ours: Backbone
    theirs: Any
    state: dict[str, Any]
    features: dict[int, ImageFeatures]

    def our_features(self, number: int) -> ImageFeatures:
        return self.features[number].repeat(len(given_masks()))

    def track_step(self, number: int, output: dict[str, Any], **options: Any) -> dict[str, Any]:
        """One slice by sam2, remembered in `output`; masks in `mask_inputs` make it a conditioning one."""
        first = options.get("mask_inputs") is not None
        options = {"mask_inputs": None, "track_in_reverse": False, **options}
        _, _, features, positions, sizes = self.theirs._get_image_feature(self.state, number, len(given_masks()))
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


@torch.inference_mode()
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
    # Random weights find every object or none: an offset lets both occur.
    memory = Memory(ours.encode_memory(pair.our_features(8), mask_to_logits(given_masks())))
    scores = torch.cat([ours.decode(pair.our_features(number), [memory]).object_score for number in UP])
    for network in (ours.network, theirs):
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias -= scores.median()
    return pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    save_slices(folder)
    return folder


@pytest.fixture(scope="module")
def a_tiny_pair(folder: Path) -> Pair:
    return make_pair(random_backbone("sam2.1_tiny", image_size=SIZE), folder)


@pytest.fixture(scope="module")
def a_compact_pair(folder: Path) -> Pair:
    return make_pair(random_backbone("compact", image_size=SIZE), folder)


@pytest.fixture(params=["a_tiny_pair", "a_compact_pair"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def assert_equal(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """Every object's difference is small beside that object's own largest value."""
    assert ours.shape == theirs.shape
    error = (ours - theirs).flatten(1).abs().amax(1) / theirs.flatten(1).abs().amax(1)
    assert error.max() < tolerance


def difference(first: Decoded, second: Decoded) -> float:
    change = (first.raw_logits - second.raw_logits).abs().max() / second.raw_logits.abs().max()
    return float(change)


def chain(pair: Pair, numbers: range, *, pointers: bool) -> dict[int, Any]:
    """Both programs from slice to slice, each with its own memories; every step is compared.

    Returns:
        What sam2 found, by slice.
    """
    output: dict[str, Any] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    start = numbers[0]
    given = pair.track_step(start, output, mask_inputs=given_masks())
    memories = {start: pair.ours.encode_memory(pair.our_features(start), mask_to_logits(given_masks()))}
    assert_equal(memories[start], given["maskmem_features"])
    # The pointer of a given mask needs SAM2's mask prompt, which ours does not have.
    our_pointers = {start: given["obj_ptr"]}
    for number in numbers[1:]:
        theirs = pair.track_step(number, output, track_in_reverse=numbers.step < 0)
        distances = {other: abs(other - number) for other in memories}
        bank = [Memory(memories[start])] + [
            Memory(memories[other], distance=distances[other])
            for other in memories
            if other != start and distances[other] < 7
        ]
        decoded = pair.ours.decode(
            pair.our_features(number),
            bank,
            [Pointer(our_pointers[other], distance=distances[other]) for other in memories] if pointers else [],
        )
        memories[number] = pair.ours.encode_memory(
            pair.our_features(number), decoded.logits, object_score=decoded.object_score
        )
        our_pointers[number] = decoded.pointer
        assert_equal(decoded.logits, theirs["pred_masks"])
        assert_equal(decoded.object_score, theirs["object_score_logits"], tolerance=1e-3)
        assert_equal(decoded.pointer, theirs["obj_ptr"])
        assert_equal(memories[number], theirs["maskmem_features"])
    return output["non_cond_frame_outputs"]


def test_image_features_are_those_of_sam2(pair: Pair) -> None:
    for number, ours in pair.features.items():
        _, _, theirs, _, sizes = pair.theirs._get_image_feature(pair.state, number, 1)
        for level, sequence, size in zip(ours.levels(), theirs, sizes, strict=True):
            assert_equal(level, sequence.permute(1, 2, 0).reshape(1, -1, *size))


@pytest.mark.parametrize("numbers", [UP, DOWN], ids=["up", "down"])
@pytest.mark.parametrize("pointers", [True, False], ids=["with pointers", "without pointers"])
def test_a_chain_of_slices_is_that_of_sam2(
    pair: Pair, numbers: range, pointers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair.theirs, "use_obj_ptrs_in_encoder", pointers)
    chain(pair, numbers, pointers=pointers)


def test_the_chains_hold_present_and_absent_objects(pair: Pair) -> None:
    found = chain(pair, UP, pointers=True).values()
    scores = torch.cat([step["object_score_logits"] for step in found])
    assert (scores > 0).sum() >= 4
    assert (scores <= 0).sum() >= 4
    for step in found:
        absent = step["object_score_logits"][:, 0] <= 0
        assert (step["pred_masks"][absent] == -1024).all()
        assert (step["obj_ptr"][absent] == pair.theirs.no_obj_ptr).all()


@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
def test_masks_added_to_a_video_spread_as_in_sam2(a_tiny_pair: Pair, reverse: bool) -> None:
    # The public way: objects one at a time, memories kept as bfloat16. Ours is all objects as one batch.
    pair, start, reach = a_tiny_pair, 8, 4
    state, predictor = {**pair.state, "constants": {}}, pair.theirs
    predictor.reset_state(state)
    for row, mask in enumerate(given_masks()):
        predictor.add_new_mask(state, frame_idx=start, obj_id=row, mask=mask[0])
    found = {
        number: masks
        for number, _, masks in predictor.propagate_in_video(
            state, start_frame_idx=start, max_frame_num_to_track=reach, reverse=reverse
        )
    }
    assert len(found) == reach + 1

    def of_all_objects(number: int, key: str) -> Tensor:
        kind = "cond_frame_outputs" if number == start else "non_cond_frame_outputs"
        objects = state["output_dict_per_obj"].values()
        return torch.cat([outputs[kind][number][key].float() for outputs in objects])

    # SAM2 encodes what it shows of a given mask: at a quarter of the resolution, enlarged again.
    shown = of_all_objects(start, "pred_masks")
    given = pair.ours.encode_memory(pair.our_features(start), shown)
    assert_equal(given, of_all_objects(start, "maskmem_features"), tolerance=2**-8)
    done = [start]
    for number in list(found)[1:]:
        decoded = pair.ours.decode(
            pair.our_features(number),
            [
                Memory(
                    of_all_objects(other, "maskmem_features"),
                    distance=0 if other == start else abs(other - number),
                )
                for other in done
            ],
            [Pointer(of_all_objects(other, "obj_ptr"), distance=abs(other - number)) for other in done],
        )
        enlarged = F.interpolate(decoded.logits, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        assert_equal(enlarged, found[number])
        assert_equal(decoded.pointer, of_all_objects(number, "obj_ptr"))
        memory = pair.ours.encode_memory(
            pair.our_features(number), decoded.logits, object_score=decoded.object_score
        )
        assert_equal(memory, of_all_objects(number, "maskmem_features"), tolerance=2**-8)
        done.append(number)


def test_a_generated_memory_is_attended_like_one_given_on_the_same_slice(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Equation 3: slice 7 with its own generated memory and those of its neighbours 5 and 6.
    monkeypatch.setattr(pair.theirs, "use_obj_ptrs_in_encoder", False)
    generated, *neighbours = (
        pair.ours.encode_memory(pair.our_features(number), mask_to_logits(given_masks().roll(shift, -1)))
        for number, shift in ((7, 0), (5, 10), (6, 20))
    )
    position = pair.theirs.memory_encoder.position_encoding(generated)

    def remembered(memory: Tensor) -> dict[str, Any]:
        return {"maskmem_features": memory, "maskmem_pos_enc": [position]}

    output = {
        "cond_frame_outputs": {7: remembered(generated)},
        "non_cond_frame_outputs": {5: remembered(neighbours[0]), 6: remembered(neighbours[1])},
    }
    theirs = pair.track_step(7, output)
    ours = pair.ours.decode(
        pair.our_features(7), [Memory(generated), Memory(neighbours[1], 1), Memory(neighbours[0], 2)]
    )
    assert_equal(ours.logits, theirs["pred_masks"])
    assert_equal(ours.object_score, theirs["object_score_logits"], tolerance=1e-3)


def test_the_mask_with_the_best_predicted_overlap_is_taken(a_tiny_pair: Pair) -> None:
    pair, choices = a_tiny_pair, set()
    memory = Memory(pair.ours.encode_memory(pair.our_features(4), mask_to_logits(given_masks())))
    for number in UP:
        features = pair.our_features(number)
        decoded = pair.ours.decode(features, [memory])
        masks, _, overlaps, best, _, pointer, score = pair.theirs._forward_sam_heads(
            backbone_features=pair.ours._attend(features.coarse, [memory], []),
            high_res_features=[features.fine, features.middle],
            multimask_output=True,
        )
        assert masks.shape[1] == 3
        assert_equal(decoded.iou, overlaps.amax(1, keepdim=True))
        assert_equal(decoded.logits, best)
        assert_equal(decoded.pointer, pointer)
        choices |= set(overlaps.argmax(1).tolist())
    assert len(choices) > 1


def test_the_comparison_would_notice_a_wrong_encoding(pair: Pair) -> None:
    features = pair.our_features(8)
    first, second = (
        pair.ours.encode_memory(pair.our_features(number), mask_to_logits(given_masks())) for number in (6, 7)
    )
    decoded = pair.ours.decode(features, [Memory(first), Memory(second, 1)])
    pointers = [Pointer(decoded.pointer + 1, 1)]
    with_pointers = pair.ours.decode(features, [Memory(first), Memory(second, 1)], pointers)
    others = {
        "swapped": (pair.ours.decode(features, [Memory(second), Memory(first, 1)]), decoded),
        "another distance": (pair.ours.decode(features, [Memory(first), Memory(second, 2)]), decoded),
        "one memory less": (pair.ours.decode(features, [Memory(first)]), decoded),
        "pointers": (with_pointers, decoded),
        "another pointer distance": (
            pair.ours.decode(features, [Memory(first), Memory(second, 1)], [Pointer(decoded.pointer + 1, 5)]),
            with_pointers,
        ),
    }
    for what, (changed, reference) in others.items():
        assert difference(changed, reference) > 10 * TOLERANCE, what


def test_an_absent_object_is_remembered_as_absent(pair: Pair) -> None:
    features, logits = pair.our_features(6), mask_to_logits(given_masks())
    present = pair.ours.encode_memory(features, logits, object_score=torch.ones(4, 1))
    absent = pair.ours.encode_memory(features, logits, object_score=-torch.ones(4, 1))
    mark = pair.ours.network.no_obj_embed_spatial.view(1, -1, 1, 1)
    assert torch.allclose(absent - present, mark.expand_as(absent), atol=1e-5)
    assumed = pair.ours.encode_memory(features, logits)
    assert torch.equal(assumed[:3], present[:3])
    assert torch.equal(assumed[3], absent[3])


def test_several_objects_in_one_batch_are_decoded_as_each_alone(pair: Pair) -> None:
    features = pair.our_features(9)
    memory = pair.ours.encode_memory(features, mask_to_logits(given_masks()))
    together = pair.ours.decode(features, [Memory(memory)])
    for row in range(4):
        alone = pair.ours.decode(features[row : row + 1], [Memory(memory[row : row + 1])])
        assert_equal(together.raw_logits[row : row + 1], alone.raw_logits)
        assert_equal(together.pointer[row : row + 1], alone.pointer)


def test_masks_are_resized_to_the_slices(a_compact_backbone: Backbone) -> None:
    features = a_compact_backbone.encode_image(torch.rand(2, 3, 64, 64))
    logits = torch.randn(2, 1, 16, 16)
    enlarged = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    small = a_compact_backbone.encode_memory(features, logits)
    assert torch.equal(small, a_compact_backbone.encode_memory(features, enlarged))


def test_smaller_slices_than_the_networks_own_are_decoded_as_by_a_smaller_network(a_compact_pair: Pair) -> None:
    large = a_compact_pair.ours
    small = Backbone("compact", image_size=128).freeze()
    small.network.load_state_dict(large.network.state_dict())
    slices = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    masks = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(4))
    found = []
    for backbone in (large, small):
        features = backbone.encode_image(slices)
        memory = backbone.encode_memory(features, masks)
        found.append(backbone.decode(features, [Memory(memory), Memory(memory, 1)]))
    assert_equal(found[0].raw_logits, found[1].raw_logits)


def test_shapes_are_those_promised(a_compact_backbone: Backbone) -> None:
    features = a_compact_backbone.encode_image(torch.rand(3, 3, 64, 64))
    fine, middle, coarse = a_compact_backbone.feature_channels
    assert [level.shape for level in features.levels()] == [
        (3, fine, 16, 16),
        (3, middle, 8, 8),
        (3, coarse, 4, 4),
    ]
    assert len(features) == 3
    assert len(features[[0, 2]]) == 2
    repeated = features.repeat(2)
    assert torch.equal(repeated.coarse[:2], features.coarse[[0, 0]])
    memory = a_compact_backbone.encode_memory(features, torch.zeros(3, 1, 64, 64))
    assert memory.shape == (3, *a_compact_backbone.memory_shape) == (3, 32, 4, 4)
    decoded = a_compact_backbone.decode(features, [Memory(memory)])
    assert decoded.logits.shape == (3, 1, 16, 16)
    assert decoded.object_score.shape == decoded.iou.shape == (3, 1)
    assert decoded.pointer.shape == (3, coarse)
