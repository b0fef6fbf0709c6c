"""The state of an unfinished training run on disk."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from .errors import InputError
from .files import atomic_path, make_folder
from .out_of_memory import is_out_of_memory, memory_error

# How a training is begun anew where there is an unfinished run.
RESTART = "Begin anew with --restart"


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors, numbers and texts; an earlier checkpoint stays until the new one is complete.

    Raises:
        OutputError: The file cannot be written.
    """
    # By way of memory, because torch reports a full disk as an error of its own kind.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    make_folder(path.parent, to_write=path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_checkpoint(path: Path, *, device: torch.device, anew: str = RESTART) -> dict[str, Any]:
    """Reads what `write_checkpoint` wrote, without running any code that the file may hold.

    Args:
        path: Of the file.
        device: Where its tensors are wanted.
        anew: What to do about a run that cannot be gone on with.

    Raises:
        InputError: The file cannot be read, is damaged or something else.
        OutOfMemoryError: The device has too little memory for it.
    """
    try:
        state = torch.load(path, weights_only=True, map_location=device)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}).", hint="Check its permissions and its disk."
        ) from error
    except Exception as error:  # torch raises a different class for every kind of damage
        if is_out_of_memory(error):
            raise memory_error(
                f"the run in {path}", device=device, hint="Close other programs, or choose another device."
            ) from error
        raise InputError(f"{path} holds no run that can be resumed.", hint=f"{anew}.") from error
    if not isinstance(state, dict):
        raise InputError(f"{path} holds no run that can be resumed.", hint=f"{anew}.")
    return state


def other_run_error(path: Path, *, anew: str = RESTART) -> InputError:
    """A checkpoint whose contents do not fit the run that would resume from it."""
    return InputError(
        f"{path} holds an unfinished run with other cases, other organs or another network.",
        hint=f"Resume with the options it was started with, or {anew[0].lower()}{anew[1:]}.",
    )
