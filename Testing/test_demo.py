"""The whole method with the bundled weights, as `make demo` runs it."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from DiffuSAMLib.cli import main
from DiffuSAMLib.labelmaps import read_labelmap
from DiffuSAMLib.metrics import dice
from DiffuSAMLib.procedural import DEMO_SEED, make_abdomen
from DiffuSAMLib.procedural_stacks import FIRST_SEED


def test_the_demo_finds_all_organs_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_network(*arguments: object, **options: object) -> NoReturn:
        raise AssertionError("The demo asked for the network.")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("DIFFUSAM_HOME", str(tmp_path / "cache"))

    folder = tmp_path / "new" / "demo"
    assert main(["demo", "-o", str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert not (tmp_path / "cache").exists()
    assert {path.name for path in folder.iterdir()} == {
        "abdomen.nii.gz",
        "abdomen.seg.nrrd",
        "preview.png",
        "report.json",
    }

    abdomen = make_abdomen(DEMO_SEED)
    labels = read_labelmap(folder / "abdomen.seg.nrrd")
    assert labels.names == abdomen.labels.names
    np.testing.assert_allclose(labels.geometry.matrix, abdomen.labels.geometry.matrix, atol=1e-4)
    scores = [dice(labels.array == value, abdomen.labels.array == value) for value in labels.names]
    told = [float(value) for value in re.findall(r"ml, Dice ([\d.]+)", captured.out)]
    assert told == pytest.approx(scores, abs=6e-4)
    assert f"Mean Dice {np.mean(scores):.3f}" in captured.out

    report = json.loads((folder / "report.json").read_text(encoding="ascii"))
    assert [organ["present"] for organ in report["organs"]] == [True] * 4
    with Image.open(folder / "preview.png") as picture:
        picture.verify()
    # A little less than was measured: arithmetic differs a little from one processor to the next.
    assert np.mean(scores) > 0.9


def test_no_weights_were_trained_on_the_volume_of_the_demo() -> None:
    assert DEMO_SEED < FIRST_SEED
