"""Fetching one file from the network: resumable, checked against its sha256, complete or absent."""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .content_hashes import sha256_of
from .errors import OutputError, WeightsError
from .file_locks import take_lock
from .files import output_error
from .listing import is_folder, list_folder

logger = logging.getLogger(__name__)

BytesProgress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes in all."""

_BLOCK = 1 << 20
_TIMEOUT_S = 30.0
_LOOPBACK = ("127.0.0.1", "localhost")
_OFFLINE_HINT = 'Try again to resume, or fetch {url} by other means and run "diffusam models import FILE".'


def download(url: str, path: Path, *, sha256: str, size: int, progress: BytesProgress | None = None) -> None:
    """Fetch a file; under its final name it is always complete and has the expected hash.

    What has arrived is kept beside it as ``<name>.part``, so that an interrupted download, also one that was
    killed, goes on where it stopped. One process at a time downloads a file.

    Args:
        url: An https address; plain http is accepted for this machine only.
        path: Final file; its folder is made.
        sha256: Expected hash, hexadecimal.
        size: Expected size in bytes.
        progress: Called after each block with (bytes here, bytes in all).

    Raises:
        WeightsError: The address is not https, another process is downloading the file, the network failed (the
            part stays), or what arrived is not the expected file (the part is removed).
        OutputError: There is no space, or the folder cannot be written.
    """
    _require_secure(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _own_part(path) as part:
            if part.exists() and part.stat().st_size > size:
                part.unlink()
            here = part.stat().st_size if part.exists() else 0
            _require_space(path, size - here)
            if here < size:
                _fetch(url, part, here=here, size=size, progress=progress)
            if sha256_of(part) != sha256:
                part.unlink()
                raise WeightsError(
                    f"The file at {url} is not the expected one: its sha256 differs.",
                    hint="Try again; if it happens twice, the file or the connection was tampered with.",
                )
            part.replace(path)
    except OSError as error:
        raise output_error(path, error) from error


def parts_of(path: Path) -> list[Path]:
    """What downloads of a file that were killed have left beside it.

    Raises:
        InputError: Its folder cannot be listed.
    """
    beside = list_folder(path.parent) if is_folder(path.parent) else []
    parts = [each for each in beside if each.name.startswith(f"{path.name}.") and each.suffix == ".part"]
    return [*parts, *(each for each in beside if each == _lock_of(path))]


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _own_part(path: Path) -> Iterator[Path]:
    """Where to keep what has arrived of a file; within the block nobody else writes there.

    Where the file system has no locks, the part is this download's alone and goes with it, so nothing can be resumed;
    of one that is killed it stays until the weights are removed.

    Raises:
        WeightsError: Another process is downloading the file.
        OSError: The folder takes no file.
    """
    lock = take_lock(_lock_of(path))
    if lock is None:
        raise WeightsError(
            f"Another process is downloading {path.name}: wait until it has ended, then try again."
        )
    try:
        if lock.exclusive:
            yield path.with_name(path.name + ".part")
            return
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)
    finally:
        lock.release()


def _require_secure(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise WeightsError(f"Weights are only fetched over https, which {url} is not.")


def _require_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OutputError(
            f"There is no space for {path.name}: {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free.",
            hint="Free some space, or set DIFFUSAM_HOME to a folder on another disk.",
        )


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follow a redirect only to an address that could have been asked for directly."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        _require_secure(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(url: str, part: Path, *, here: int, size: int, progress: BytesProgress | None) -> None:
    """Append to `part` until it holds `size` bytes; errors of the disk leave as OSError."""
    request = urllib.request.Request(url, headers={"User-Agent": "DiffuSAM", "Accept-Encoding": "identity"})
    if here:
        request.add_header("Range", f"bytes={here}-")
    failed = f"The download from {url} failed"
    hint = _OFFLINE_HINT.format(url=url)
    try:
        response = urllib.request.build_opener(_SecureRedirects).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and here:
            part.unlink()
            _fetch(url, part, here=0, size=size, progress=progress)
            return
        raise WeightsError(
            f"{failed}: the server answered {error.code} {error.reason}.", hint=hint
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(f"{failed}: {_reason(error)}.", hint=hint) from error

    with response:
        if not _continues(response, here):
            here = 0
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and here + int(length) != size:
            part.unlink(missing_ok=True)
            raise WeightsError(
                f"The file at {url} is not the expected one: {here + int(length)} bytes instead of {size}."
            )
        with part.open("ab" if here else "wb") as stream:
            while here < size:
                try:
                    block = response.read(min(_BLOCK, size - here))
                except (OSError, http.client.HTTPException) as error:
                    raise WeightsError(f"{failed}: {_reason(error)}.", hint=hint) from error
                if not block:
                    raise WeightsError(f"{failed}: it broke off after {here} of {size} bytes.", hint=hint)
                stream.write(block)
                here += len(block)
                if progress is not None:
                    progress(here, size)
            stream.flush()
            os.fsync(stream.fileno())
    logger.info("fetched %s (%d bytes)", url, size)


def _continues(response: http.client.HTTPResponse, here: int) -> bool:
    """Whether the answer starts at byte `here`; a server without ranges sends the file from its start."""
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and start == str(here)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return text.rstrip(".")
