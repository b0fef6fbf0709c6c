"""Which device to compute on, and in which precision."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext

import torch

from .errors import InputError


def choose_device(name: str) -> str:
    """The torch device for "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        InputError: The device is unknown or not there.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return "cuda" if has_cuda else "mps" if has_mps else "cpu"
    kind, _, number = name.partition(":")
    if not re.fullmatch("cpu|mps|cuda(:[0-9]{1,3})?", name):
        raise InputError(f'There is no device "{name}".', hint="Choose auto, cpu, cuda, cuda:N or mps.")
    there = {"cpu": True, "cuda": has_cuda, "mps": has_mps}[kind]
    if not there or (number and int(number) >= torch.cuda.device_count()):
        raise InputError(
            f"This computer has no device {name} that PyTorch can use.", hint="Use --device cpu."
        )
    return name


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the GPU computes it natively; full precision elsewhere.

    float16 is never used: in SAM2's recurrent memory it loses the object.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
