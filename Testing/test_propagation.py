from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from conftest import resized
from torch import Tensor

from DiffuSAMLib.backbones import Backbone, Decoded, Memory
from DiffuSAMLib.propagation import NOTHING, Propagation, PropagationConfig

COUNT, ORGANS, SIZE = 12, 3, 64


def shift_object_scores(backbone: Backbone, offset: float) -> None:
    backbone.network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias += offset


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@dataclass
class Stack:
    """A volume's features and generated memories, and what was asked of them."""

    backbone: Backbone
    count: int = COUNT
    samples: int = 1
    decoded: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        slices = torch.rand(self.count, 3, SIZE, SIZE, generator=generator)
        self.features = self.backbone.encode_image(slices)
        shape = (self.count, ORGANS, self.samples, *self.backbone.memory_shape)
        self.generated = torch.randn(shape, generator=generator)

    def memory(self, items: Sequence[tuple[int, int, int]]) -> Tensor:
        return torch.stack([self.generated[item] for item in items])

    def propagation(self, presence: np.ndarray | None = None, **config: Any) -> Propagation:
        return Propagation(
            self.backbone,
            features=lambda numbers: self.features[list(numbers)],
            generated=self.memory,
            presence=np.ones((self.count, ORGANS)) if presence is None else presence,
            samples=self.samples,
            config=PropagationConfig(**config),
            on_decoded=lambda number, organ, mask: self.decoded.append((number, organ)),
        )

    def decode(
        self, number: int, organ: int, neighbours: Sequence[Memory] = (), *, sample: int = 0
    ) -> Decoded:
        generated = Memory(self.generated[number, organ, sample][None])
        return self.backbone.decode(self.features[[number]], [generated, *neighbours])

    def encode(self, number: int, decoded: Decoded) -> Tensor:
        return self.backbone.encode_memory(
            self.features[[number]], decoded.raw_logits, object_score=decoded.object_score
        )


@pytest.fixture(scope="module")
def a_backbone_that_finds_everything(a_compact_backbone: Backbone) -> Backbone:
    backbone = resized(a_compact_backbone, SIZE)
    shift_object_scores(backbone, 20)
    return backbone


@pytest.fixture
def a_stack(a_backbone_that_finds_everything: Backbone) -> Stack:
    return Stack(a_backbone_that_finds_everything)


def clamped(decoded: Decoded) -> np.ndarray:
    return decoded.logits[0, 0].clamp(NOTHING, -NOTHING).numpy()


