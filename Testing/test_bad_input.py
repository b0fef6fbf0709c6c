"""Whatever is wrong, the user gets one sentence and exit code 2, and no file is left or lost."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from cases import (
    LABEL_NAMES,
    Installation,
    files_in,
    install_random_weights,
    json_events,
    read_array,
    small_abdomen,
    write_case,
)
from PIL import Image
from safetensors.torch import save_file

from DiffuSAMLib.cli import main
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.prior_files import HEADER_KEY
from DiffuSAMLib.segmentation_files import write_scalar

REPOSITORY = Path(__file__).resolve().parents[1]
OLD_RESULT = b"the result of an earlier run"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install_random_weights(tmp_path_factory.mktemp("installed") / "Resources")


@pytest.fixture(autouse=True)
def _use_random_weights(installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
        try:
            code = main([str(part) for part in command])
        except SystemExit as error:  # how argparse refuses
            code = error.code
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


def write_image(path: Path, array: np.ndarray, *, vector: bool = False) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 100, shape).astype(np.float32)


def truncated(path: Path) -> None:
    write_image(path, noise(8, 32, 32))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_and_packed(path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(noise(8, 32, 32)), str(path), useCompression=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path: Path) -> None:
    array = noise(4, 16, 16)
    array[1, 2, 3] = np.nan
    write_image(path, array)


def png(path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


BAD_IMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing.nii.gz", lambda path: None, "no file or folder"),
    ("empty.nii.gz", Path.touch, "is empty"),
    ("empty.nrrd", Path.touch, "is empty"),
    ("truncated.nii.gz", truncated, "cannot be unpacked"),
    ("truncated.nii", truncated, r"ends after \d+ of \d+ bytes"),
    ("truncated.nrrd", truncated, "cannot be read as an image"),
    ("truncated.mha", truncated, "cannot be read as an image"),
    ("packed.nrrd", truncated_and_packed, "cannot be read as an image"),
    ("packed.mha", truncated_and_packed, "cannot be read as an image"),
    ("text.nii.gz", lambda path: path.write_text("Dear colleague"), "cannot be"),
    (
        "packed_text.nii.gz",
        lambda path: path.write_bytes(gzip.compress(b"Dear colleague")),
        "no NIfTI header",
    ),
    ("text.nrrd", lambda path: path.write_text("Dear colleague"), "cannot be read as an image"),
    ("letter.txt", lambda path: path.write_text("Dear colleague"), "not a kind of image"),
    ("picture.nii.gz", png, "cannot be"),
    ("picture.nrrd", png, "cannot be read as an image|flat"),
    ("picture.png", png, "not a kind of image"),
    ("flat.nii.gz", lambda path: write_image(path, noise(16, 16)), "flat image"),
    ("flat.mha", lambda path: write_image(path, noise(16, 16)), "flat image"),
    ("series.nii.gz", lambda path: write_image(path, noise(3, 4, 16, 16)), "4 dimensions"),
    ("series.nrrd", lambda path: write_image(path, noise(3, 4, 16, 16)), "4 dimensions"),
    ("colour.nrrd", lambda path: write_image(path, noise(4, 16, 16, 3), vector=True), "3 values a voxel"),
    ("nan.nii.gz", with_nan, "1 voxels that are not finite"),
    ("nan.nrrd", with_nan, "1 voxels that are not finite"),
    ("constant.nii.gz", lambda path: write_image(path, np.full((4, 9, 9), 7, np.int16)), "every voxel"),
    ("constant.mha", lambda path: write_image(path, np.zeros((4, 9, 9), np.int16)), "every voxel"),
    ("folder", Path.mkdir, "DICOM"),
]


@pytest.mark.parametrize(("name", "make", "says"), BAD_IMAGES, ids=[name for name, *_ in BAD_IMAGES])
def test_a_bad_image_is_refused(
    tmp_path: Path, refuse: Refusal, name: str, make: Callable[[Path], object], says: str
) -> None:
    make(tmp_path / name)
    assert name in refuse.image(tmp_path / name, says=says)


BAD_OPTIONS: list[tuple[list[str], str]] = [
    (["--organs", "pancreas"], "does not know pancreas. It knows: spleen"),
    (["--organs", ","], "names no organ"),
    (["--steps", "0"], "1 to 1000, not 0"),
    (["--steps", "1001"], "1 to 1000, not 1001"),
    (["--steps", "two"], "invalid int value: 'two'"),
    (["--samples", "0"], "1 or more, not 0"),
    (["--seed", "-1"], "seed must be 0"),
    (["--device", "tpu"], 'no device "tpu". Choose auto'),
    (["--device", "cuda:99"], "no device cuda:99"),
    (["--modality", "PET"], "invalid choice"),
    (["--series", "2"], "not a DICOM folder"),
    (["--confidence", "confidence.png"], "does not end like"),
    (["--preview", "preview.jpg"], "does not end like"),
    (["--report", "nowhere/report.json"], "no folder nowhere"),
    (["--report", "."], "is a folder"),
    (["--prior", "nobody"], "no weights called nobody"),
    (["--colour", "red"], "unrecognized arguments"),
]


@pytest.mark.parametrize(("options", "says"), BAD_OPTIONS, ids=[" ".join(o) for o, _ in BAD_OPTIONS])
def test_a_bad_option_is_refused(image: Path, refuse: Refusal, options: list[str], says: str) -> None:
    refuse.image(image, *options, says=says)


@pytest.mark.parametrize("name", ["labels", "labels.png", "labels.nii.gz.txt", ".nrrd"])
def test_an_output_of_unknown_ending_is_refused(image: Path, refuse: Refusal, name: str) -> None:
    refuse("segment", image, "-o", refuse.out / name, says="Choose one of .seg.nrrd, .nii.gz")


def test_a_missing_output_folder_is_refused(image: Path, refuse: Refusal) -> None:
    refuse("segment", image, "-o", refuse.out / "nowhere" / "labels.nrrd", says="no folder .*nowhere")
    assert not (refuse.out / "nowhere").exists()


def test_the_image_itself_is_not_overwritten(data: Path, refuse: Refusal) -> None:
    image = refuse.out / "image.nii.gz"
    shutil.copyfile(data / "images" / "abdomen.nii.gz", image)
    refuse("segment", image, "-o", image, says="the image itself")


def edited_prior(prior: Path, target: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a prior with another header over the same tensors."""
    content = prior.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:end])
    header = json.loads(table["__metadata__"][HEADER_KEY])
    edit(header)
    table["__metadata__"][HEADER_KEY] = json.dumps(header)
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
    return target


