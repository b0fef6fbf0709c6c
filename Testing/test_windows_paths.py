from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from DiffuSAMLib.windows_paths import itk_path

SHORT = {
    str(Path(path)): str(Path(short))
    for path, short in {
        "/Users/Müller": "/Users/MLLER~1",
        "/Users/Müller/Bücher.nii": "/Users/MLLER~1/BCHER~1.NII",
    }.items()
}


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, as far as it tells short names."""

    def short_path(path: str, buffer: Any, size: int) -> int:
        short = SHORT.get(path)
        if short is None:
            return 0
        if size <= len(short):
            return len(short) + 1
        buffer.value = short
        return len(short)

    kernel32 = SimpleNamespace(GetShortPathNameW=short_path)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel32), raising=False)
    monkeypatch.setattr(sys, "platform", "win32")


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/Users/Müller", "/Users/MLLER~1"),
        ("/Users/Müller/Bücher.nii", "/Users/MLLER~1/BCHER~1.NII"),
        # The ending says the format, also of what is not there yet.
        ("/Users/Müller/a.nii.gz", "/Users/MLLER~1/a.nii.gz"),
        ("/Users/Ascii/a.nii.gz", "/Users/Ascii/a.nii.gz"),
        # Without short names.
        ("/Users/Bücher", "/Users/Bücher"),
        ("/Users/Bücher/a.nii.gz", "/Users/Bücher/a.nii.gz"),
    ],
)
def test_windows_tells_short_names_in_ascii(path: str, expected: str) -> None:
    assert itk_path(Path(path)) == str(Path(expected))


@pytest.mark.skipif(sys.platform == "win32", reason="Of the other systems.")
def test_elsewhere_a_path_is_as_it_is() -> None:
    assert itk_path(Path("/Users/Müller/a.nii")) == "/Users/Müller/a.nii"
