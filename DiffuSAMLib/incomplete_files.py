"""Files that end early or are damaged, told as one sentence whatever their format."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

HINT = "The file is incomplete or damaged; copy or download it again."


@contextmanager
def telling_damage(path: Path) -> Iterator[None]:
    """Tell of what goes wrong while a file is read and unpacked.

    Raises:
        InputError: It cannot be read or unpacked, or its packed data end early.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} cannot be unpacked: {str(error).rstrip('.')}.", hint=HINT) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).", hint=HINT) from error


def require_bytes(path: Path, found: int, complete: int) -> None:
    """Check the size of a file, or of what is packed in it.

    Raises:
        InputError: It has fewer bytes than when complete.
    """
    if found < complete:
        raise InputError(f"{path} ends after {found} of {complete} bytes.", hint=HINT)
