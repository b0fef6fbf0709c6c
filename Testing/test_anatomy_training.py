from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from DiffuSAMLib.anatomy import CELLS, load_anatomy
from DiffuSAMLib.anatomy_network import AnatomyConfig, AnatomyNetwork
from DiffuSAMLib.anatomy_training import AnatomyCase, AnatomyTraining, anatomy_loss, deformed
from DiffuSAMLib.datasets import LabelledStack, to_stack
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.procedural import make_abdomen

ORGANS = ("spleen", "right kidney", "left kidney", "liver")


@pytest.fixture(scope="module")
def stack() -> LabelledStack:
    abdomen = make_abdomen(2, shape=(24, 80, 80), spacing=(4.2, 4.2, 10.0))
    labels = abdomen.labels
    return to_stack(abdomen.volume, labels.array, labels.names, name="2", organs=ORGANS, size=CELLS)


@pytest.fixture(scope="module")
def case(stack: LabelledStack) -> AnatomyCase:
    return AnatomyCase.of(stack, organs=len(ORGANS))


def new_network() -> AnatomyNetwork:
    torch.manual_seed(0)
    return AnatomyNetwork(AnatomyConfig(organs=ORGANS, width=(8, 16)))


def test_a_case_has_all_organs_in_its_cells(case: AnatomyCase) -> None:
    assert case.image.shape == (2, *case.parts.shape[1:])
    assert all(case.parts.float().sum((1, 2, 3)) > 10)
    assert case.parts.sum(0).max() <= 1


def test_image_and_organs_are_deformed_alike(case: AnatomyCase) -> None:
    marked = AnatomyCase(case.parts[3:].repeat(2, 1, 1, 1), case.parts, case.step)
    for seed in range(5):
        image, parts = deformed(marked, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(image[0], parts[3])
        assert parts.shape[2:] == (CELLS, CELLS)
        assert parts.shape[1] >= 12


def test_the_script_writes_a_network_that_can_be_loaded(
    stack: LabelledStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))
    script = importlib.import_module("anatomy")
    monkeypatch.setattr(script, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(script, "procedural_stacks", lambda *_, **__: [stack])
    path = tmp_path / "a.safetensors"
    monkeypatch.setattr(sys, "argv", ["anatomy.py", "--minutes", "0.001", "-o", str(path)])
    script.main()
    assert load_anatomy(path).config.organs == ORGANS
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_loss_falls_as_the_truth_is_met(case: AnatomyCase) -> None:
    parts = case.parts.float()[None]
    truth = torch.cat([1 - parts.sum(1, keepdim=True), parts], dim=1)
    nothing = torch.zeros_like(truth)
    nothing[:, 0] = 8
    assert anatomy_loss(8 * truth, parts) < 0.2 * anatomy_loss(nothing, parts)


def test_a_stopped_run_goes_on_where_it_was(
    case: AnatomyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "run.training"
    run = AnatomyTraining(new_network(), [case], minutes=60, seed=1, checkpoint=checkpoint)
    step = run._step

    def two_steps() -> None:
        if run.steps == 2:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(run, "_step", two_steps)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    again = AnatomyTraining(new_network(), [case], minutes=0.001, seed=9, checkpoint=checkpoint)
    assert again.steps == 2
    assert again.seconds == pytest.approx(run.seconds)
    for key, value in run.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value)
    averaged = again.run()
    assert averaged.config.organs == ORGANS
    other = AnatomyNetwork(AnatomyConfig(organs=ORGANS[:2], width=(8, 16)))
    with pytest.raises(InputError, match="other organs or another network"):
        AnatomyTraining(other, [case], minutes=1, seed=0, checkpoint=checkpoint)
