"""Tensors of one shape, by number, in a temporary file: bounded memory however long the volume."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from math import prod
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from .errors import OutputError


class TensorStore:
    """Keeps groups of tensors in half precision on disk; the file has no name and dies with the process.

    Several threads may use it at once.

    Args:
        shapes: Shapes of the tensors of one record.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._shapes = [tuple(shape) for shape in shapes]
        self._sizes = [prod(shape) for shape in self._shapes]
        self._record = sum(self._sizes)
        # Lives as long as the store. Unbuffered: what a full disk refuses must not be tried again by seek or close.
        try:
            self._file = tempfile.TemporaryFile(prefix="diffusam-", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise OutputError(
                f"No temporary file can be made for the image features ({error.strerror}).",
                hint="Point TMPDIR at a folder that may be written.",
            ) from error
        self._stored: set[int] = set()
        # The file has one position for all threads.
        self._lock = threading.Lock()

    def __contains__(self, number: int) -> bool:
        return number in self._stored

    def put(self, number: int, tensors: Sequence[Tensor]) -> None:
        """Stores one record.

        Raises:
            OutputError: The disk of the temporary folder is full.
        """
        flat = torch.cat([tensor.detach().flatten().half().cpu() for tensor in tensors])
        try:
            left = flat.numpy().data.cast("B")
            with self._lock:
                self._file.seek(number * self._record * 2)
                while left:
                    left = left[self._file.write(left) :]
        except OSError as error:
            raise OutputError(
                f"The temporary folder {tempfile.gettempdir()} cannot take the image features ({error.strerror}).",
                hint="Free some space there, or point TMPDIR at a larger disk.",
            ) from error
        self._stored.add(number)

    def get(self, numbers: Sequence[int], *, device: torch.device) -> list[Tensor]:
        """Records stacked along a new first axis, one float32 tensor for each of the shapes.

        Raises:
            KeyError: A record was never stored.
        """
        rows = np.empty((len(numbers), self._record), np.float16)
        with self._lock:
            for row, number in zip(rows, numbers, strict=True):
                if number not in self._stored:
                    raise KeyError(number)
                self._file.seek(number * self._record * 2)
                row[:] = np.frombuffer(self._file.read(self._record * 2), np.float16)
        parts = torch.from_numpy(rows).to(device).float().split(self._sizes, dim=1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def close(self) -> None:
        self._file.close()
        self._stored.clear()

    def __enter__(self) -> TensorStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
