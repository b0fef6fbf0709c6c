from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import AXIS_ORDERS, SIZE, cropped_abdomen, finding_segmenter, reordered, small_abdomen

from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.encoded_volume import EncodedVolume
from DiffuSAMLib.geometry import Geometry


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return finding_segmenter().backbone


def test_all_48_axis_orders_make_the_same_slices(backbone: Backbone) -> None:
    """What the network sees is the same, so what it says is too."""
    volume = cropped_abdomen()
    reference = EncodedVolume(volume, backbone)
    stack = reference.order.apply(volume.array)
    for axes, flips in AXIS_ORDERS:
        encoded = EncodedVolume(reordered(volume, axes, flips), backbone)
        np.testing.assert_array_equal(encoded.order.apply(encoded.volume.array), stack)
        assert encoded.grid == reference.grid


def live_tensor_bytes() -> int:
    return sum(o.numel() * o.element_size() for o in gc.get_objects() if issubclass(type(o), torch.Tensor))


def test_features_lie_on_disk_not_in_memory(backbone: Backbone) -> None:
    """Of a volume of any length only a chunk of features is held at a time."""
    short = small_abdomen().volume
    array = np.tile(short.array, (4, 1, 1))
    long = replace(short, array=array, geometry=Geometry((40, 96, 96), short.geometry.matrix))
    encoded = EncodedVolume(long, backbone)
    held: list[int] = []
    threads = torch.get_num_threads()
    # One lane: what a second is busy with would be counted at any point of its work.
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            encoded.encode(lambda done, total: held.append(live_tensor_bytes()))
    finally:
        torch.set_num_threads(threads)
    fine, middle, coarse = backbone.feature_channels
    record = 2 * (fine * (SIZE // 4) ** 2 + middle * (SIZE // 8) ** 2 + coarse * (SIZE // 16) ** 2)
    assert encoded.store._file.seek(0, 2) == record * len(array)
    assert len(held) == 5
    # The inner chunks hold two neighbouring slices more than the first; all features would be 32 records more.
    assert max(held) - held[0] < 4 * record


def test_slices_beside_come_from_the_store(backbone: Backbone) -> None:
    volume = small_abdomen().volume
    encoded = EncodedVolume(volume, backbone)
    with torch.no_grad():
        encoded.encode(lambda done, total: None)
    spacing = volume.geometry.spacing[2]
    features = encoded.features([1, 4], reach_mm=2 * spacing)
    below, above = encoded.features([0, 2]), encoded.features([3, 6])
    assert features.beside is not None
    assert torch.equal(features.beside.coarse, torch.cat((below.coarse, above.coarse), dim=1))
    assert encoded.features([1, 4]).beside is None
