"""`train_prior.py` as Python starts it, and as 3D Slicer does: by its text, within the application."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cases import LABEL_NAMES, small_abdomen, write_case

import DiffuSAMLib
from DiffuSAMLib import cli, train

SCRIPT = Path(__file__).resolve().parents[1] / "DiffuSAMLib" / "train_prior.py"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_it_is_diffusam_train(tmp_path: Path) -> None:
    write_case(tmp_path, "a", small_abdomen())
    options = ["--images", "images", "--labels", "labels", "--label-names", LABEL_NAMES, "--check-only"]
    done = run(*options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 case can be trained on: spleen" in done.stdout


def test_a_refusal_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path, "a", small_abdomen())
    folders = ["--images", str(tmp_path / "images"), "--labels", str(tmp_path / "labels")]
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main([*folders, "--label-names", "7=tail", "--check-only"]) == 2
    refused = capsys.readouterr().err
    assert refused.startswith("diffusam: ")
    assert refused.count("\n") == 1


def test_the_options_are_those_of_the_command(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--write-config" in done.stdout
    assert run("--nothing", cwd=tmp_path).returncode == 2


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes that the application was given."""
    codes: list[int] = []
    application = SimpleNamespace(app=object(), util=SimpleNamespace(exit=codes.append))
    monkeypatch.setitem(sys.modules, "slicer", application)
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])
    return codes


def run_in_slicer(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """As Slicer runs a script, which then stays open whatever the script raises."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    exec(SCRIPT.read_text(encoding="utf-8"), {"__name__": "__main__", "__file__": str(SCRIPT)})


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--nothing"], 2), ([], 2)])
def test_slicer_is_ended_with_the_code_of_the_command(
    ends: list[int], monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    run_in_slicer(monkeypatch, *arguments)
    assert ends == [code]
    assert str(SCRIPT.parent) not in sys.path


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError("a fault"), 1), (KeyboardInterrupt(), 130), (SystemExit(3), 3), (MemoryError(), 1)],
)
def test_slicer_is_ended_after_any_exception(
    ends: list[int], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(argv: object) -> int:
        raise error

    monkeypatch.setattr(cli, "main", fail)
    run_in_slicer(monkeypatch)
    assert ends == [code]


def test_the_packages_name_stays_the_function() -> None:
    assert DiffuSAMLib.train_prior is train.train_prior
