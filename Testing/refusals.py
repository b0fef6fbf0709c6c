"""Fixtures of the tests of bad input: a command that must fail, and what it is given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from cases import (
    Installation,
    files_in,
    install_random_weights,
    small_abdomen,
    write_case,
)

from DiffuSAMLib.cli import main

OLD_RESULT = b"the result of an earlier run"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install_random_weights(tmp_path_factory.mktemp("installed") / "Resources")


@pytest.fixture
def random_weights(installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installation.use(monkeypatch, tmp_path / "cache")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that holds an earlier result."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "labels.nii.gz").write_bytes(OLD_RESULT)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_case(folder, "abdomen", small_abdomen())
    return folder


@pytest.fixture(scope="module")
def image(data: Path) -> Path:
    return data / "images" / "abdomen.nii.gz"


class Refusal:
    """Runs a command that must fail, and checks how it fails."""

    def __init__(self, capsys: pytest.CaptureFixture[str], out: Path) -> None:
        self.capsys, self.out = capsys, out

    def __call__(self, *command: object, says: str) -> str:
        before = files_in(self.out)
        self.capsys.readouterr()
        code = main([str(part) for part in command])
        captured = self.capsys.readouterr()
        assert code == 2, captured.err
        self.check_line(captured.err)
        assert re.search(says, captured.err), captured.err
        assert captured.out == ""
        assert files_in(self.out) == before
        return captured.err

    @staticmethod
    def check_line(text: str) -> None:
        assert text.count("\n") == 1, text
        assert re.fullmatch(r"diffusam: \S.{10,600}[.!]\)?\n", text), text
        assert "Traceback" not in text

    def image(self, image: Path, *options: object, says: str) -> str:
        """Both over an earlier result and beside it."""
        self("segment", image, "-o", self.out / "new.seg.nrrd", "--device", "cpu", *options, says=says)
        return self(
            "segment", image, "-o", self.out / "labels.nii.gz", "--device", "cpu", *options, says=says
        )


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str], out: Path) -> Refusal:
    return Refusal(capsys, out)


def training_on(data: Path, output: Path) -> list[object]:
    """The command that trains on `data`, up to what a test wants to be wrong."""
    return ["train", "--images", data / "images", "--labels", data / "labels", "-o", output / "p.safetensors"]


def write_image(path: Path, array: np.ndarray, *, vector: bool = False) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 100, shape).astype(np.float32)


def truncated(path: Path) -> None:
    write_image(path, noise(8, 32, 32))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path: Path) -> None:
    array = noise(4, 16, 16)
    array[1, 2, 3] = np.nan
    write_image(path, array)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def tampered(path: Path, content: bytes) -> None:
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
