from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.finished_training import finished_prior, write_prior
from DiffuSAMLib.listing import is_file, is_folder, is_there, list_folder
from DiffuSAMLib.recipe import load_recipe
from DiffuSAMLib.training_record import resumed_recipe

TOO_LONG = "a" * 300


def test_a_folder_is_listed_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).touch()
    assert [path.name for path in list_folder(tmp_path)] == ["a", "b"]
    with pytest.raises(InputError, match=r"/a cannot be listed \(Not a directory\)\. Check its permissions"):
        list_folder(tmp_path / "a")


def test_what_is_there_is_told_apart(tmp_path: Path) -> None:
    file, folder, loop = tmp_path / "file", tmp_path / "folder", tmp_path / "loop"
    file.touch()
    folder.mkdir()
    try:
        loop.symlink_to(loop)
    except OSError:
        pytest.skip("this account may not make links")
    for path, answers in (
        (file, (True, True, False)),
        (folder, (True, False, True)),
        (loop, (False, False, False)),
        (file / "below", (False, False, False)),
        (tmp_path / "nowhere", (False, False, False)),
        (tmp_path / "zero\0", (False, False, False)),
    ):
        assert (is_there(path), is_file(path), is_folder(path)) == answers


def test_what_cannot_be_known_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"cannot be looked at \(.+\)\. Check its name"):
        is_there(tmp_path / TOO_LONG)

    def refuse(path: Path, **_: bool) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(InputError, match=r"x cannot be looked at \(Permission denied\)"):
        is_file(tmp_path / "x")


@pytest.mark.parametrize(
    "look", [finished_prior, write_prior, resumed_recipe, lambda path: load_recipe(str(path))]
)
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, look: Callable[[Path], object]) -> None:
    with pytest.raises(InputError, match="cannot be looked at"):
        look(tmp_path / TOO_LONG)
