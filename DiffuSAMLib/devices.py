"""Which device to compute on, and in which precision."""

from __future__ import annotations

import functools
import logging
import re
from contextlib import AbstractContextManager, nullcontext

import torch

from .errors import InputError, OutOfMemoryError
from .out_of_memory import is_out_of_memory, memory_error

logger = logging.getLogger(__name__)


def choose_device(name: str) -> str:
    """The torch device for "auto", "cpu", "cuda", "cuda:N" or "mps".

    A GPU that this build of PyTorch has no code for, too old or too new, counts as none: PyTorch lists it all the same.

    Raises:
        InputError: The device is unknown or not there.
        OutOfMemoryError: The device that is named is full; in place of "auto" another one is taken.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        if has_cuda and _has_room_and_computes("cuda"):
            return "cuda"
        return "mps" if has_mps else "cpu"
    kind, _, number = name.partition(":")
    if not re.fullmatch("cpu|mps|cuda(:[0-9]{1,3})?", name):
        raise InputError(f'There is no device "{name}".', hint="Choose auto, cpu, cuda, cuda:N or mps.")
    there = {"cpu": True, "cuda": has_cuda, "mps": has_mps}[kind]
    if not there or (number and int(number) >= torch.cuda.device_count()) or not _computes(name):
        raise InputError(
            f"This computer has no device {name} that PyTorch can use.", hint="Use --device cpu."
        )
    return name


def _has_room_and_computes(name: str) -> bool:
    """As `_computes`; a device that is full counts as none for now, as it may have room at the next question."""
    try:
        return _computes(name)
    except OutOfMemoryError as error:
        logger.warning("%s", error.message)
        return False


@functools.cache
def _computes(name: str) -> bool:
    """Whether a device of PyTorch's can add one and one.

    Raises:
        OutOfMemoryError: It is full, which is no answer and is not kept as one.
    """
    try:
        return (torch.ones(1, device=name) + 1).item() == 2
    except (AssertionError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise memory_error(
                "anything", device=name, hint="Close what else runs on it, or use --device cpu."
            ) from error
        logger.warning("PyTorch cannot compute on %s: %s", name, str(error).partition("\n")[0])
        return False


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the GPU computes it natively; full precision elsewhere.

    float16 is never used: in SAM2's recurrent memory it loses the object.
    """
    if device.type != "cuda":
        return nullcontext()
    # PyTorch answers for the current GPU, which need not be this one.
    with torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast("cuda", dtype=torch.bfloat16) if native else nullcontext()
