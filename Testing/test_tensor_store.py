from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from DiffuSAMLib.errors import OutputError
from DiffuSAMLib.tensor_store import TensorStore

CPU = torch.device("cpu")
SHAPES = [(2, 8, 8), (4, 4, 4), (3,)]


def record(number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def test_tensors_come_back_in_half_precision_in_the_order_asked_for() -> None:
    with TensorStore(SHAPES) as store:
        for number in (3, 0, 7):
            store.put(number, record(number))
        found = store.get([7, 3, 3, 0], device=CPU)
    for part, shape, *expected in zip(found, SHAPES, *map(record, (7, 3, 3, 0)), strict=True):
        assert part.shape == (4, *shape)
        assert part.dtype == torch.float32
        assert torch.equal(part, torch.stack(expected).half().float())


def test_the_last_tensor_put_under_a_number_is_kept() -> None:
    with TensorStore([(2,)]) as store:
        store.put(1, [torch.zeros(2)])
        store.put(1, [torch.ones(2)])
        assert store.get([1], device=CPU)[0].tolist() == [[1, 1]]


def test_what_comes_back_may_be_changed() -> None:
    with TensorStore([(2,)]) as store:
        store.put(0, [torch.zeros(2)])
        store.get([0], device=CPU)[0].add_(1)
        assert store.get([0], device=CPU)[0].tolist() == [[0, 0]]


def test_a_record_that_was_never_stored_is_missing() -> None:
    with TensorStore(SHAPES) as store:
        store.put(5, record(5))
        assert 5 in store
        assert 4 not in store
        with pytest.raises(KeyError, match="4"):
            store.get([5, 4], device=CPU)


def test_a_closed_store_holds_nothing() -> None:
    with TensorStore(SHAPES) as store:
        store.put(0, record(0))
    assert 0 not in store
    with pytest.raises(KeyError):
        store.get([0], device=CPU)
    store.close()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A limit on the size of files stands for the end of the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_full_disk_is_said_in_one_sentence_and_spares_what_is_stored(size: int) -> None:
    with TensorStore([(size,)]) as store, files_of_at_most(3 * size):
        store.put(0, [torch.ones(size)])
        with pytest.raises(OutputError, match="cannot take the image features"):
            store.put(1, [torch.ones(size)])
        assert 1 not in store
        assert (store.get([0], device=CPU)[0] == 1).all()
