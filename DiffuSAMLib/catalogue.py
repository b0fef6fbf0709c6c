"""Which weights exist, where they come from and lie, and whether they are what they should be.

A file is trusted only while its sha256 is the expected one. Bundled files are small and hashed at each use.
For a downloaded one the hash is remembered beside it (``<name>.sha256.json``) with the size and time of change
of the file, and taken again as soon as either differs: whoever can set both back could as well change the program.
A prior carries the hash of its tensors, which `prior_files.read_prior` checks at each load.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .content_hashes import sha256_of
from .downloads import BytesProgress, download, parts_of
from .errors import DiffuSAMError, InputError, OutputError, WeightsError
from .files import atomic_path, make_folder
from .listing import is_file, is_folder, is_there, list_folder
from .prior_files import read_header, verify_prior
from .prior_names import LONGEST_PRIOR_NAME, is_prior_name
from .resources import resource_path
from .weights_folders import cache_folder, prior_folder

Kind = Literal["backbone", "prior"]
Status = Literal["bundled", "downloaded", "imported", "not downloaded", "damaged"]

log = logging.getLogger(__name__)
_PRIOR_SUFFIX = ".safetensors"
_LISTED_HINT = 'Run "diffusam models list" to see the names.'


@dataclass(frozen=True)
class WeightsEntry:
    """One file of weights.

    Args:
        name: What it is called on the command line.
        kind: "backbone" or "prior".
        title: Name for people.
        url: Address, or None for bundled and imported weights.
        filename: Name of the file.
        bytes: Its size.
        sha256: Its hash, hexadecimal.
        licence: Licence of the weights.
        bundled: Whether it is part of the installation.
        notes: Anything else worth knowing.
    """

    name: str
    kind: Kind
    title: str
    url: str | None
    filename: str
    bytes: int
    sha256: str
    licence: str
    bundled: bool
    notes: str


@dataclass(frozen=True)
class WeightsStatus:
    """An entry, where its file lies or would lie, and its state."""

    entry: WeightsEntry
    path: Path
    status: Status


def list_weights() -> list[WeightsStatus]:
    """All weights of the catalogue, then the user's own priors, with their states.

    What lies in a folder that is closed counts as not there, with a warning: the bundled weights can be used.
    """
    listed = []
    for entry in _catalogue():
        try:
            status = _status(entry)
        except WeightsError as error:
            log.warning("%s", error)
            status = "not downloaded"
        listed.append(WeightsStatus(entry, _path(entry), status))
    try:
        own = _user_priors()
    except WeightsError as error:
        log.warning("%s", error)
        own = []
    for path in own:
        try:
            listed.append(WeightsStatus(_prior_entry(path), path, "imported"))
        except DiffuSAMError as error:
            damaged = WeightsEntry(
                name=path.stem,
                kind="prior",
                title=path.stem,
                url=None,
                filename=path.name,
                bytes=path.stat().st_size if is_file(path) else 0,
                sha256="",
                licence="",
                bundled=False,
                notes=error.message,
            )
            listed.append(WeightsStatus(damaged, path, "damaged"))
    return listed


def locate(name: str) -> Path:
    """The file of some weights, after a check that it is the right one.

    Args:
        name: A name of the catalogue, or of one of the user's own priors.

    Raises:
        WeightsError: The name is unknown, or the file is not here or damaged; the hint says what to run.
    """
    entry = _catalogued(name)
    if entry is None:
        path = _user_prior(name)
        read_header(path)
        return path
    path, status = _path(entry), _status(entry)
    if status in ("bundled", "downloaded"):
        return path
    if entry.bundled:
        what = "does not have the hash that the catalogue says" if is_file(path) else "is missing"
        raise WeightsError(f"The bundled file {path} {what}.", hint="Install DiffuSAM Segment again.")
    what = "are damaged" if status == "damaged" else "are not on this computer yet"
    raise WeightsError(
        f"The weights {name} {what}.",
        hint=f'Run "diffusam models download {name}" ({entry.bytes / 1e6:.0f} MB), '
        f'or fetch {entry.url} elsewhere and run "diffusam models import FILE".',
    )


def fetch(name: str, *, progress: BytesProgress | None = None) -> Path:
    """Download some weights, unless they are here and undamaged.

    Args:
        name: A name of the catalogue.
        progress: Called with (bytes here, bytes in all).

    Returns:
        Their file.

    Raises:
        WeightsError: The name is unknown, the download failed, or what came is not the right file.
        OutputError: There is no space.
    """
    entry = _catalogued(name)
    if entry is None:
        return _user_prior(name)
    path = _path(entry)
    if entry.url is not None and _status(entry) != "downloaded":
        download(entry.url, path, sha256=entry.sha256, size=entry.bytes, progress=progress)
    return locate(name)


def import_file(path: Path, *, name: str | None = None) -> WeightsEntry:
    """Copy weights from a file into the cache.

    An official checkpoint is known by its sha256, whatever its file is called; a prior by its header.

    Args:
        path: The file.
        name: What to call a prior; its own name by default.

    Raises:
        WeightsError: The file is neither, or is damaged; or the name is taken or not possible.
        OutputError: The copy cannot be written.
    """
    if not is_file(path):
        raise WeightsError(f"There is no file {path}.")
    size = path.stat().st_size
    for entry in _catalogue():
        if entry.bytes == size and sha256_of(path) == entry.sha256:
            if name not in (None, entry.name):
                raise WeightsError(f"{path} is {entry.name}, which cannot be given another name.")
            if not entry.bundled:
                _copy(path, _path(entry))
            return entry
        if path.name == entry.filename and not entry.bundled:
            raise WeightsError(
                f"{path} is not Meta's {entry.filename}: its size or sha256 differs.",
                hint=f"Fetch it again from {entry.url}.",
            )
    header = verify_prior(path)
    name = header.name if name is None else name
    _require_name(name)
    target = prior_folder() / (name + _PRIOR_SUFFIX)
    taken = {other.stem.casefold(): other for other in _user_priors()}.get(name.casefold())
    if _catalogued(name) is not None or (taken is not None and sha256_of(taken) != sha256_of(path)):
        raise _name_taken(name)
    if taken is None:
        _copy(path, target)
    return _prior_entry(taken or target)


def export_file(name: str, path: str | Path) -> Path:
    """Copy weights to a file, after a check of their content.

    Args:
        name: A name of the catalogue, or of one of the user's own priors.
        path: The file, or a folder to write it to under its own name. A text that ends in a separator, and what has
            no ending, is a folder, and is made if it is not there.

    Returns:
        The file.

    Raises:
        WeightsError: The name is unknown, or the file is not here or damaged.
        OutputError: The copy cannot be written, or would replace another file.
    """
    source = locate(name)
    if source.suffix == _PRIOR_SUFFIX and source.parent == prior_folder():
        verify_prior(source)
    target = Path(path)
    to_folder = is_folder(target) or not target.suffix or str(path).endswith(("/", os.sep))
    if to_folder and not is_file(target):
        target /= source.name
    if is_there(target):
        raise OutputError(f"There is a file {target} already.", hint="Give another name, or remove it first.")
    _copy(source, target)
    return target


def new_prior_path(name: str, *, replace: bool = False) -> Path:
    """The file that a prior of the user's own will have, before it is made.

    Args:
        name: What to call it.
        replace: Whether it may take the place of one that is there.

    Raises:
        WeightsError: The name is not possible, or taken.
        OutputError: The folder of priors cannot be made.
    """
    _require_name(name)
    taken = {other.stem.casefold(): other for other in _user_priors()}.get(name.casefold())
    if _catalogued(name) is not None or (taken is not None and not replace):
        raise _name_taken(name)
    make_folder(prior_folder())
    return taken or prior_folder() / (name + _PRIOR_SUFFIX)


def _require_name(name: str) -> None:
    if not is_prior_name(name):
        raise WeightsError(
            f"A prior cannot be called {name!r}.",
            hint=f"Give a name of at most {LONGEST_PRIOR_NAME} letters, digits, dots, hyphens and underscores.",
        )


def _name_taken(name: str) -> WeightsError:
    return WeightsError(
        f"There is another prior called {name}.",
        hint='Give this one another name, or remove the other with "diffusam models remove".',
    )


def remove(name: str) -> None:
    """Delete downloaded weights or one of the user's priors with the tables and pictures of its training.

    What is left of a broken download goes too.

    Raises:
        WeightsError: The name is unknown, bundled, or not here.
        OutputError: The file cannot be deleted.
    """
    entry = _catalogued(name)
    if entry is not None and entry.bundled:
        raise WeightsError(f"The weights {name} are part of the installation and cannot be removed.")
    path = _user_prior(name) if entry is None else _path(entry)
    with _looking():
        files = [file for file in (path, *parts_of(path), _record(path)) if is_there(file)]
    if not files:
        raise WeightsError(f"The weights {name} are not on this computer.")
    try:
        for file in files:
            file.unlink()
        run = path.with_suffix(".run")
        if entry is None and is_file(run / "recipe.json"):
            shutil.rmtree(run)
    except OSError as error:
        raise OutputError(f"{path} cannot be deleted ({error.strerror or error}).") from error


def _catalogue() -> list[WeightsEntry]:
    content = json.loads(resource_path("Weights", "catalogue.json").read_text(encoding="utf-8"))
    return [WeightsEntry(**item) for item in content["weights"]]


def _catalogued(name: str) -> WeightsEntry | None:
    return next((entry for entry in _catalogue() if entry.name.casefold() == name.casefold()), None)


def _path(entry: WeightsEntry) -> Path:
    folder = resource_path("Weights") if entry.bundled else cache_folder() / f"{entry.kind}s"
    return folder / entry.filename


def _status(entry: WeightsEntry) -> Status:
    path = _path(entry)
    with _looking():
        if not is_file(path):
            return "damaged" if entry.bundled else "not downloaded"
    if path.stat().st_size != entry.bytes:
        return "damaged"
    try:
        digest = sha256_of(path) if entry.bundled else _remembered_sha256(path)
    except InputError:
        return "damaged"
    if digest != entry.sha256:
        return "damaged"
    return "bundled" if entry.bundled else "downloaded"


def _user_priors() -> list[Path]:
    """The user's prior files, without those that belong to the catalogue and those being written."""
    known = {entry.filename for entry in _catalogue()}
    folder = prior_folder()
    with _looking():
        found = list_folder(folder) if is_folder(folder) else []
    priors = (path for path in found if path.suffix == _PRIOR_SUFFIX and not path.name.startswith("."))
    return [path for path in priors if path.name not in known]


