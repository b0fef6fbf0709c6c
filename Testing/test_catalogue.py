from __future__ import annotations

import dataclasses
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
import torch
from test_prior_files import HEADER

from DiffuSAMLib import catalogue
from DiffuSAMLib.catalogue import (
    cache_folder,
    export_file,
    fetch,
    import_file,
    list_weights,
    locate,
    new_prior_path,
    prior_folder,
    remove,
)
from DiffuSAMLib.cli import main
from DiffuSAMLib.errors import OutputError, WeightsError
from DiffuSAMLib.files import sha256_of
from DiffuSAMLib.prior_files import read_prior, write_prior
from DiffuSAMLib.resources import resource_path

BACKBONE = b"weights of a backbone" * 1000
BUNDLED = b"bundled weights" * 100


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSAM_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


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


def make_prior(path: Path, *, name: str = "mine", value: float = 1.0) -> Path:
    write_prior(path, dataclasses.replace(HEADER, name=name), {"w": torch.full((4,), value)})
    return path


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


def test_the_cache_follows_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.setenv("DIFFUSAM_HOME", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


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


def test_listing_makes_no_folder(cache: Path) -> None:
    list_weights()
    assert not cache.exists()


# Downloaded and bundled weights.


def test_weights_are_downloaded_once_and_found(served: Path, cache: Path) -> None:
    assert states() == {"sam": "not downloaded", "small": "bundled"}
    path = fetch("sam")
    assert path.is_relative_to(cache)
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
    path.write_bytes(BACKBONE[:-1] + b"!")
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


def test_a_bundled_file_is_known_and_not_copied(served: Path, cache: Path) -> None:
    assert import_file(locate("small")).name == "small"
    assert not cache.exists()


def test_an_imported_prior_is_listed_found_and_removed(tmp_path: Path) -> None:
    path = make_prior(tmp_path / "x.safetensors")
    imported = import_file(path)
    assert (imported.name, imported.kind, imported.title) == ("mine", "prior", HEADER.title)
    assert imported.sha256 == sha256_of(path)
    assert locate("mine").read_bytes() == path.read_bytes()
    assert states()["mine"] == "imported"
    remove("mine")
    assert list(prior_folder().iterdir()) == []
    with pytest.raises(WeightsError, match="no weights called mine"):
        locate("mine")


def test_an_imported_prior_can_be_given_a_name(tmp_path: Path) -> None:
    path = make_prior(tmp_path / "x.safetensors")
    assert import_file(path, name="ours").name == "ours"
    assert read_prior(locate("ours"))[0].name == "mine"


def test_the_same_prior_may_be_imported_twice_but_another_not_over_it(tmp_path: Path) -> None:
    path = make_prior(tmp_path / "x.safetensors")
    import_file(path)
    import_file(path)
    other = make_prior(tmp_path / "y.safetensors", name="Mine", value=2.0)
    with pytest.raises(WeightsError, match="another prior called Mine"):
        import_file(other)
    assert locate("mine").read_bytes() == path.read_bytes()


def test_a_prior_may_not_take_a_name_of_the_catalogue(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="another prior called abdomen"):
        import_file(make_prior(tmp_path / "x.safetensors", name="abdomen"))


@pytest.mark.parametrize("name", ["", "../out", "a/b", "a\\b", ".hidden", "a b", "x" * 65])
def test_names_that_are_no_file_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be called"):
        import_file(make_prior(tmp_path / "x.safetensors"), name=name)


def test_what_is_neither_checkpoint_nor_prior_is_refused(tmp_path: Path, cache: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="pickled PyTorch file"):
        import_file(tmp_path / "other.pt")
    (tmp_path / "text.safetensors").write_text("no weights in here")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        import_file(tmp_path / "text.safetensors")
    for missing in (tmp_path / "absent", tmp_path):
        with pytest.raises(WeightsError, match="There is no file"):
            import_file(missing)
    assert not cache.exists()


def test_a_tampered_prior_is_not_imported(tmp_path: Path, cache: Path) -> None:
    path = make_prior(tmp_path / "x.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="was changed after it was made"):
        import_file(path)
    assert not cache.exists()


def test_a_damaged_prior_is_listed_as_such_and_can_be_removed() -> None:
    prior_folder().mkdir(parents=True)
    (prior_folder() / "broken.safetensors").write_bytes(b"")
    (prior_folder() / ".1234.half.safetensors").write_bytes(b"being written")
    assert states()["broken"] == "damaged"
    assert "half" not in str(states())
    with pytest.raises(WeightsError, match="is empty"):
        locate("broken")
    remove("broken")
    assert "broken" not in states()


# Removal.


def test_downloaded_weights_are_removed_with_all_that_belongs_to_them(served: Path) -> None:
    path = fetch("sam")
    path.with_name("sam.pt.part").write_bytes(b"left over")
    remove("sam")
    assert list(path.parent.iterdir()) == []
    with pytest.raises(WeightsError, match="not on this computer"):
        remove("sam")


def test_bundled_weights_are_not_removed(served: Path) -> None:
    with pytest.raises(WeightsError, match="part of the installation"):
        remove("small")
    assert locate("small").is_file()


def test_a_prior_is_exported_for_another_computer(tmp_path: Path) -> None:
    path = make_prior(tmp_path / "x.safetensors")
    import_file(path)
    target = export_file("mine", tmp_path)
    assert target == tmp_path / "mine.safetensors"
    assert target.read_bytes() == path.read_bytes()
    with pytest.raises(OutputError, match=r"There is a file .* already"):
        export_file("mine", target)
    assert export_file("abdomen", tmp_path / "a.safetensors").stat().st_size > 0
    with pytest.raises(WeightsError, match="no weights called ours"):
        export_file("ours", tmp_path / "b.safetensors")
    (prior_folder() / "mine.safetensors").write_bytes(path.read_bytes()[:-50] + bytes(50))
    with pytest.raises(WeightsError, match=r"damaged|hash differs"):
        export_file("mine", tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("said", ["elsewhere/", "elsewhere", "far/elsewhere/", "elsewhere.d/"])
def test_a_prior_is_exported_to_a_folder_that_is_not_there_yet(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_prior(tmp_path / "x.safetensors")
    import_file(path)
    monkeypatch.chdir(tmp_path)
    target = Path(said) / "mine.safetensors"
    assert main(["models", "export", "mine", said]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert target.read_bytes() == path.read_bytes()


def test_a_file_in_the_way_of_an_exported_prior_is_told(tmp_path: Path) -> None:
    import_file(make_prior(tmp_path / "x.safetensors"))
    (tmp_path / "taken").write_text("mine")
    for said, says in (("taken", "There is a file"), ("taken/", "There is a file"), ("taken/in/", "taken")):
        with pytest.raises(OutputError, match=says):
            export_file("mine", f"{tmp_path}/{said}")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_new_prior_needs_a_possible_name_of_its_own(tmp_path: Path) -> None:
    assert new_prior_path("fresh") == prior_folder() / "fresh.safetensors"
    import_file(make_prior(tmp_path / "x.safetensors"))
    for name, says in (("a/b", "cannot be called"), ("Abdomen", "another prior"), ("MINE", "another prior")):
        with pytest.raises(WeightsError, match=says):
            new_prior_path(name)
    assert new_prior_path("MINE", replace=True) == prior_folder() / "mine.safetensors"
    with pytest.raises(WeightsError, match="another prior"):
        new_prior_path("abdomen", replace=True)


def test_a_prior_is_removed_with_the_record_of_its_training(tmp_path: Path) -> None:
    import_file(make_prior(tmp_path / "x.safetensors"))
    run = prior_folder() / "mine.run"
    run.mkdir()
    (run / "recipe.json").write_text("{}")
    (prior_folder() / "other.run").mkdir()
    remove("mine")
    assert [path.name for path in prior_folder().iterdir()] == ["other.run"]
