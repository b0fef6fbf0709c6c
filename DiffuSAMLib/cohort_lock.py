"""One folder of results is written by one cohort run at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import InputError
from .file_locks import take_lock

LOCK = ".cohort.lock"


@contextmanager
def cohort_lock(folder: Path) -> Iterator[None]:
    """Within the block no other run segments into the folder, where each would remove what the other is writing.

    The system lets go of the lock when the process ends, however it ends. Where no lock can be had, the block runs
    without.

    Args:
        folder: Of the results, there already.

    Raises:
        InputError: Another run has the lock.
    """
    with ExitStack() as taken:
        with suppress(OSError):
            lock = take_lock(folder / LOCK)
            if lock is None:
                raise InputError(
                    f"Another run is segmenting into {folder}.",
                    hint="Wait until it has ended, or give another folder with -o.",
                )
            taken.callback(lock.release)
        yield
