from __future__ import annotations

import pytest
import torch

from DiffuSAMLib.anatomy_network import AnatomyConfig, AnatomyNetwork


def small_network() -> AnatomyNetwork:
    torch.manual_seed(0)
    return AnatomyNetwork(AnatomyConfig(organs=("spleen", "liver"), width=(8, 16)))


@pytest.mark.parametrize("slices", [2, 7, 12])
def test_any_number_of_slices_is_taken(slices: int) -> None:
    logits = small_network()(torch.rand(1, 2, slices, 16, 16) / 2, torch.rand(1, 2, slices, 16, 16))
    assert logits.shape == (1, 3, slices, 16, 16)


def test_a_new_network_leaves_outlines_as_they_are() -> None:
    outlines = torch.zeros(1, 2, 5, 16, 16)
    outlines[:, 0, 2, 4:8] = 0.9
    outlines[:, 1, 2, 9:12] = 0.9
    likely = small_network()(outlines, torch.rand(1, 2, 5, 16, 16)).softmax(1)[:, 1:]
    assert torch.equal(likely > 0.5, outlines > 0.5)


def test_slices_know_of_one_another() -> None:
    network = small_network()
    torch.nn.init.normal_(network.change.weight, std=0.1)
    outlines, image = torch.zeros(1, 2, 9, 16, 16), torch.zeros(1, 2, 9, 16, 16)
    before = network(outlines, image)
    outlines[:, :, 6] = 0.5
    assert not torch.allclose(network(outlines, image)[:, :, 3], before[:, :, 3])


def test_a_configuration_comes_back_from_its_values() -> None:
    config = AnatomyConfig(organs=("spleen",), width=(8, 16))
    assert AnatomyConfig.from_dict(config.to_dict()) == config
