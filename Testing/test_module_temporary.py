"""Temporary folders of the module: those of a Slicer that was killed go, those in use stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

MODULE = Path(__file__).resolve().parents[1] / "DiffuSAMSegment"
# Another Slicer, as far as temporary folders are concerned: it makes one with a volume in it, and waits.
OTHER = """
import sys, types
slicer = sys.modules["slicer"] = types.ModuleType("slicer")
slicer.app = types.SimpleNamespace(temporaryPath=sys.argv[1])
from DiffuSAMSegmentLib.temporary_folder import makeTemporaryFolder
folder = makeTemporaryFolder()
(folder / "volume.nrrd").write_bytes(b"a patient")
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module's part, in a folder of the test's own."""
    monkeypatch.syspath_prepend(str(MODULE))
    for name in [name for name in sys.modules if name.startswith("DiffuSAMSegmentLib")]:
        monkeypatch.delitem(sys.modules, name)
    slicer = SimpleNamespace(app=SimpleNamespace(temporaryPath=str(tmp_path)))
    monkeypatch.setitem(sys.modules, "slicer", slicer)  # type: ignore[arg-type]
    from DiffuSAMSegmentLib import temporary_folder

    monkeypatch.delitem(sys.modules, temporary_folder.__name__)
    return temporary_folder


def start_other(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder)],
        cwd=MODULE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    return other, Path(other.stdout.readline().strip())


def make_old(folder: Path, seconds: float = 3600) -> None:
    os.utime(folder / "in-use.lock", (time.time() - seconds,) * 2)


def test_the_folder_of_a_killed_slicer_goes_with_the_next_one(temporary: Any, tmp_path: Path) -> None:
    other, left = start_other(tmp_path)
    make_old(left)
    own = temporary.makeTemporaryFolder()
    assert (left / "volume.nrrd").exists(), "another Slicer uses it"
    other.kill()
    other.communicate()
    make_old(own)
    another = temporary.makeTemporaryFolder()
    assert not left.exists()
    assert own.exists()
    for folder in (own, another):
        temporary.removeTemporaryFolder(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_is_just_being_made_or_is_not_the_modules_stays(temporary: Any, tmp_path: Path) -> None:
    made, foreign = tmp_path / "DiffuSAM-made", tmp_path / "DiffuSAM-foreign"
    for folder in (made, foreign):
        folder.mkdir()
    (made / "in-use.lock").touch()
    (tmp_path / "DiffuSAM-constraints-1.txt").touch()
    temporary.removeAbandonedFolders()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_system_without_locks_takes_the_folder_too(
    temporary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary, "_locked", lambda descriptor: False)
    folder = temporary.makeTemporaryFolder()
    assert list(folder.iterdir()) == []
    temporary.removeAbandonedFolders()
    assert folder.exists()
    temporary.removeTemporaryFolder(folder)
    assert list(tmp_path.iterdir()) == []
