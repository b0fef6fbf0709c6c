"""Any safetensors file: opened by its table, which the standard library alone reads and checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

DAMAGED_HINT = "Download, import or train it again."

_LENGTH_BYTES = 8
_LONGEST_TABLE = 100_000_000  # the limit of the safetensors format itself
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read any safetensors file, for example a backbone's weights.

    Returns:
        Its metadata, and its tensors on the CPU.

    Raises:
        WeightsError: The file is missing, not readable, incomplete, pickled or not safetensors.
    """
    content = read_content(path)
    table, _ = split_content(content)
    return metadata_of(table), load_tensors(path, content)


def read_content(path: Path) -> bytes:
    """All of a safetensors file, its table checked.

    Raises:
        WeightsError: As `read_table`.
    """
    read_table(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def load_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors of a file's content, on the CPU.

    Raises:
        WeightsError: They are damaged.
    """
    import safetensors.torch

    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError) as error:
        raise WeightsError(f"{path} is incomplete or damaged.", hint=DAMAGED_HINT) from error


def read_table(path: Path) -> dict[str, Any]:
    """The table at the start of a safetensors file: metadata, and each tensor's type, shape and place.

    Raises:
        WeightsError: The file is missing, not readable, empty, pickled, not safetensors, or shorter or longer than its
            table says.
    """
    try:
        with path.open("rb") as stream:
            return _table(path, stream, path.stat().st_size)
    except OSError as error:
        raise _unreadable(path, error) from error


def _table(path: Path, stream: BinaryIO, size: int) -> dict[str, Any]:
    if size == 0:
        raise WeightsError(f"{path} is empty.", hint=DAMAGED_HINT)
    start = stream.read(_LENGTH_BYTES + 1)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if start[_LENGTH_BYTES:] != b"{" or not 2 <= length <= _LONGEST_TABLE:
        # The first bytes of a length may be a pickle's, too.
        if len(start) > _LENGTH_BYTES and start.startswith(_PICKLE_STARTS):
            raise WeightsError(
                f"{path} is a pickled PyTorch file, which is refused because it can run code when opened.",
                hint="Use the .safetensors file.",
            )
        raise WeightsError(f"{path} is not a safetensors file.")
    incomplete = WeightsError(f"{path} is incomplete or damaged.", hint=DAMAGED_HINT)
    if _LENGTH_BYTES + length > size:
        raise incomplete
    try:
        table = json.loads(start[_LENGTH_BYTES:] + stream.read(length - 1))
        ends = [entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"]
        if max(ends, default=0) != size - _LENGTH_BYTES - length:
            raise incomplete
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise incomplete from error
    return table


def split_content(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """The table and the bytes of the tensors."""
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    return json.loads(content[_LENGTH_BYTES:end]), memoryview(content)[end:]


def metadata_of(table: dict[str, Any]) -> dict[str, str]:
    """What the writer of a file said of it."""
    metadata = table.get("__metadata__")
    if not isinstance(metadata, dict):
        return {}
    return {key: value for key, value in metadata.items() if isinstance(value, str)}


def _unreadable(path: Path, error: OSError) -> WeightsError:
    if isinstance(error, FileNotFoundError):
        return WeightsError(f"There is no file {path}.")
    return WeightsError(f"{path} cannot be read: {error.strerror or error}.")
