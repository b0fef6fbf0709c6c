from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_prior_files import HEADER

from DiffuSAMLib.catalogue import (
    export_file,
    import_file,
    list_weights,
    locate,
    new_prior_path,
    remove,
)
from DiffuSAMLib.cli import main
from DiffuSAMLib.content_hashes import sha256_of
from DiffuSAMLib.errors import OutputError, WeightsError
from DiffuSAMLib.prior_files import read_prior, write_prior
from DiffuSAMLib.weights_folders import prior_folder

pytestmark = pytest.mark.usefixtures("empty_cache")


def make_prior(path: Path, *, name: str = "mine", value: float = 1.0) -> Path:
    write_prior(path, dataclasses.replace(HEADER, name=name), {"w": torch.full((4,), value)})
    return path


def states() -> dict[str, str]:
    return {listed.entry.name: listed.status for listed in list_weights()}


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


def test_what_is_neither_checkpoint_nor_prior_is_refused(tmp_path: Path, empty_cache: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="pickled PyTorch file"):
        import_file(tmp_path / "other.pt")
    (tmp_path / "text.safetensors").write_text("no weights in here")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        import_file(tmp_path / "text.safetensors")
    for missing in (tmp_path / "absent", tmp_path):
        with pytest.raises(WeightsError, match="There is no file"):
            import_file(missing)
    assert not empty_cache.exists()


def test_a_tampered_prior_is_not_imported(tmp_path: Path, empty_cache: Path) -> None:
    path = make_prior(tmp_path / "x.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="was changed after it was made"):
        import_file(path)
    assert not empty_cache.exists()


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


@pytest.mark.parametrize("closed", ["", "priors", "backbones"])
def test_a_cache_that_is_closed_is_said(
    closed: str,
    empty_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The administrator, as whom tests may run, is refused nothing: here the system's calls refuse."""
    (empty_cache / closed).mkdir(parents=True)
    look = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if empty_cache / closed in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **options)

    def iterdir(path: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(Path, "iterdir", iterdir)
    name = "mine" if closed == "priors" else "sam2.1_tiny"
    assert main(["models", "remove", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "(Permission denied). Check its" in line
    with pytest.raises(WeightsError, match="Permission denied"):
        locate(name)
    # What is bundled is not lost with it.
    caplog.clear()
    assert [each.status for each in list_weights() if each.entry.bundled] == ["bundled", "bundled"]
    assert "(Permission denied). Check its" in caplog.text
    assert locate("abdomen").is_file()


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
