"""That our three calls do what sam2's own video predictor does with the same weights, slices and masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import build_as_sam2_does, resized
from sam2_comparison import (
    COUNT,
    DOWN,
    SIZE,
    TOLERANCE,
    UP,
    Chain,
    Pair,
    assert_equal,
    enlarged,
    given_masks,
    heads_of_sam2,
    make_pair,
    save_slices,
)
from torch import Tensor
from torch.nn import functional as F

from DiffuSAMLib.backbones import Backbone, Decoded, Memory, Pointer, mask_to_logits

PAPER_SIZE = 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    save_slices(folder)
    return folder


@pytest.fixture(scope="module")
def a_tiny_pair(folder: Path, a_sam21_tiny_backbone: Backbone) -> Pair:
    return make_pair(resized(a_sam21_tiny_backbone, SIZE), folder)


@pytest.fixture(scope="module")
def a_compact_pair(folder: Path, a_compact_backbone: Backbone) -> Pair:
    return make_pair(resized(a_compact_backbone, SIZE), folder)


@pytest.fixture(params=["a_tiny_pair", "a_compact_pair"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def difference(first: Decoded, second: Decoded) -> float:
    change = (first.raw_logits - second.raw_logits).abs().max() / second.raw_logits.abs().max()
    return float(change)


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
    chain = Chain(pair, start=numbers[0], reverse=numbers.step < 0, pointers=pointers)
    for step, number in enumerate(numbers[1:]):
        # Lost on the third and the sixth slice, found again after each.
        present = step % 3 != 2
        pair.shift_object_scores(1.0 if present else -1.0)
        scores = chain.advance(number)
        pair.shift_object_scores(-1.0 if present else 1.0)
        assert ((scores > 0) == present).all()


def test_present_and_absent_objects_share_a_batch(pair: Pair) -> None:
    chain = Chain(pair, start=4)
    scores = chain.decode(5).object_score[:, 0].sort().values
    widest = int(scores.diff().argmax())
    offset = -float(scores[widest : widest + 2].mean())
    pair.shift_object_scores(offset)
    present = chain.advance(5) > 0
    assert present.any()
    assert not present.all()
    pair.shift_object_scores(1 - offset)
    chain.advance(6)
    pair.shift_object_scores(-1)


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
        assert_equal(enlarged(decoded.logits, SIZE), found[number])
        assert_equal(decoded.pointer, of_all_objects(number, "obj_ptr"))
        memory = pair.ours.encode_memory(
            pair.our_features(number), decoded.logits, object_score=decoded.object_score
        )
        assert_equal(memory, of_all_objects(number, "maskmem_features"), tolerance=2**-8)
        done.append(number)


@pytest.mark.parametrize(("size", "count"), [(PAPER_SIZE, 2), (1024, 1)])
def test_a_predictor_as_its_users_build_it_agrees_at_full_size(
    a_sam21_tiny_backbone: Backbone, size: int, count: int
) -> None:
    # With all of sam2's defaults: only the image size and the weights are ours. The largest slices take long to encode:
    # there, the same one comes twice.
    ours = resized(a_sam21_tiny_backbone, size)
    theirs: Any = build_as_sam2_does("sam2.1_tiny", f"++model.image_size={size}", postprocessing=True)
    theirs.load_state_dict(ours.network.state_dict(), strict=True)
    slices = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    slices = F.interpolate(slices, size=(size, size), mode="bicubic").clamp(0, 1)
    mask = F.interpolate(given_masks()[1:2], size=(size, size))
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    output: dict[str, Any] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    for number, key in enumerate(output):
        if number < count:
            image = theirs.forward_image((slices[number : number + 1] - mean) / deviation)
        _, features, positions, sizes = theirs._prepare_backbone_features(image)
        output[key][number] = theirs.track_step(
            frame_idx=number,
            is_init_cond_frame=number == 0,
            current_vision_feats=features,
            current_vision_pos_embeds=positions,
            feat_sizes=sizes,
            point_inputs=None,
            mask_inputs=mask if number == 0 else None,
            output_dict=output,
            num_frames=COUNT,
        )
    given, found = output["cond_frame_outputs"][0], output["non_cond_frame_outputs"][1]
    encoded = ours.encode_image(slices)
    memory = ours.encode_memory(encoded[:1], mask_to_logits(mask))
    assert_equal(memory, given["maskmem_features"])
    decoded = ours.decode(encoded[-1:], [Memory(memory)], [Pointer(given["obj_ptr"], 1)])
    assert_equal(decoded.logits, found["pred_masks"])
    assert_equal(decoded.pointer, found["obj_ptr"])


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
    assert_equal(ours.object_score.T, theirs["object_score_logits"].T)


def test_the_mask_with_the_best_predicted_overlap_is_taken(a_tiny_pair: Pair) -> None:
    pair, choices = a_tiny_pair, set()
    memory = Memory(pair.ours.encode_memory(pair.our_features(4), mask_to_logits(given_masks())))
    for number in UP:
        decoded = pair.ours.decode(pair.our_features(number), [memory])
        masks, _, overlaps, best, _, pointer, _ = heads_of_sam2(pair, number, memory)
        assert masks.shape[1] == 3
        assert_equal(decoded.iou, overlaps.amax(1, keepdim=True))
        assert_equal(decoded.logits, best)
        assert_equal(decoded.pointer, pointer)
        choices |= set(overlaps.argmax(1).tolist())
    assert choices == {0, 1, 2}


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
            pair.ours.decode(
                features, [Memory(first), Memory(second, 1)], [Pointer(decoded.pointer + 1, 15)]
            ),
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
    small = a_compact_backbone.encode_memory(features, logits)
    assert torch.equal(small, a_compact_backbone.encode_memory(features, enlarged(logits, 64)))


def test_smaller_slices_than_the_networks_own_are_decoded_as_by_a_smaller_network(
    a_compact_pair: Pair,
) -> None:
    large = a_compact_pair.ours
    small = resized(large, 64)
    slices = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    masks = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(4))
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
