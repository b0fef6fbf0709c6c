from __future__ import annotations

from pathlib import Path

import pytest
import torch

from DiffuSAMLib.anatomy import CELLS, Anatomy, load_anatomy, overview, save_anatomy
from DiffuSAMLib.anatomy_network import AnatomyConfig, AnatomyNetwork
from DiffuSAMLib.anatomy_training import AnatomyCase
from DiffuSAMLib.damaged_outlines import damage_outlines
from DiffuSAMLib.datasets import to_stack
from DiffuSAMLib.errors import WeightsError
from DiffuSAMLib.procedural import make_abdomen


def test_an_overview_has_mean_and_deviation_of_each_cell() -> None:
    squares = torch.zeros(3, 128, 128)
    squares[1, :2, :2] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    look = overview(squares)
    assert look.shape == (2, 3, CELLS, CELLS)
    assert look[:, 1, 0, 0].tolist() == [0.5, 0.5]
    assert not look[:, 0].any()


def test_the_organs_of_the_network_are_found_among_the_priors() -> None:
    network = AnatomyNetwork(AnatomyConfig(organs=("spleen", "liver"), width=(8, 16)))
    anatomy = Anatomy(network, ("liver", "pancreas", "spleen"))
    assert anatomy.known == [2, 0]


@pytest.mark.parametrize(("slices", "step"), [(1, 5.0), (30, 2.5), (4, 9.0)])
def test_a_volume_keeps_its_slices(slices: int, step: float) -> None:
    network = AnatomyNetwork(AnatomyConfig(organs=("spleen", "liver"), width=(8, 16)))
    outlines = torch.zeros(slices, 2, CELLS, CELLS)
    outlines[:, 1, 20:30, 20:30] = 1
    with torch.no_grad():
        whole = Anatomy(network, ("spleen", "liver"))(
            outlines, torch.zeros(2, slices, CELLS, CELLS), step=step
        )
    assert whole.shape == outlines.shape
    assert torch.equal(whole > 0.5, outlines > 0.5)


def test_the_bundled_network_mends_outlines_of_a_patient_that_it_has_not_seen() -> None:
    network = load_anatomy()
    organs = network.config.organs
    assert organs == ("spleen", "right kidney", "left kidney", "liver")
    abdomen = make_abdomen(3, modality="MR", shape=(40, 128, 128), spacing=(2.6, 2.6, 6.0))
    stack = to_stack(
        abdomen.volume, abdomen.labels.array, abdomen.labels.names, name="3", organs=organs, size=128
    )
    case = AnatomyCase.of(stack, organs=len(organs))
    image, truth = case.image.float(), case.parts.float()
    gains = []
    for seed in range(8):
        damaged = damage_outlines(truth, image[0], torch.Generator().manual_seed(seed))
        with torch.no_grad():
            whole = Anatomy(network, organs)(damaged.transpose(0, 1), image, step=case.step).transpose(0, 1)
        gains.append(overlap(whole, truth) - overlap(damaged, truth))
    assert min(gains) > -0.05
    assert sum(gains) / len(gains) > 0.03


def overlap(outlines: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean Dice of the organs."""
    found, there = outlines > 0.5, truth > 0.5
    each = 2 * (found & there).sum((1, 2, 3)) / (found.sum((1, 2, 3)) + there.sum((1, 2, 3)))
    return float(each.mean())


def test_a_saved_network_comes_back(tmp_path: Path) -> None:
    network = AnatomyNetwork(AnatomyConfig(organs=("spleen",), width=(8, 16)))
    save_anatomy(tmp_path / "a.safetensors", network, training={"steps": 1})
    loaded = load_anatomy(tmp_path / "a.safetensors")
    assert loaded.config == network.config
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, atol=1e-3, rtol=1e-2)


def test_another_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    import safetensors.torch

    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="does not hold an anatomy"):
        load_anatomy(path)
