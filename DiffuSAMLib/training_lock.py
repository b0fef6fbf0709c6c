"""One prior is trained by one run at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import InputError
from .file_locks import held
from .training_paths import lock_path


@contextmanager
def training_lock(output: Path) -> Iterator[None]:
    """Within the block nobody else trains or finishes the same prior, where locks can be had (see `held`).

    Args:
        output: Prior file. Its folder is made where there is none, and goes again if it stays empty.

    Raises:
        InputError: Another run has the lock.
    """
    path = lock_path(output)
    with ExitStack() as taken:
        with suppress(OSError):
            made = [folder for folder in path.parents if not folder.exists()]
            taken.callback(_remove_empty, made)
            path.parent.mkdir(parents=True, exist_ok=True)
        # What to do is in the sentence: the Slicer module leaves out the hints of input errors.
        refusal = InputError(
            f"Another run is training {output}: wait until it has ended, or give the prior another name."
        )
        with held(path, refusal=refusal):
            yield


def _remove_empty(folders: Sequence[Path]) -> None:
    """Removes those that are empty, the innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