@contextmanager
def _looking() -> Iterator[None]:
    """Within it, a folder of the cache that is closed is an error of the weights, not of what the user gave."""
    try:
        yield
    except InputError as error:
        raise WeightsError(error.message, hint=error.hint) from error


def _user_prior(name: str) -> Path:
    for path in _user_priors():
        if path.stem == name:
            return path
    raise WeightsError(f"There are no weights called {name}.", hint=_LISTED_HINT)


def _prior_entry(path: Path) -> WeightsEntry:
    header = read_header(path)
    return WeightsEntry(
        name=path.stem,
        kind="prior",
        title=header.title,
        url=None,
        filename=path.name,
        bytes=path.stat().st_size,
        sha256=_remembered_sha256(path),
        licence=header.licence,
        bundled=False,
        notes=f"Made for the {header.backbone.name} backbone.",
    )


def _copy(source: Path, target: Path) -> None:
    make_folder(target.parent, to_write=target)
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256.json")


def _remembered_sha256(path: Path) -> str:
    """Hash of a file, taken only if the file changed since the last time."""
    state = path.stat()
    stamp = {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
    record = _record(path)
    try:
        remembered = json.loads(record.read_text(encoding="utf-8"))
        if {key: remembered[key] for key in stamp} == stamp:
            return str(remembered["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no record, or an unreadable one: hash the file
    digest = sha256_of(path)
    try:
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps({**stamp, "sha256": digest}), encoding="utf-8")
    except OutputError:
        pass  # a cache on a read-only disk works too, only slower
    return digest