def test_every_organ_is_decoded_once_in_every_slice(a_stack: Stack) -> None:
    logits = a_stack.propagation().run()
    assert logits.shape == (COUNT, ORGANS, SIZE // 4, SIZE // 4)
    assert logits.dtype == np.float16
    assert sorted(a_stack.decoded) == [(number, organ) for number in range(COUNT) for organ in range(ORGANS)]


def test_chains_run_outwards_in_both_directions(a_stack: Stack) -> None:
    a_stack.propagation(start="middle").run()
    visited = [number for number, organ in a_stack.decoded if organ == 1]
    assert visited[0] == COUNT // 2
    assert [number for number in visited if number > COUNT // 2] == list(range(COUNT // 2 + 1, COUNT))
    assert [number for number in visited if number < COUNT // 2] == list(range(COUNT // 2 - 1, -1, -1))


@pytest.mark.parametrize("bank", [1, 3])
def test_a_chain_is_equation_3(a_stack: Stack, bank: int) -> None:
    logits = a_stack.propagation(start="middle", bank=bank).run()
    start = COUNT // 2
    for direction in (1, -1):
        memories: list[tuple[int, Tensor]] = []
        number = start
        while 0 <= number < COUNT:
            neighbours = [Memory(memory, abs(number - other)) for other, memory in memories[-bank:]]
            decoded = a_stack.decode(number, 1, neighbours)
            assert np.allclose(logits[number, 1], clamped(decoded), atol=0.02)
            memories.append((number, a_stack.encode(number, decoded)))
            number += direction


def test_neighbours_make_a_difference(a_stack: Stack) -> None:
    chained, alone = a_stack.propagation().run(), a_stack.propagation(three_d=False).run()
    assert np.abs(chained.astype(float) - alone).max() > 0.1


def test_without_3d_every_slice_is_decoded_from_its_generated_memory_alone(a_stack: Stack) -> None:
    logits = a_stack.propagation(three_d=False).run()
    for number in range(COUNT):
        for organ in range(ORGANS):
            assert np.allclose(logits[number, organ], clamped(a_stack.decode(number, organ)), atol=0.02)


@pytest.mark.parametrize("three_d", [True, False])
def test_organs_unlikely_to_be_present_are_not_looked_for(a_stack: Stack, three_d: bool) -> None:
    presence = np.ones((COUNT, ORGANS))
    presence[:, 0] = 0.01
    presence[:4, 1] = presence[9:, 1] = 0.02
    logits = a_stack.propagation(presence, three_d=three_d).run()
    wanted = presence >= PropagationConfig().presence
    assert sorted(a_stack.decoded) == [tuple(item) for item in np.argwhere(wanted)]
    assert (logits[~wanted] == NOTHING).all()
    assert (logits[wanted] > NOTHING).any(axis=(1, 2)).all()


def test_nothing_wanted_gives_nothing(a_stack: Stack) -> None:
    for three_d in (True, False):
        logits = a_stack.propagation(np.zeros((COUNT, ORGANS)), three_d=three_d).run()
        assert (logits == NOTHING).all()
    assert not a_stack.decoded


def test_an_organ_that_the_object_score_denies_is_absent_and_leaves_no_memory(
    a_compact_backbone: Backbone,
) -> None:
    backbone = resized(a_compact_backbone, SIZE)
    shift_object_scores(backbone, -20)
    stack, encoded = Stack(backbone), []
    hook = backbone.network.memory_encoder.register_forward_hook(lambda *_: encoded.append(1))
    logits = stack.propagation().run()
    hook.remove()
    assert len(stack.decoded) == COUNT * ORGANS
    assert (logits == NOTHING).all()
    assert not encoded


@pytest.mark.parametrize("bank", [1, 2, 6])
def test_the_bank_is_bounded(a_stack: Stack, bank: int) -> None:
    tokens: list[int] = []
    hook = a_stack.backbone.network.memory_attention.register_forward_pre_hook(
        lambda _, __, named: tokens.append(named["memory"].shape[0]), with_kwargs=True
    )
    a_stack.propagation(bank=bank, start="middle").run()
    hook.remove()
    _, height, width = a_stack.backbone.memory_shape
    attended = [count // (height * width) for count in tokens]
    assert attended[0] == 1
    # Six slices lie above the middle and below it, of which the start is one.
    assert max(attended) == 1 + bank


def test_memories_out_of_sams_reach_are_forgotten(a_stack: Stack) -> None:
    presence = np.ones((COUNT, ORGANS))
    presence[1:8] = 0
    propagation = a_stack.propagation(presence, start="best", bank=1)
    assert propagation.start_slice(2) > 7
    logits = propagation.run()
    # The chain starts above the gap and reaches slice 0 with nothing but its generated memory.
    assert np.allclose(logits[0, 2], clamped(a_stack.decode(0, 2)), atol=0.02)


def test_memories_within_sams_reach_cross_a_gap(a_stack: Stack) -> None:
    presence = np.ones((COUNT, ORGANS))
    presence[3:8] = 0
    propagation = a_stack.propagation(presence, start="best", bank=1)
    assert propagation.start_slice(2) > 7
    logits = propagation.run()
    # The chain starts above the gap; slice 2 lies six slices from slice 8.
    assert np.abs(logits[2, 2] - clamped(a_stack.decode(2, 2))).max() > 0.1


@pytest.mark.parametrize("three_d", [True, False])
def test_samples_are_averaged_as_probabilities(
    a_backbone_that_finds_everything: Backbone, three_d: bool
) -> None:
    stack = Stack(a_backbone_that_finds_everything, samples=3)
    together = stack.propagation(three_d=three_d).run().astype(float)
    assert sorted(stack.decoded) == [(number, organ) for number in range(COUNT) for organ in range(ORGANS)]
    probability = np.zeros_like(together)
    for sample in range(3):
        single = Stack(a_backbone_that_finds_everything)
        single.generated = stack.generated[:, :, sample : sample + 1]
        probability += 1 / (1 + np.exp(-single.propagation(three_d=three_d).run().astype(float)))
    assert np.abs(1 / (1 + np.exp(-together)) - probability / 3).max() < 2e-3


def test_an_absent_organ_is_absent_in_the_average_too(a_backbone_that_finds_everything: Backbone) -> None:
    stack = Stack(a_backbone_that_finds_everything, samples=2)
    presence = np.ones((COUNT, ORGANS))
    presence[:, 1] = 0
    assert (stack.propagation(presence).run()[:, 1] == NOTHING).all()


def test_the_best_start_is_the_surest_neighbourhood(a_stack: Stack) -> None:
    presence = np.full((COUNT, ORGANS), 0.1)
    presence[1, 0] = 1.0
    presence[6:11, 0] = 0.9
    presence[2:5, 1] = 0.8
    presence[7:, 2] = 0.0
    propagation = a_stack.propagation(presence, start="best")
    assert propagation.start_slice(0) == 8
    assert propagation.start_slice(1) == 3
    assert propagation.start_slice(2) < 7


def test_the_best_start_is_a_slice_where_the_organ_is_looked_for(a_stack: Stack) -> None:
    presence = np.zeros((COUNT, ORGANS))
    presence[[3, 5], 0] = 1.0
    assert a_stack.propagation(presence, start="best").start_slice(0) in (3, 5)


def test_the_middle_start_is_the_middle_slice(a_stack: Stack) -> None:
    assert a_stack.propagation(start="middle").start_slice(0) == COUNT // 2
    assert a_stack.propagation(np.zeros((COUNT, ORGANS)), start="best").start_slice(0) == COUNT // 2


@pytest.mark.parametrize("count", range(1, 11))
def test_volumes_of_few_slices_are_chained_too(
    a_backbone_that_finds_everything: Backbone, count: int
) -> None:
    stack = Stack(a_backbone_that_finds_everything, count=count)
    logits = stack.propagation().run()
    assert len(stack.decoded) == count * ORGANS
    assert np.isfinite(logits.astype(np.float32)).all()
