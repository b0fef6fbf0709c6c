from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from DiffuSAMLib.errors import OutputError
from DiffuSAMLib.files import atomic_path, is_same_file, make_folder, require_writable, temporary_end


def test_the_file_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "a.seg.nrrd"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith("a.seg.nrrd")
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["a.seg.nrrd"]
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_missing_folder_and_a_folder_in_the_way_are_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"), atomic_path(tmp_path / "absent" / "a.json"):
        pass
    with pytest.raises(OutputError, match="is a folder"), atomic_path(tmp_path):
        pass


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    changed = (tmp_path / "a.json").stat().st_mtime_ns
    for name in ("a.json", "b.json"):
        require_writable(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"old"
    assert (tmp_path / "a.json").stat().st_mtime_ns == changed


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(), reason="No folder here that takes no file, even of root."
)
def test_a_folder_that_takes_no_file_is_told_at_once() -> None:
    with pytest.raises(OutputError, match=r"/proc/self/a\.json cannot be written"):
        require_writable(Path("/proc/self/a.json"))


@pytest.mark.parametrize("letter", ["a", "\N{GREEK SMALL LETTER ALPHA}"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, letter: str) -> None:
    path = tmp_path / f"{letter * (244 // len(letter.encode()))}.seg.nrrd"
    try:
        path.touch()
    except OSError:
        pytest.skip("Paths are shorter here.")
    require_writable(path)
    with atomic_path(path) as temporary:
        assert temporary.name.endswith(f"{temporary_end(Path(letter))}.seg.nrrd")
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_a_writer_is_given_an_ending_in_small_letters_and_ascii(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "Größe.NII.gz") as temporary:
        assert temporary.name.endswith(".gr__e.nii.gz")
    assert [file.name for file in tmp_path.iterdir()] == ["Größe.NII.gz"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files.")
def test_a_pipe_and_a_device_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "null.json").symlink_to("/dev/null")
    (tmp_path / "file.json").touch()
    (tmp_path / "link.json").symlink_to("file.json")
    before = sorted(tmp_path.iterdir())
    for name in ("pipe.json", "null.json"):
        with pytest.raises(OutputError, match=f"{name} is a device or a pipe"):
            require_writable(tmp_path / name)
        with pytest.raises(OutputError, match="a device or a pipe"), atomic_path(tmp_path / name):
            pass
    require_writable(tmp_path / "link.json")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "pipe.json").is_fifo()


def test_files_are_the_same_however_they_are_spelled(tmp_path: Path) -> None:
    folder, other = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    other.mkdir()
    (folder / "there").touch()
    for name in ("there", "to come"):
        assert is_same_file(folder / name, other / ".." / "a" / name)
        assert not is_same_file(folder / name, other / name)
    assert is_same_file(folder / "To Come", folder / "to come")
    assert not is_same_file(folder / "there", folder / "to come")


def test_files_in_a_linked_folder_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    try:
        (tmp_path / "link").symlink_to("a", target_is_directory=True)
    except OSError:
        pytest.skip("Links are not allowed here.")
    assert is_same_file(tmp_path / "a" / "X.nii", tmp_path / "link" / "x.nii")
    (tmp_path / "a" / "x.nii").touch()
    assert is_same_file(tmp_path / "a" / "x.nii", tmp_path / "link" / "x.nii")


def test_a_folder_is_made_with_those_it_lies_in(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=f"^{re.escape(str(tmp_path / 'file'))} cannot be written"):
        make_folder(tmp_path / "file")
    with pytest.raises(OutputError, match=r"prior\.safetensors cannot be written"):
        make_folder(tmp_path / "file", to_write=tmp_path / "file" / "prior.safetensors")


def test_a_name_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"aaa\.json cannot be written"):
        require_writable(tmp_path / f"{'a' * 300}.json")
    with pytest.raises(OutputError, match=r"caf\\udce9\.json holds a character that is not UTF-8"):
        require_writable(tmp_path / "caf\udce9.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="No device that is always full here.")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="not enough space"),
        atomic_path(tmp_path / "a.json"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="Root may write anywhere.")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="may not be written"), atomic_path(tmp_path / "a.json"):
            pass
        with pytest.raises(OutputError, match="may not be written"):
            require_writable(tmp_path / "a.json")
    finally:
        tmp_path.chmod(0o700)
