from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import ORGANS, small_abdomen, write_case
from torch import Tensor

from DiffuSAMLib.augmentation import IntensityAugmentation, SpatialAugmentation
from DiffuSAMLib.backbones import Backbone, mask_to_logits
from DiffuSAMLib.damaged_masks import damage_masks
from DiffuSAMLib.encoded_slices import EncodedBatch
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.interrupts import Terminated, terminated_as_interrupt
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.labelled_stacks import LabelledStack
from DiffuSAMLib.prior import Prior, PriorConfig
from DiffuSAMLib.prior_files import read_prior
from DiffuSAMLib.progress import ProgressEvent
from DiffuSAMLib.recipe import Recipe, TrainingConfig
from DiffuSAMLib.slice_sampler import SliceSampler
from DiffuSAMLib.stack_pool import StackPool
from DiffuSAMLib.train import train_prior
from DiffuSAMLib.training import PriorTraining

pytestmark = pytest.mark.usefixtures("quick_trainings")
SIDE = 64
SHORT = TrainingConfig(
    iterations=4,
    batch=2,
    spatial=SpatialAugmentation(rotation=0, scale=0, shift=0, elastic=0),
    intensity=IntensityAugmentation(cross_modality=0, strength=0),
)


def one_slice(*, known: tuple[bool, bool] = (True, True)) -> LabelledStack:
    """A slice with two discs: label 1 left, label 2 right."""
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((1, SIDE, SIDE), np.uint8)
    labels[0, (y - 30) ** 2 + (x - 18) ** 2 < 120] = 1
    if known[1]:
        labels[0, (y - 30) ** 2 + (x - 46) ** 2 < 120] = 2
    image = np.full((1, SIDE, SIDE), 90, np.uint8) + 50 * labels
    return LabelledStack("disc", "CT", image, labels, np.array(known), (1.0, 1.0, 1.0))


def make_training(
    backbone: Backbone,
    checkpoint: Path,
    *,
    config: TrainingConfig = SHORT,
    stack: LabelledStack | None = None,
    kind: str = "diffusion",
    seed: int = 0,
) -> PriorTraining:
    torch.manual_seed(seed)
    shape = PriorConfig.for_backbone(
        backbone, ("spleen", "liver"), width=(16, 32), outline_width=8, kind=kind
    )
    pool = StackPool([stack or one_slice()])
    return PriorTraining(Prior(shape), backbone, pool, config=config, checkpoint=checkpoint)


def relative_fall(training: PriorTraining, name: str) -> float:
    """Mean of the last losses over that of the first."""
    values = [losses[name] for losses in training.losses]
    return float(np.mean(values[-5:]) / np.mean(values[:5]))


@pytest.mark.parametrize("kind", ["diffusion", "regression"])
def test_a_prior_learns_the_memories_of_a_slice(
    a_compact_backbone: Backbone, tmp_path: Path, kind: str
) -> None:
    """Equation 1."""
    config = replace(SHORT, iterations=28, learning_rate=0.1, segmentation_weight=0)
    training = make_training(a_compact_backbone, tmp_path / "p.training", config=config, kind=kind)
    training.run()
    assert relative_fall(training, "prior") < 0.5


