"""A prior trained by two processes, started by accelerate and talking through gloo."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import accelerate
import pytest
import torch
from cases import small_abdomen, write_case
from safetensors.torch import load_file

from DiffuSAMLib import processes
from DiffuSAMLib.cli import main
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.processes import Processes

REPOSITORY = Path(__file__).resolve().parents[1]
# An odd batch: the two have unequal shares.
OPTIONS = [
    *("--label-names", "1=spleen,2=right kidney,3=left kidney,4=liver", "--device", "cpu"),
    *("--image-size", "64", "--batch", "5", "--iterations", "4", "--validation", "slices"),
    *("--set", "width=[16,32]", "--set", "outline_width=8", "--set", "validation.every_minutes=0"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name three small cases."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(3):
        write_case(folder, f"case{number}", small_abdomen(3 + number))
    return ["--images", str(folder / "images"), "--labels", str(folder / "labels")]


def launch(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` with two processes of one thread each."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    script = str(REPOSITORY / "DiffuSAMLib" / "train_prior.py")
    # The port is any that is free; the machine's own settings of accelerate do not matter.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(folder)}
    return subprocess.run(
        [*command, "--main_process_port", "0", script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=240,
    )


def test_two_processes_train_what_one_trains(data: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert main(["train", *data, *OPTIONS, "-o", str(one)]) == 0
    ended = launch([*data, *OPTIONS, "-o", str(two)], tmp_path)
    assert ended.returncode == 0, ended.stderr
    # Sums in another order, rounded to half precision.
    torch.testing.assert_close(load_file(two), load_file(one), atol=2e-3, rtol=2e-3)
    losses = []
    for name in ("one", "two"):
        with (tmp_path / f"{name}.run" / "losses.csv").open(newline="") as file:
            last = list(csv.DictReader(file))[-1]
        losses.append([float(last[part]) for part in ("prior", "segmentation", "outlines")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    # Only one of the two tells.
    assert ended.stdout.count("case0.nii.gz goes with case0.nii.gz.") == 1
    assert ended.stdout.count(f"{two}: spleen") == 1
    assert not (tmp_path / "two.training").exists()


def test_a_batch_too_small_to_be_shared_is_refused(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Processes, "launched", lambda device: Processes(1, 2))
    assert main(["train", *data, *OPTIONS, "--batch", "1", "-o", str(tmp_path / "p.safetensors")]) == 2
    assert "diffusam: A batch of 1 cannot be shared by 2 processes." in capsys.readouterr().err
    assert not list(tmp_path.glob("p.*"))


@pytest.mark.parametrize(("things", "count"), [(8, 2), (5, 2), (7, 3)])
def test_every_thing_is_in_one_share(things: int, count: int) -> None:
    shares = [range(things)[Processes(index, count).share(things)] for index in range(count)]
    assert [number for share in shares for number in share] == list(range(things))
    assert all(shares)


def test_one_process_alone_needs_nobody() -> None:
    alone = Processes.launched()
    assert (alone.index, alone.count, alone.main) == (0, 1, True)
    values = torch.arange(3.0)
    torch.testing.assert_close(alone.sum(values), values)
    assert alone.agree([0.5, 1]) == [0.5, 1]
    alone.wait()


def second_of_two(monkeypatch: pytest.MonkeyPatch, *, gpus: int) -> list[int]:
    """Makes this process the second one of a launched group on a computer with GPUs; gives the ones it takes."""
    taken: list[int] = []
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(processes, "choose_device", lambda name: "cuda" if name == "auto" else name)
    state = SimpleNamespace(process_index=1, num_processes=2, device=torch.device("cpu"))
    monkeypatch.setattr(accelerate, "PartialState", lambda *, cpu: state)
    return taken


@pytest.mark.parametrize(("device", "own"), [("auto", [1]), ("cuda", [1]), ("cpu", [])])
def test_a_process_takes_a_gpu_only_where_one_is_wanted(
    device: str, own: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = second_of_two(monkeypatch, gpus=2)
    assert Processes.launched(device).index == 1
    assert taken == own


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = second_of_two(monkeypatch, gpus=1)
    with pytest.raises(InputError, match="this computer has 1") as caught:
        Processes.launched("auto")
    assert "--device cpu" in caught.value.hint
    assert taken == []
    assert Processes.launched("cpu").index == 1
