"""Priors and backbones that are wrong, truncated, tampered or pickled are refused, and never run."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import (
    LABEL_NAMES,
    Installation,
)
from refusals import Refusal, Trap, tampered, training_on
from safetensors.torch import save_file

from DiffuSAMLib.prior_files import HEADER_KEY

pytestmark = pytest.mark.usefixtures("random_weights")


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
    ("a width without end", lambda header: header["config"].update(width=[16_000_000, 32]), "cannot build"),
    ("no noise", lambda header: header["config"].update(training_steps=0), "cannot build"),
    ("an unknown kind", lambda header: header["config"].update(kind="guess"), "cannot build"),
    ("no list of modalities", lambda header: header["config"].update(modalities=None), "cannot build"),
    ("no list of cases", lambda header: header["training"].update(cases=5), "cases is missing or of the"),
    ("slices without end", lambda header: header["backbone"].update(image_size=320_000), "image size"),
    ("an impossible contrast", lambda header: header["config"].update(mr_gamma=0), "cannot build"),
    ("a layout of nothing", lambda header: header["config"].update(layout=[1]), "cannot build"),
    (
        "a place that is nowhere",
        lambda header: header["config"].update(layout={"liver": [0, 1]}),
        "cannot build",
    ),
    (
        "a region that is none",
        lambda header: header["config"].update(regions={"liver": {"start": [0, 0, 0]}}),
        "cannot build",
    ),
    ("regions that are none", lambda header: header["config"].update(regions=[1]), "cannot build"),
    ("an unknown plane", lambda header: header["config"].update(planes=["oblique"]), "cannot build"),
    ("another width", lambda header: header["config"].update(width=[32, 64]), "other names or shapes"),
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


def a_deep_table() -> bytes:
    table = b'{"a":' + 100_000 * b"[" + 100_000 * b"]" + b"}"
    return len(table).to_bytes(8, "little") + table


BAD_PRIORS: list[tuple[str, Callable[[Path, bytes], object], str]] = [
    ("missing", lambda path, content: None, "no file"),
    ("empty", lambda path, content: path.touch(), "is empty"),
    ("truncated", lambda path, content: path.write_bytes(content[:-1000]), "incomplete or damaged"),
    ("longer", lambda path, content: path.write_bytes(content + b"more"), "incomplete or damaged"),
    ("tampered", tampered, "changed after it was made"),
    ("text", lambda path, content: path.write_text("Dear colleague"), "not a safetensors file"),
    ("nested without end", lambda path, content: path.write_bytes(a_deep_table()), "incomplete or damaged"),
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
    command = training_on(data, refuse.out)
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
    command = training_on(data, refuse.out)
    options = ["--label-names", LABEL_NAMES, "--backbone", "sam2.1_tiny"]
    refuse(*command, *options, says='are damaged. Run "diffusam models download sam2.1_tiny"')
    refuse("models", "import", cached, says="is not Meta's sam2.1_hiera_tiny.pt")
    assert not trap.exists()
