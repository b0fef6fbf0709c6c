"""Too little memory is told as such wherever it shows, and what goes on after it works."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import EVERYWHERE, Installation, small_abdomen, write_case
from test_training import make_training
from training_runs import RECIPE

from DiffuSAMLib import segment_file
from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.checkpoints import read_checkpoint, write_checkpoint
from DiffuSAMLib.cli import main
from DiffuSAMLib.errors import DiffuSAMError, InputError, OutOfMemoryError, WeightsError
from DiffuSAMLib.evaluation import evaluate
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.prior import Prior
from DiffuSAMLib.segment_file import FileSegmenter, SegmentRequest
from DiffuSAMLib.stop_request import StopRequest
from DiffuSAMLib.train import train_prior
from DiffuSAMLib.weights import load_backbone
from DiffuSAMLib.worker import Worker

CPU = torch.device("cpu")


def fail(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def load_checkpoint(path: Path) -> None:
    read_checkpoint(path, device=CPU)


def load_weights(path: Path) -> None:
    load_backbone("compact", path=path, image_size=64)


@pytest.mark.parametrize(
    ("load", "unreadable"), [(load_checkpoint, InputError), (load_weights, WeightsError)]
)
def test_a_file_that_memory_or_disk_refuse_is_not_called_damaged(
    load: Callable[[Path], None],
    unreadable: type[DiffuSAMError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "file.pt"
    path.touch()
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(OutOfMemoryError, match=r"too little free memory for .*file\.pt"):
        load(path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(unreadable, match=r"file\.pt cannot be read \(Input/output error\)"):
        load(path)


def test_a_run_that_has_no_room_is_not_called_another_one(
    a_compact_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make_training(a_compact_backbone, tmp_path / "p.training")
    write_checkpoint(training.checkpoint, {"prior": {}})
    monkeypatch.setattr(Prior, "load_state_dict", fail)
    with pytest.raises(torch.OutOfMemoryError):
        training.resume()


@pytest.mark.parametrize("network", [Backbone, Prior])
def test_networks_that_have_no_room_are_told(
    network: type[torch.nn.Module],
    installation: Installation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installation.use(monkeypatch, tmp_path / "cache")
    write_case(tmp_path, "a", small_abdomen())
    image, labels = tmp_path / "images" / "a.nii.gz", tmp_path / "labels" / "a.nii.gz"
    cases = [LabelledFiles("a", image, labels, {1: "spleen", 4: "liver"})]
    loaded = installation.load()
    monkeypatch.setattr(network, "to", fail)
    command = ["segment", str(image), "-o", str(tmp_path / "out.nii.gz"), "--device", "cpu"]
    assert main(command) == 2
    assert "The device cpu has too little free memory for the networks." in capsys.readouterr().err
    with pytest.raises(OutOfMemoryError, match="for the networks"):
        evaluate(loaded, cases, device="cpu")
    recipe = replace(RECIPE, validation=replace(RECIPE.validation, held_out="none"))
    with pytest.raises(OutOfMemoryError, match="for this recipe"):
        train_prior(cases, tmp_path / "p.safetensors", recipe=recipe, device="cpu")


def test_networks_that_cannot_even_be_made_are_told(
    installation: Installation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installation.use(monkeypatch, tmp_path / "cache")
    write_case(tmp_path, "a", small_abdomen())
    image = str(tmp_path / "images" / "a.nii.gz")

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Backbone, "__init__", refuse)
    assert main(["segment", image, "-o", str(tmp_path / "out.nii.gz")]) == 2
    told = capsys.readouterr().err
    assert "The device cpu has too little free memory for this command. Close other programs." in told
    assert "Traceback" not in told
    events = io.StringIO()
    Worker(events, StopRequest()).run(json.dumps({"job": "segment", "image": image}))
    last = json.loads(events.getvalue().splitlines()[-1])
    assert (last["event"], last["code"]) == ("error", "oom")
    assert "for this job" in last["message"]


def test_a_segmenter_forgets_networks_that_were_moved_in_part(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's device "meta", which computes nothing, stands for a GPU that has room for the backbone alone."""
    installation.use(monkeypatch, tmp_path / "cache")
    write_case(tmp_path, "a", small_abdomen())
    monkeypatch.setattr(segment_file, "choose_device", lambda name: name)
    move = Prior.to

    def has_room(prior: Prior, device: torch.device) -> Prior:
        if device != CPU:
            fail()
        return move(prior, device)

    monkeypatch.setattr(Prior, "to", has_room)
    segmenter = FileSegmenter()
    request = SegmentRequest(tmp_path / "images" / "a.nii.gz", device="cpu", options=EVERYWHERE)
    segmenter.segment(request)
    with pytest.raises(OutOfMemoryError, match="device meta has too little free memory for the networks"):
        segmenter.segment(replace(request, device="meta"))
    assert segmenter.segment(request).device == "cpu"