def test_a_prior_learns_what_the_mask_decoder_makes_of_its_memories(
    a_compact_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equation 2, through a decoder of random weights."""
    monkeypatch.undo()  # what was measured decides how fast it learns
    config = replace(SHORT, iterations=14, learning_rate=0.1, prior_weight=0)
    training = make_training(a_compact_backbone, tmp_path / "p.training", config=config)
    training.run()
    assert relative_fall(training, "segmentation") < 0.9


@pytest.mark.parametrize("recycle", [True, False])
def test_where_guesses_are_recycled_the_truth_is_never_under_the_noise(
    a_compact_backbone: Backbone, tmp_path: Path, recycle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings on the same image, in one of which the organs lie elsewhere."""
    config = replace(SHORT, iterations=1, recycle=recycle, last_step_share=0, absent_share=0)
    stack = one_slice()
    seen = []
    for name, labels in (("as they are", stack.labels), ("lower", np.roll(stack.labels, 12, axis=1))):
        training = make_training(
            a_compact_backbone,
            tmp_path / f"{name}.training",
            config=config,
            stack=replace(stack, labels=labels),
        )
        training.prior.latent_deviation.fill_(0.01)
        denoise = training.prior.denoise
        inputs: list[Tensor] = []

        def noted(noisy: Tensor, *rest: Tensor, then=denoise, inputs=inputs) -> Tensor:
            inputs.append(noisy)
            return then(noisy, *rest)

        monkeypatch.setattr(training.prior, "denoise", noted)
        training.run()
        seen.append(inputs[-1])
    assert torch.equal(*seen) == recycle


def test_a_prior_learns_where_organs_are(a_compact_backbone: Backbone, tmp_path: Path) -> None:
    config = replace(
        SHORT, iterations=60, learning_rate=0.03, segmentation_weight=0, prior_weight=0, warmup=0
    )
    training = make_training(a_compact_backbone, tmp_path / "p.training", config=config)
    training.run()
    assert relative_fall(training, "outlines") < 0.3


class Interruption:
    """The user's Ctrl-C after some iterations."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def __call__(self, event: ProgressEvent) -> None:
        if event.done == self.iteration:
            raise KeyboardInterrupt


def assert_equal_states(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6, msg=name)


def test_a_resumed_run_equals_an_uninterrupted_one(a_compact_backbone: Backbone, tmp_path: Path) -> None:
    whole = make_training(a_compact_backbone, tmp_path / "whole.training")
    expected = whole.run()

    checkpoint = tmp_path / "cut" / "cut.training"
    first = make_training(a_compact_backbone, checkpoint)
    with pytest.raises(KeyboardInterrupt):
        first.run(Interruption(2))
    assert first.iteration == 2

    # Everything comes from the checkpoint: this prior starts from other weights.
    second = make_training(a_compact_backbone, checkpoint, seed=99)
    second.resume()
    seen: list[int] = []
    found = second.run(lambda event: seen.append(event.done))
    assert seen == [3, 4]
    assert_equal_states(found, expected)
    assert_equal_states(second.prior.state_dict(), whole.prior.state_dict())
    for one, other in zip(second.losses, whole.losses, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_draws_depend_on_the_seed_and_their_number_alone() -> None:
    config = replace(SHORT, spatial=SpatialAugmentation(), intensity=IntensityAugmentation())
    pool = StackPool([one_slice()])
    sampler, again = (SliceSampler(pool, config, context=1, reach_mm=0) for _ in range(2))
    other = SliceSampler(pool, replace(config, seed=1), context=1, reach_mm=0)
    for each in (sampler, other):
        each.seek(7)
    again.draw(1)
    again.seek(7)
    first = sampler.draw(2)
    assert torch.equal(first.images, again.draw(2).images)
    assert not torch.equal(first.images, other.draw(2).images)
    sampler.seek(8)
    assert not torch.equal(first.images, sampler.draw(2).images)
    assert first.images.shape == (2, 3, SIDE, SIDE)
    assert first.masks.shape == (2, 2, SIDE, SIDE)
    assert first.known.tolist() == [[True, True], [True, True]]


def test_slices_are_drawn_with_those_that_the_prior_sees_beside(
    a_compact_backbone: Backbone, tmp_path: Path
) -> None:
    shape = PriorConfig.for_backbone(
        a_compact_backbone, ("spleen", "liver"), width=(16, 32), outline_width=8, reach_mm=3.0
    )
    pool, checkpoint = StackPool([one_slice()]), tmp_path / "p.training"
    training = PriorTraining(Prior(shape), a_compact_backbone, pool, config=SHORT, checkpoint=checkpoint)
    training.run()
    assert EncodedBatch.of(training.slices.batch(0)).features.beside is not None


def test_an_interrupt_within_an_update_waits_for_its_end(
    a_compact_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "p.training"
    training = make_training(a_compact_backbone, checkpoint)
    step = training.optimizer.step
    monkeypatch.setattr(training.optimizer, "step", lambda: (signal.raise_signal(signal.SIGTERM), step()))
    with pytest.raises(Terminated), terminated_as_interrupt():
        training.run()
    assert (training.iteration, len(training.losses)) == (1, 1)
    saved = make_training(a_compact_backbone, checkpoint)
    saved.resume()
    assert saved.iteration == 1
    for name, value in training.prior.state_dict().items():
        assert torch.equal(saved.prior.state_dict()[name], value), name


def test_the_average_of_the_weights_is_what_training_gives(
    a_compact_backbone: Backbone, tmp_path: Path
) -> None:
    training = make_training(a_compact_backbone, tmp_path / "p.training", config=replace(SHORT, iterations=1))
    before = {name: value.clone() for name, value in training.prior.named_parameters()}
    averaged = training.run()
    for name, value in training.prior.named_parameters():
        # The first step's decay is 1/10.
        torch.testing.assert_close(averaged[name], before[name] * 0.1 + value.detach() * 0.9)
    assert any((averaged[name] != value).any() for name, value in training.prior.named_parameters())


def test_latents_are_standardised(
    a_compact_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # measured on as many slices as users' are
    training = make_training(a_compact_backbone, tmp_path / "p.training", config=replace(SHORT, iterations=1))
    averaged = training.run()
    (each,) = training.slices.encoded([5], keep=range(0))
    generator = torch.Generator().manual_seed(1)
    squares = []
    for organ, memory in each.memories.items():
        for _ in range(20):
            rough = damage_masks(each.masks[organ][None, None], generator)
            outlined = a_compact_backbone.encode_memory(
                each.features, mask_to_logits(rough), object_score=torch.ones(1, 1)
            )
            squares.append((training.prior.to_latent(memory[None], outlined) ** 2).mean())
    assert float(torch.stack(squares).mean()) == pytest.approx(1, rel=0.5)
    torch.testing.assert_close(averaged["latent_deviation"], training.prior.latent_deviation)


def test_an_organ_that_a_case_does_not_label_teaches_nothing(
    a_compact_backbone: Backbone, tmp_path: Path
) -> None:
    stack = one_slice(known=(True, False))
    training = make_training(a_compact_backbone, tmp_path / "p.training", stack=stack)
    torch.nn.init.normal_(training.prior.denoiser.conv_out.weight)
    for iteration in range(4):
        training.iteration = iteration
        training._gradients(1e-3)
        head, embedding = training.prior.outline_decoder.head, training.prior.denoiser.class_embedding
        assert head.weight.grad is not None
        assert embedding.weight.grad is not None
        assert head.weight.grad[0].any()
        assert not head.weight.grad[1].any()
        assert embedding.weight.grad[0].any()
        assert not embedding.weight.grad[1].any()


def test_the_frozen_backbone_stays_as_it_was(a_compact_backbone: Backbone, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in a_compact_backbone.state_dict().items()}
    make_training(a_compact_backbone, tmp_path / "p.training").run()
    assert_equal_states(a_compact_backbone.state_dict(), before)
    assert all(parameter.grad is None for parameter in a_compact_backbone.parameters())


def test_a_training_that_diverges_is_told(a_compact_backbone: Backbone, tmp_path: Path) -> None:
    training = make_training(a_compact_backbone, tmp_path / "p.training")
    with torch.no_grad():
        next(training.prior.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="in iteration 1 its losses are no numbers"):
        training.run()
    assert not training.checkpoint.exists()


def test_a_time_limit_ends_the_training(a_compact_backbone: Backbone, tmp_path: Path) -> None:
    config = replace(SHORT, iterations=10**6, minutes=0.01)
    training = make_training(a_compact_backbone, tmp_path / "p.training", config=config)
    training.run()
    assert 1 <= training.iteration < 1000
    assert training.seconds >= 0.6


def test_a_prior_learns_organs_that_no_single_case_labels_all(tmp_path: Path) -> None:
    """With the bundled backbone, from files to a prior file."""
    names = [{1: "spleen"}, {4: "liver", 2: "right kidney"}]
    cases = []
    for number, table in enumerate(names):
        write_case(tmp_path, f"case{number}", small_abdomen(3 + number, "CT" if number else "MR"))
        image = tmp_path / "images" / f"case{number}.nii.gz"
        cases.append(LabelledFiles(f"case{number}", image, tmp_path / "labels" / image.name, table))
    output = tmp_path / "new" / "prior.safetensors"
    config = replace(SHORT, iterations=2)
    header = train_prior(
        cases,
        output,
        recipe=Recipe(image_size=64, start="none", training=config, procedural=1, kind="regression"),
        device="cpu",
    )
    assert [label.name for label in header.labels] == ["spleen", "right kidney", "liver"]
    assert [label.value for label in header.labels] == [1, 2, 3]
    assert header.modalities == ("CT", "MR")
    assert header.backbone.image_size == 64
    assert header.config["kind"] == "regression"
    assert header.training["cases"] == ["case0", "case1"]
    assert header.training["procedural_abdomens"] == 1
    assert header.training["recipe"]["training"]["batch"] == 2
    read, tensors = read_prior(output)
    assert read.to_json() == header.to_json()
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert {path.name for path in output.parent.iterdir()} == {"prior.safetensors", "prior.run"}


def test_the_order_of_the_organs_can_be_chosen(tmp_path: Path) -> None:
    write_case(tmp_path, "case", small_abdomen())
    image = tmp_path / "images" / "case.nii.gz"
    case = LabelledFiles("case", image, tmp_path / "labels" / image.name, dict(enumerate(ORGANS, 1)))
    output = tmp_path / "prior.safetensors"
    config = replace(SHORT, iterations=1)
    header = train_prior(
        [case],
        output,
        organs=("liver", "spleen", "liver"),
        recipe=Recipe(image_size=64, start="none", training=config),
        device="cpu",
    )
    assert [label.name for label in header.labels] == ["liver", "spleen"]
    with pytest.raises(InputError, match="Procedural abdomens show only"):
        train_prior(
            [replace(case, label_names={1: "tail"})],
            tmp_path / "other.safetensors",
            recipe=Recipe(image_size=64, start="none", procedural=1, training=config),
            device="cpu",
        )


def test_a_training_can_start_from_another_prior(tmp_path: Path) -> None:
    write_case(tmp_path, "first", small_abdomen())
    write_case(tmp_path, "second", small_abdomen(4))
    cases = [
        LabelledFiles(
            name,
            tmp_path / "images" / f"{name}.nii.gz",
            tmp_path / "labels" / f"{name}.nii.gz",
            dict(enumerate(ORGANS, 1)),
        )
        for name in ("first", "second")
    ]
    still = replace(SHORT, iterations=1, learning_rate=1e-9, weight_decay=0)
    first, second, third = (tmp_path / f"{name}.safetensors" for name in ("1", "2", "3"))
    anew = Recipe(image_size=64, start="none", training=replace(still, seed=1))
    train_prior(cases[:1], first, recipe=anew, device="cpu")
    header = train_prior(
        cases[1:],
        second,
        recipe=Recipe(image_size=64, start=str(first), training=replace(still, seed=2)),
        device="cpu",
    )
    assert header.training["cases"] == ["first", "second"], "what the earlier prior saw counts as seen"
    assert header.training["started_from"]["training"]["cases"] == ["first"]
    assert header.training["recipe"]["start"] == first.name, "no folder of this computer"
    before, after = read_prior(first)[1], read_prior(second)[1]
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=2e-3, rtol=1e-2)
    train_prior(
        cases[1:],
        third,
        organs=("liver",),
        recipe=Recipe(image_size=64, start=str(first), training=still),
        device="cpu",
    )
    other = read_prior(third)[1]
    torch.testing.assert_close(
        other["outline_decoder.narrow.0.weight"],
        before["outline_decoder.narrow.0.weight"],
        atol=2e-3,
        rtol=1e-2,
    )
    assert other["denoiser.class_embedding.weight"].shape[0] == 1
