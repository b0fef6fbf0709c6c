"""Too little memory: how it is recognised, and told as one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import OutOfMemoryError

# What is said where an allocation fails: by PyTorch on the processor (Linux and macOS, Windows) and on GPUs, by ITK,
# and by the libraries of C++.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "failed to allocate",
    "bad_alloc",
    "bad allocation",
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that an allocation failed, in any of the different ways."""
    told = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in told for sign in _OUT_OF_MEMORY)
    )


def memory_error(
    job: str, *, device: object = "cpu", hint: str = "Close other programs."
) -> OutOfMemoryError:
    """The error to tell of too little memory for a job."""
    return OutOfMemoryError(f"The device {device} has too little free memory for {job}.", hint=hint)


@contextmanager
def telling_memory(
    job: str, *, device: object = "cpu", hint: str = "Close other programs."
) -> Iterator[None]:
    """Turns the different ways of running out of memory into one error.

    Args:
        job: What for, as the message calls it.
        device: Where the block computes.
        hint: What to do about it.

    Raises:
        OutOfMemoryError: The block ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # Python and numpy, who raise this kind, know the computer's memory alone.
        raise memory_error(
            job, device="cpu" if isinstance(error, MemoryError) else device, hint=hint
        ) from error