BAD_HEADERS: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    (
        "another backbone's weights",
        lambda header: header["backbone"].update(weights_sha256="0" * 64),
        "made for other weights of the backbone compact",
    ),
    (
        "a backbone that is not here",
        lambda header: header["backbone"].update(name="sam2.1_tiny"),
        'Run "diffusam models download sam2.1_tiny"',
    ),
    (
        "an unknown backbone",
        lambda header: header["backbone"].update(name="sam9"),
        "no weights called sam9",
    ),
    (
        "another size of slices",
        lambda header: header["backbone"].update(image_size=100),
        "multiple of 32",
    ),
    ("a newer format", lambda header: header.update(schema_version=99), "newer DiffuSAM"),
    ("no labels", lambda header: header.update(labels=[]), "no labels"),
    ("an unknown setting", lambda header: header["config"].update(magic=1), "cannot build"),
    ("an impossible width", lambda header: header["config"].update(width=[33, 65]), "cannot build"),
    ("another width", lambda header: header["config"].update(width=[16, 32]), "other names or shapes"),
    ("other organs", lambda header: header["config"].update(organs=["a", "b", "c", "d"]), "contradicts"),
    (
        "other features",
        lambda header: header["config"].update(feature_channels=[8, 16, 32]),
        "contradicts",
    ),
]


@pytest.mark.parametrize(("what", "edit", "says"), BAD_HEADERS, ids=[what for what, *_ in BAD_HEADERS])
def test_a_prior_whose_header_tells_of(
    image: Path,
    refuse: Refusal,
    tmp_path: Path,
    installation: Installation,
    what: str,
    edit: Callable[[dict[str, Any]], object],
    says: str,
) -> None:
    prior = edited_prior(installation.prior, tmp_path / "prior.safetensors", edit)
    refuse.image(image, "--prior", prior, says=says)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def tampered(path: Path, content: bytes) -> None:
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])


BAD_PRIORS: list[tuple[str, Callable[[Path, bytes], object], str]] = [
    ("missing", lambda path, content: None, "no file"),
    ("empty", lambda path, content: path.touch(), "is empty"),
    ("truncated", lambda path, content: path.write_bytes(content[:-1000]), "incomplete or damaged"),
    ("longer", lambda path, content: path.write_bytes(content + b"more"), "incomplete or damaged"),
    ("tampered", tampered, "changed after it was made"),
    ("text", lambda path, content: path.write_text("Dear colleague"), "not a safetensors file"),
    ("other", lambda path, content: save_file({"x": torch.zeros(3)}, path), "not a DiffuSAM prior"),
]


