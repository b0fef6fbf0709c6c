from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import pytest
import torch
from cases import Installation

from DiffuSAMLib import devices
from DiffuSAMLib.devices import autocast, choose_device
from DiffuSAMLib.errors import InputError, OutOfMemoryError
from DiffuSAMLib.out_of_memory import telling_memory


def test_auto_takes_the_gpu_where_there_is_one() -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto") == best


def test_the_processor_is_always_there() -> None:
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize(
    "name", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:²", "cuda:0:1", "mps:0", "auto:0"]
)
def test_a_name_that_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="There is no device") as caught:
        choose_device(name)
    assert "auto, cpu, cuda" in caught.value.hint


@pytest.mark.parametrize("name", ["cuda:99", "mps", "cuda"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    there = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    if there.get(name, False):
        assert choose_device(name) == name
        return
    with pytest.raises(InputError, match=f"no device {name}") as caught:
        choose_device(name)
    assert "--device cpu" in caught.value.hint


@pytest.fixture
def unusable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch lists a GPU, but the first computation there fails; here every device of CUDA does."""
    if torch.cuda.is_available():
        pytest.skip("This computer has a GPU that PyTorch can use.")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(devices, "_computes", functools.cache(devices._computes.__wrapped__))


@pytest.mark.usefixtures("unusable_gpu")
def test_a_gpu_that_pytorch_has_no_code_for_counts_as_none(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_device("auto") == ("mps" if torch.backends.mps.is_available() else "cpu")
    assert "cannot compute on cuda" in caplog.text
    for name in ("cuda", "cuda:0"):
        with pytest.raises(InputError, match=f"no device {name}"):
            choose_device(name)


@pytest.mark.usefixtures("unusable_gpu")
def test_networks_are_built_and_used_beside_a_gpu_that_cannot_be(installation: Installation) -> None:
    loaded = installation.load()
    assert torch.cuda.is_available()
    size = loaded.backbone.backbone.image_size
    loaded.backbone.backbone.encode_image(torch.zeros(1, 3, size, size))


@pytest.mark.usefixtures("unusable_gpu")
def test_networks_may_be_built_by_several_threads(installation: Installation) -> None:
    with ThreadPoolExecutor(2) as pool:
        for loading in [pool.submit(installation.load) for _ in range(2)]:
            loading.result()
    assert torch.cuda.is_available()


@pytest.mark.usefixtures("unusable_gpu")
def test_a_full_gpu_is_told_or_passed_over_for_this_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = True
    ones = torch.ones

    def make(count: int, *, device: str) -> torch.Tensor:
        if full and device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return ones(count)

    monkeypatch.setattr(torch, "ones", make)
    with pytest.raises(OutOfMemoryError, match="device cuda has too little free memory") as caught:
        choose_device("cuda")
    assert "--device cpu" in caught.value.hint
    assert choose_device("auto") == ("mps" if torch.backends.mps.is_available() else "cpu")
    assert "device cuda has too little free memory" in caplog.text
    full = False
    assert choose_device("auto") == choose_device("cuda") == "cuda"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("itkImportImageContainer.hxx:179:\nFailed to allocate memory for image."),
        RuntimeError("Exception thrown in SimpleITK ImageFileWriter_Execute: std::bad_alloc"),
    ],
)
def test_running_out_of_memory_is_one_sentence(error: Exception) -> None:
    with (
        pytest.raises(
            OutOfMemoryError, match="device cpu has too little free memory for this volume"
        ) as caught,
        telling_memory("this volume"),
    ):
        raise error
    assert caught.value.hint == "Close other programs."


def test_the_processor_itself_runs_out_of_memory() -> None:
    with (
        pytest.raises(OutOfMemoryError),
        telling_memory("this volume"),
    ):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), telling_memory("this volume"):
        raise RuntimeError("shapes do not match")


def test_the_processor_computes_in_full_precision() -> None:
    with autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_the_precision_is_that_of_the_gpu_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the second one computes bfloat16, and the first one, which is the current one, does not."""
    current = 0

    @contextmanager
    def select(device: torch.device) -> Iterator[None]:
        nonlocal current
        current, before = device.index, current
        yield
        current = before

    monkeypatch.setattr(torch.cuda, "device", select)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: current == 1)
    assert isinstance(autocast(torch.device("cuda", 0)), nullcontext)
    assert isinstance(autocast(torch.device("cuda", 1)), torch.autocast)
