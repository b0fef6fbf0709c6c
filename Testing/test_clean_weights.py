"""What the benchmarks begin with comes out of the repository's history where its file is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import clean_weights


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_a_missing_file_is_taken_from_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, repository = tmp_path / "clean.safetensors", tmp_path / "repository"
    path.write_bytes(b"weights")
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    command = ["git", "-C", str(repository), "hash-object", "-w", str(path)]
    blob = subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    monkeypatch.setattr(clean_weights, "ROOT", repository)
    monkeypatch.setattr(clean_weights, "BLOBS", {path: blob})
    path.write_bytes(b"of mine")
    assert clean_weights.taken_from_history(path).read_bytes() == b"of mine"
    path.unlink()
    assert clean_weights.taken_from_history(path).read_bytes() == b"weights"
    path.unlink()
    # Not a repository.
    monkeypatch.setattr(clean_weights, "ROOT", tmp_path)
    assert not clean_weights.taken_from_history(path).exists()
