from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from DiffuSAMLib import catalogue
from DiffuSAMLib.catalogue import (
    fetch,
    import_file,
    list_weights,
    locate,
    remove,
)
from DiffuSAMLib.content_hashes import sha256_of
from DiffuSAMLib.errors import WeightsError
from DiffuSAMLib.resources import resource_path
from DiffuSAMLib.weights_folders import cache_folder

pytestmark = pytest.mark.usefixtures("empty_cache")
BACKBONE = b"weights of a backbone" * 1000
BUNDLED = b"bundled weights" * 100


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small catalogue whose one download comes from a server on this machine; gives the served file."""
    monkeypatch.setenv("no_proxy", "*")
    served = tmp_path / "served" / "sam.pt"
    served.parent.mkdir()
    served.write_bytes(BACKBONE)
    handler = functools.partial(QuietHandler, directory=str(served.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        weights = tmp_path / "Resources" / "Weights"
        weights.mkdir(parents=True)
        (weights / "small.safetensors").write_bytes(BUNDLED)
        url = f"http://127.0.0.1:{server.server_address[1]}/sam.pt"
        entries = [
            entry("sam", "sam.pt", BACKBONE, url=url),
            entry("small", "small.safetensors", BUNDLED, url=None),
        ]
        (weights / "catalogue.json").write_text(json.dumps({"schema_version": 1, "weights": entries}))
        monkeypatch.setattr(catalogue, "resource_path", weights.parent.joinpath)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def entry(name: str, filename: str, content: bytes, *, url: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "backbone",
        "title": name,
        "url": url,
        "filename": filename,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "licence": "Apache-2.0",
        "bundled": url is None,
        "notes": "",
    }


def states() -> dict[str, str]:
    return {listed.entry.name: listed.status for listed in list_weights()}


# The real catalogue.


def test_the_catalogue_knows_the_official_and_the_bundled_weights() -> None:
    entries = {listed.entry.name: listed.entry for listed in list_weights()}
    assert [name for name, entry in entries.items() if entry.bundled] == ["compact", "abdomen"]
    official = [entry for entry in entries.values() if not entry.bundled]
    assert [entry.name for entry in official] == [
        f"sam2.1_{size}" for size in ("tiny", "small", "base_plus", "large")
    ]
    for one in official:
        assert one.url is not None
        assert one.url.startswith("https://dl.fbaipublicfiles.com/segment_anything_2/092824/")
        assert one.url.endswith("/" + one.filename)
        assert len(bytes.fromhex(one.sha256)) == 32
        assert one.bytes > 100_000_000
        assert one.licence == "Apache-2.0"


def test_the_catalogue_has_a_schema_version() -> None:
    assert json.loads(resource_path("Weights", "catalogue.json").read_text())["schema_version"] == 1


@pytest.mark.parametrize("name", ["compact", "abdomen"])
def test_a_bundled_file_is_the_one_of_the_catalogue(name: str) -> None:
    listed = next(one for one in list_weights() if one.entry.name == name)
    if not listed.path.exists():
        pytest.skip(f"{listed.path.name} is not there")
    assert listed.path.stat().st_size == listed.entry.bytes
    assert sha256_of(listed.path) == listed.entry.sha256
    assert locate(name) == listed.path


def test_absent_official_weights_name_the_command_that_fetches_them() -> None:
    with pytest.raises(WeightsError, match="not on this computer yet") as caught:
        locate("sam2.1_tiny")
    assert 'Run "diffusam models download sam2.1_tiny" (156 MB)' in caught.value.hint
    assert "diffusam models import" in caught.value.hint


def test_a_file_with_an_official_name_and_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(WeightsError, match=r"is not Meta's sam2\.1_hiera_tiny\.pt"):
        import_file(tmp_path / "sam2.1_hiera_tiny.pt")


# The folder.


def test_the_cache_follows_the_environment(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == empty_cache
    monkeypatch.setenv("DIFFUSAM_HOME", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DIFFUSAM_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(WeightsError, match="no home folder") as raised:
        cache_folder()
    assert "DIFFUSAM_HOME" in raised.value.hint


@pytest.mark.parametrize(
    ("platform", "place"),
    [
        ("linux", (".cache", "diffusam")),
        ("darwin", ("Library", "Caches", "diffusam")),
        ("win32", ("AppData", "Local", "diffusam")),
    ],
)
def test_the_cache_lies_where_the_platform_expects_it(
    platform: str, place: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DIFFUSAM_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path.home().joinpath(*place)


def test_listing_makes_no_folder(empty_cache: Path) -> None:
    list_weights()
    assert not empty_cache.exists()


# Downloaded and bundled weights.


def test_weights_are_downloaded_once_and_found(served: Path, empty_cache: Path) -> None:
    assert states() == {"sam": "not downloaded", "small": "bundled"}
    path = fetch("sam")
    assert path.is_relative_to(empty_cache)
    assert path.read_bytes() == BACKBONE
    assert states()["sam"] == "downloaded"
    served.unlink()
    assert fetch("sam") == locate("sam") == locate("SAM") == path


def test_bundled_weights_are_found_at_once(served: Path) -> None:
    assert locate("small").read_bytes() == BUNDLED
    assert fetch("small") == locate("small")


def test_tampered_weights_are_refused_and_can_be_fetched_again(served: Path) -> None:
    path = fetch("sam")
    locate("sam")
    changed = path.stat().st_mtime_ns + 4 * 10**9
    path.write_bytes(BACKBONE[:-1] + b"!")
    # Some file systems tell whole seconds only.
    os.utime(path, ns=(changed, changed))
    assert states()["sam"] == "damaged"
    with pytest.raises(WeightsError, match=r"are damaged\. Run \"diffusam models download sam\""):
        locate("sam")
    fetch("sam")
    assert locate("sam").read_bytes() == BACKBONE


def test_tampered_weights_are_refused_though_their_time_was_set_back_before_the_first_use(
    served: Path,
) -> None:
    path = cache_folder() / "backbones" / "sam.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(BACKBONE[:-1] + b"!")
    os.utime(path, ns=(0, 0))
    assert states()["sam"] == "damaged"


def test_truncated_weights_are_refused(served: Path) -> None:
    path = fetch("sam")
    path.write_bytes(BACKBONE[:100])
    with pytest.raises(WeightsError, match="damaged"):
        locate("sam")


def test_the_hash_is_remembered_and_a_spoilt_record_is_made_again(served: Path) -> None:
    path = fetch("sam")
    record = path.with_name("sam.pt.sha256.json")
    remembered = record.read_text()
    assert json.loads(remembered)["sha256"] == sha256_of(path)
    for spoilt in ("", "[]", "{}"):
        record.write_text(spoilt)
        assert locate("sam") == path
        assert record.read_text() == remembered


def test_a_damaged_bundled_file_asks_for_a_new_installation(served: Path) -> None:
    path = locate("small")
    path.write_bytes(BUNDLED[:-1] + b"!")
    with pytest.raises(WeightsError, match="does not have the hash"):
        locate("small")
    path.unlink()
    with pytest.raises(WeightsError, match=r"is missing\. Install"):
        locate("small")
    assert states()["small"] == "damaged"


def test_an_unknown_name_is_said(served: Path) -> None:
    for call in (locate, fetch, remove):
        with pytest.raises(WeightsError, match="no weights called nothing"):
            call("nothing")


# Import.


def test_a_checkpoint_is_known_by_its_content_whatever_its_name(served: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "Download (1).bin"
    shutil.copy(served, elsewhere)
    assert import_file(elsewhere).name == "sam"
    assert import_file(elsewhere, name="sam").name == "sam"
    assert locate("sam").read_bytes() == BACKBONE
    with pytest.raises(WeightsError, match="cannot be given another name"):
        import_file(elsewhere, name="other")


def test_a_bundled_file_is_known_and_not_copied(served: Path, empty_cache: Path) -> None:
    assert import_file(locate("small")).name == "small"
    assert not empty_cache.exists()


# Removal.


def test_downloaded_weights_are_removed_with_all_that_belongs_to_them(served: Path) -> None:
    path = fetch("sam")
    for left_over in ("sam.pt.part", "sam.pt.12345678.part", ".sam.pt.lock"):
        path.with_name(left_over).write_bytes(b"left over")
    remove("sam")
    assert list(path.parent.iterdir()) == []
    with pytest.raises(WeightsError, match="not on this computer"):
        remove("sam")


def test_bundled_weights_are_not_removed(served: Path) -> None:
    with pytest.raises(WeightsError, match="part of the installation"):
        remove("small")
    assert locate("small").is_file()