@pytest.mark.parametrize(("what", "make", "says"), BAD_PRIORS, ids=[what for what, *_ in BAD_PRIORS])
def test_a_bad_prior_file_is_refused(
    image: Path,
    refuse: Refusal,
    tmp_path: Path,
    installation: Installation,
    what: str,
    make: Callable[[Path, bytes], object],
    says: str,
) -> None:
    prior = tmp_path / f"{what}.safetensors"
    make(prior, installation.prior.read_bytes())
    refuse.image(image, "--prior", prior, says=says)


def test_pickled_weights_are_refused_and_never_run(image: Path, refuse: Refusal, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    for name in ("prior.safetensors", "prior.pt"):
        torch.save({"model": Trap(trap)}, tmp_path / name)
        refuse.image(image, "--prior", tmp_path / name, says="pickled PyTorch file")
        (tmp_path / name).write_bytes(pickle.dumps(Trap(trap)))
        refuse.image(image, "--prior", tmp_path / name, says="pickled PyTorch file")
    assert not trap.exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "tampered", "pickled"])
def test_a_bad_backbone_is_refused(
    image: Path,
    refuse: Refusal,
    tmp_path: Path,
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    shutil.copytree(installation.resources, tmp_path / "Resources")
    broken = Installation(tmp_path / "Resources")
    broken.use(monkeypatch, tmp_path / "cache")
    content = broken.backbone.read_bytes()
    trap = tmp_path / "sprung"
    if damage == "missing":
        broken.backbone.unlink()
    elif damage == "truncated":
        broken.backbone.write_bytes(content[: len(content) // 2])
    elif damage == "tampered":
        tampered(broken.backbone, content)
    else:
        torch.save({"model": Trap(trap)}, broken.backbone)
    refuse.image(image, says="is missing" if damage == "missing" else "does not have the hash")
    assert not trap.exists()


def test_missing_sam21_weights_name_the_command_that_fetches_them(data: Path, refuse: Refusal) -> None:
    command = [
        "train",
        "--images",
        data / "images",
        "--labels",
        data / "labels",
        "-o",
        refuse.out / "p.safetensors",
    ]
    refuse(
        *command,
        "--label-names",
        LABEL_NAMES,
        "--backbone",
        "sam2.1_tiny",
        says='not on this computer yet. Run "diffusam models download sam2.1_tiny"',
    )


@pytest.mark.parametrize("damage", ["truncated", "pickled"])
def test_damaged_sam21_weights_are_refused_and_never_run(
    data: Path, refuse: Refusal, tmp_path: Path, damage: str
) -> None:
    cached = tmp_path / "cache" / "backbones" / "sam2.1_hiera_tiny.pt"
    cached.parent.mkdir(parents=True)
    trap = tmp_path / "sprung"
    torch.save({"model": {"weight": torch.zeros(50)} if damage == "truncated" else Trap(trap)}, cached)
    command = [
        "train",
        "--images",
        data / "images",
        "--labels",
        data / "labels",
        "-o",
        refuse.out / "p.safetensors",
    ]
    options = ["--label-names", LABEL_NAMES, "--backbone", "sam2.1_tiny"]
    refuse(*command, *options, says='are damaged. Run "diffusam models download sam2.1_tiny"')
    refuse("models", "import", cached, says="is not Meta's sam2.1_hiera_tiny.pt")
    assert not trap.exists()


def copied(data: Path, target: Path) -> Path:
    shutil.copytree(data, target)
    return target


def on_another_grid(folder: Path) -> None:
    """Labels of the right shape, a slice further up."""
    path = folder / "labels" / "abdomen.nii.gz"
    labels = sitk.ReadImage(str(path))
    labels.SetOrigin([a + b for a, b in zip(labels.GetOrigin(), (0, 0, 20), strict=True)])
    sitk.WriteImage(labels, str(path))


def of_another_shape(folder: Path) -> None:
    path = folder / "labels" / "abdomen.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path))[:, :, :-1], str(path))


def without_labels(folder: Path) -> None:
    write_image(folder / "labels" / "abdomen.nii.gz", np.zeros((10, 96, 96), np.uint8))


def with_the_image_as_labels(folder: Path) -> None:
    shutil.copyfile(folder / "images" / "abdomen.nii.gz", folder / "labels" / "abdomen.nii.gz")


def with_other_names(folder: Path) -> None:
    (folder / "labels" / "abdomen.nii.gz").rename(folder / "labels" / "somebody_else.nii.gz")


BAD_CASES: list[tuple[Callable[[Path], object], str]] = [
    (on_another_grid, "another grid than the image"),
    (of_another_shape, "another grid than the image"),
    (without_labels, "holds no label"),
    (with_the_image_as_labels, "not whole numbers|labels from 0 to 255"),
    (lambda folder: shutil.rmtree(folder / "labels"), "There is no folder"),
    (lambda folder: with_nan(folder / "images" / "abdomen.nii.gz"), "not finite"),
    (lambda folder: truncated(folder / "labels" / "abdomen.nii.gz"), "cannot be unpacked"),
]


@pytest.mark.parametrize("command", ["evaluate", "train"])
@pytest.mark.parametrize(("spoil", "says"), BAD_CASES)
def test_a_bad_labelled_case_is_refused(
    data: Path, tmp_path: Path, refuse: Refusal, command: str, spoil: Callable[[Path], object], says: str
) -> None:
    folder = copied(data, tmp_path / "data")
    spoil(folder)
    options = ["--images", folder / "images", "--labels", folder / "labels", "--label-names", LABEL_NAMES]
    if command == "train":
        options += ["-o", refuse.out / "p.safetensors", "--image-size", 128]
    else:
        options += ["--report", refuse.out / "scores.json"]
    refuse(command, *options, "--device", "cpu", says=says)


def test_no_labels_for_any_image_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = copied(data, tmp_path / "data")
    with_other_names(folder)
    options = ["--images", str(folder / "images"), "--labels", str(folder / "labels")]
    assert main(["evaluate", *options, "--label-names", LABEL_NAMES]) == 2
    assert "has a label map of the same name" in capsys.readouterr().err
    assert "abdomen.nii.gz has no label map" in caplog.text


BAD_TRAININGS: list[tuple[list[str], str]] = [
    (["--label-names", "spleen=1"], "is not a label name"),
    (["--label-names", "7=tail"], "holds none of: tail"),
    (["--organs", "pancreas"], "No case has labels for: pancreas"),
    (["--iterations", "0"], "at least one iteration"),
    (["--minutes", "0"], "more than 0 minutes"),
    (["--seed", "-1"], "seed must be 0"),
    (["--image-size", "100"], "multiple of 32"),
    (["--backbone", "resnet"], "no weights called resnet"),
    (["--backbone", "abdomen"], "abdomen"),
    (["--device", "cuda:99"], "no device cuda:99"),
    (["--kind", "magic"], "invalid choice"),
    (["--batch", "0"], "batch must be 1"),
    (["--learning-rate", "0"], "learning rate must be more than 0"),
    (["--set", "training.nothing=1"], 'no setting "training.nothing"'),
    (["--set", "training.batch"], "sets nothing"),
    (["--config", "nowhere.json"], "nowhere.json cannot be read"),
    (["--validation", "nobody"], "no case nobody to hold out"),
    (["--label-names", "nowhere.json"], "nowhere.json cannot be read as JSON"),
    (["--finish"], "no unfinished run"),
]


@pytest.mark.parametrize(("options", "says"), BAD_TRAININGS, ids=[" ".join(o) for o, _ in BAD_TRAININGS])
def test_a_training_that_cannot_be_is_refused(
    data: Path, refuse: Refusal, options: list[str], says: str
) -> None:
    command = ["train", "--images", data / "images", "--labels", data / "labels"]
    command += ["--label-names", LABEL_NAMES, "-o", refuse.out / "p.safetensors", "--image-size", 128]
    refuse(*command, *options, says=says)


def test_a_training_without_data_or_with_a_wrong_ending_is_refused(data: Path, refuse: Refusal) -> None:
    refuse("train", "-o", refuse.out / "p.safetensors", says="There are no labelled cases")
    some = ["--images", data / "images", "--labels", data / "labels"]
    refuse("train", *some[:2], "-o", refuse.out / "p.safetensors", says="belong together")
    refuse("train", *some, "-o", refuse.out / "p.safetensors", says="does not say what its labels are")
    refuse("train", *some, "--label-names", LABEL_NAMES, says="where to write the prior")
    names = ["--label-names", LABEL_NAMES]
    refuse("train", *some, *names, "-o", refuse.out / "p.pt", says="ends in .safetensors")
    refuse(
        "train", "--data", refuse.out, "-o", refuse.out / "p.safetensors", says="There is no .*dataset.json"
    )


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"labels": {}}', '{"labels": {"spleen": "1"}}', '{"labels": {"spleen": 300}}'],
)
def test_a_bad_label_table_is_refused(data: Path, tmp_path: Path, refuse: Refusal, content: str) -> None:
    folder = copied(data, tmp_path / "data")
    (folder / "dataset.json").write_text(content)
    refuse("evaluate", "--data", folder, says="dataset.json")


def test_a_bad_split_is_refused(data: Path, tmp_path: Path, refuse: Refusal) -> None:
    split = tmp_path / "split.json"
    for content in ("", "{}", '{"train": 3}'):
        split.write_text(content)
        refuse("evaluate", "--data", data, "--split", split, says="split file")
        weights = refuse.out / "backbone.safetensors"
        refuse("pretrain-backbone", "--split", split, "-o", weights, says="split file")


def test_a_pretraining_that_cannot_be_is_refused(tmp_path: Path, refuse: Refusal) -> None:
    split = tmp_path / "split.json"
    split.write_text('{"name": "n", "note": "", "train": [], "development": [], "test": []}')
    command = ["pretrain-backbone", "--split", split]
    weights = refuse.out / "w.safetensors"
    refuse(*command, "-o", weights, "--procedural", "0", says="nothing to train on")
    refuse(*command, "-o", weights, "--data", tmp_path / "nowhere", says="There is no .*dataset.json")
    refuse(*command, "-o", weights, "--minutes", "0", says="more than 0 minutes")
    refuse(*command, "-o", refuse.out / "w.pt", says="ends in .safetensors")


@pytest.mark.parametrize("kind", ["garbage", "pickled", "other"])
def test_a_checkpoint_that_does_not_fit_is_refused_and_kept(
    data: Path, tmp_path: Path, refuse: Refusal, kind: str
) -> None:
    checkpoint, trap = refuse.out / "p.training", tmp_path / "sprung"
    if kind == "garbage":
        checkpoint.write_bytes(b"half a run")
    else:
        torch.save({"prior": Trap(trap)} if kind == "pickled" else {"prior": {}}, checkpoint)
    command = [
        "train",
        "--images",
        data / "images",
        "--labels",
        data / "labels",
        "--label-names",
        LABEL_NAMES,
    ]
    command += ["-o", refuse.out / "p.safetensors", "--image-size", 128, "--device", "cpu"]
    refuse(*command, says="Go on with --resume")
    says = "other organs or another network" if kind == "other" else "no run that can be resumed"
    refuse(*command, "--resume", says=says)
    assert not trap.exists()


def test_evaluate_finds_a_missing_report_folder_at_once(data: Path, refuse: Refusal) -> None:
    command = ["evaluate", "--images", data / "images", "--labels", data / "labels"]
    report = refuse.out / "nowhere" / "scores.json"
    refuse(*command, "--label-names", LABEL_NAMES, "--report", report, says="no folder .*nowhere")


def test_demo_into_a_file_is_refused(refuse: Refusal) -> None:
    refuse("demo", "-o", refuse.out / "labels.nii.gz", says="labels.nii.gz")


@pytest.mark.parametrize("command", [[], ["segment"], ["models"], ["sing"]])
def test_an_incomplete_command_is_refused(refuse: Refusal, command: list[str]) -> None:
    refuse(*command, says="--help")


class FullDisk(io.StringIO):
    """Standard output that fills the disk when a text passes by: from then on no file may grow past `limit`."""

    def __init__(self, text: str, limit: int) -> None:
        super().__init__()
        self.text, self.limit = text, limit

    def write(self, line: str, /) -> int:
        if self.text in line:
            resource = pytest.importorskip("resource")
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (self.limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            )
        return super().write(line)


@contextmanager
def disk_that_fills(monkeypatch: pytest.MonkeyPatch, *, at: str, limit: int = 64) -> Iterator[FullDisk]:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    output = FullDisk(at, limit)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        try:
            yield output
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", ["a few bytes", "many kilobytes"])
@pytest.mark.parametrize("name", ["labels.nii.gz", "new.nii", "new.nrrd", "new.mha", "new.seg.nrrd"])
def test_a_full_disk_leaves_no_half_written_labels(
    image: Path,
    tmp_path: Path,
    out: Path,
    name: str,
    size: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Small files too, which lie in the writer's buffer until it is closed."""
    if size == "a few bytes":
        image = tmp_path / "tiny.nii.gz"
        write_image(image, noise(1, 16, 16))
    command = ["segment", str(image), "-o", str(out / name), "--device", "cpu", "--json-progress"]
    with disk_that_fills(monkeypatch, at='"stage": "write"') as output:
        assert main(command) == 2
    Refusal.check_line(capsys.readouterr().err)
    assert json_events(output.getvalue())[-1]["code"] == "output"
    assert files_in(out) == {"labels.nii.gz": OLD_RESULT}


@pytest.mark.parametrize(
    ("option", "name", "limit"),
    [("--confidence", "c.nrrd", 64), ("--preview", "p.png", 64), ("--report", "r.json", 1500)],
)
def test_a_full_disk_leaves_no_half_written_extras(
    tmp_path: Path,
    out: Path,
    option: str,
    name: str,
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Labels of so few voxels fit on the disk where their report does not."""
    image = tmp_path / "tiny.nii.gz"
    write_image(image, noise(1, 16, 16))
    command = ["segment", str(image), "-o", str(out / "new.nii.gz"), "--device", "cpu", "--json-progress"]
    command += ["--organs", "liver", option, str(out / name)]
    with disk_that_fills(monkeypatch, at='"stage": "write"', limit=limit):
        assert main(command) == 2
    error = capsys.readouterr().err
    Refusal.check_line(error)
    assert name in error
    left = files_in(out)
    # Labels that stand there are complete; the report is written after them.
    assert set(left) == ({"labels.nii.gz", "new.nii.gz"} if option == "--report" else {"labels.nii.gz"})
    if option == "--report":
        assert read_array(out / "new.nii.gz").shape == (1, 16, 16)


def test_a_full_temporary_folder_is_told(
    image: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["segment", str(image), "-o", str(out / "labels.nii.gz"), "--device", "cpu", "--json-progress"]
    with disk_that_fills(monkeypatch, at='"stage": "load"', limit=100_000):
        assert main(command) == 2
    error = capsys.readouterr().err
    Refusal.check_line(error)
    assert "TMPDIR" in error
    assert files_in(out) == {"labels.nii.gz": OLD_RESULT}


def test_a_full_disk_ends_a_training_without_a_broken_file(
    data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--images", str(data / "images"), "--labels", str(data / "labels")]
    command += ["--label-names", LABEL_NAMES, "-o", str(out / "p.safetensors"), "--image-size", "128"]
    command += ["--iterations", "1", "--device", "cpu", "--json-progress"]
    with disk_that_fills(monkeypatch, at='"stage": "train"'):
        assert main(command) == 2
    Refusal.check_line(capsys.readouterr().err)
    # The run's folder may hold half a table, but no half-written prior or checkpoint.
    left = {name: content for name, content in files_in(out).items() if not name.startswith("p.run")}
    assert left == {"labels.nii.gz": OLD_RESULT}
    assert not list((out / "p.run").glob("*.safetensors"))


@pytest.fixture(scope="module")
def long_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough to be interrupted half-way."""
    volume = small_abdomen().volume
    path = tmp_path_factory.mktemp("long") / "long.nii.gz"
    array = np.tile(volume.array, (6, 1, 1))
    write_scalar(path, array, Geometry((60, 96, 96), volume.geometry.matrix))
    return path


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_half_way_leaves_nothing(
    long_image: Path, tmp_path: Path, out: Path, sent: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the bundled weights, as a user runs it."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [
        "segment",
        str(long_image),
        "-o",
        str(out / "labels.nii.gz"),
        "--json-progress",
        "--device",
        "cpu",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "DiffuSAMLib", *command],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started the tests in the background had them, and so the child, ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if '"stage": "encode"' in line:
                process.send_signal(sent)
                break
        lines += process.stdout.readlines()
        error = process.stderr.read()
        code = process.wait(timeout=60)
    if sent != signal.SIGKILL:
        assert code == {signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
        assert error == "diffusam: interrupted.\n"
        assert json_events("".join(lines))[-1]["code"] == "interrupted"
    else:
        assert code == -signal.SIGKILL
        assert error == ""
        assert "done" not in [json.loads(line)["event"] for line in lines]
    assert files_in(out) == {"labels.nii.gz": OLD_RESULT}
    assert not files_in(temporary)
    # The cache works as before.
    assert main(["models", "list"]) == 0
    assert "damaged" not in capsys.readouterr().out
    assert not [name for name in files_in(tmp_path / "cache") if "part" in name]
