from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from DiffuSAMLib import prior_files
from DiffuSAMLib.errors import OutputError, WeightsError
from DiffuSAMLib.prior_files import (
    HEADER_KEY,
    BackboneReference,
    PriorHeader,
    PriorLabel,
    read_header,
    read_prior,
    verify_prior,
    write_prior,
)
from DiffuSAMLib.safetensors_files import read_safetensors

HEADER = PriorHeader(
    name="two-organs",
    title="Spleen and liver",
    labels=(
        PriorLabel("spleen", 1, (157, 108, 162), code="78961009", meaning="Spleen"),
        PriorLabel("liver", 4, (221, 130, 101)),
    ),
    modalities=("CT", "MR"),
    backbone=BackboneReference("compact", "ab" * 32, 256, (32, 16, 16)),
    config={"channels": [32, 64]},
    preprocessing={"window_hu": [-125, 275]},
    training={"iterations": 7800},
    licence="CC-BY-4.0",
    metrics={"dice": 0.87},
    created="2026-11-22T12:00:00+00:00",
)


def make_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "half": torch.randn(4, 3, generator=generator).half(),
        "brain": torch.randn(5, generator=generator).bfloat16(),
        "mean": torch.randn(2, 2, generator=generator),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
    }


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    path = tmp_path / "prior.safetensors"
    write_prior(path, HEADER, make_tensors())
    return path


def with_header(path: Path, **changes: object) -> Path:
    """Write a file whose header has other values, whether they are allowed or not."""
    header = json.loads(HEADER.to_json()) | changes
    save_file(make_tensors(), path, metadata={HEADER_KEY: json.dumps(header)})
    return path


def test_a_prior_comes_back_as_it_was_written(prior: Path) -> None:
    header, tensors = read_prior(prior)
    assert dataclasses.replace(header, tensors_sha256="") == HEADER
    assert read_header(prior) == header == verify_prior(prior)
    for name, tensor in make_tensors().items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_the_header_is_one_readable_json_string(prior: Path) -> None:
    metadata, tensors = read_safetensors(prior)
    assert list(metadata) == [HEADER_KEY]
    assert json.loads(metadata[HEADER_KEY])["schema_version"] == prior_files.SCHEMA_VERSION
    assert set(tensors) == set(make_tensors())


def test_the_same_prior_gives_the_same_bytes(prior: Path, tmp_path: Path) -> None:
    write_prior(tmp_path / "again.safetensors", HEADER, dict(reversed(make_tensors().items())))
    assert (tmp_path / "again.safetensors").read_bytes() == prior.read_bytes()


def test_tensors_that_share_memory_or_are_transposed_are_stored(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    write_prior(tmp_path / "p.safetensors", HEADER, {"whole": whole, "row": whole[0], "turned": whole.T})
    _, tensors = read_prior(tmp_path / "p.safetensors")
    assert torch.equal(tensors["turned"], whole.T)
    assert torch.equal(tensors["row"], whole[0])


def test_numpy_numbers_and_nan_in_the_record_do_not_stop_the_writing(tmp_path: Path) -> None:
    header = dataclasses.replace(HEADER, metrics={"dice": np.float32(0.5), "hd95": math.nan, "at": Path("a")})
    write_prior(tmp_path / "p.safetensors", header, make_tensors())
    assert read_header(tmp_path / "p.safetensors").metrics == {"dice": 0.5, "hd95": None, "at": "a"}


def test_a_header_is_read_where_no_package_is_installed(prior: Path) -> None:
    code = (
        "import sys, pathlib, DiffuSAMLib.catalogue; from DiffuSAMLib.prior_files import read_header; "
        "print(read_header(pathlib.Path(sys.argv[1])).name, bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    root = Path(prior_files.__file__).parent.parent
    printed = subprocess.run(
        [sys.executable, "-c", code, str(prior)], cwd=root, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == ["two-organs", "False"]


@pytest.mark.parametrize("read", [read_header, read_prior, verify_prior])
def test_a_file_that_cannot_be_used_is_refused(read, tmp_path: Path) -> None:
    (tmp_path / "t.safetensors").write_text("this is no prior at all")
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        read(tmp_path / "t.safetensors")


def test_a_changed_tensor_is_refused(prior: Path) -> None:
    content = bytearray(prior.read_bytes())
    content[-1] ^= 1
    prior.write_bytes(content)
    for read in (read_prior, verify_prior):
        with pytest.raises(WeightsError, match="was changed after it was made"):
            read(prior)


def test_a_renamed_tensor_is_refused(prior: Path) -> None:
    prior.write_bytes(prior.read_bytes().replace(b'"half"', b'"calf"'))
    with pytest.raises(WeightsError, match="was changed after it was made"):
        read_prior(prior)


def test_safetensors_without_a_header_are_no_prior(tmp_path: Path) -> None:
    save_file(make_tensors(), tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match="not a DiffuSAM prior"):
        read_header(tmp_path / "b.safetensors")


def test_a_newer_schema_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"made by a newer DiffuSAM Segment\. Update"):
        read_header(with_header(tmp_path / "n.safetensors", schema_version=prior_files.SCHEMA_VERSION + 1))


def test_an_unknown_older_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no schema version -1"):
        read_header(with_header(tmp_path / "o.safetensors", schema_version=-1))


def test_a_prior_of_the_network_before_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"for a network that no longer exists\. Train it again"):
        read_header(with_header(tmp_path / "o.safetensors", schema_version=1))


def test_an_older_schema_is_upgraded(prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = prior_files.SCHEMA_VERSION
    monkeypatch.setattr(prior_files, "SCHEMA_VERSION", present + 1)
    monkeypatch.setitem(prior_files.UPGRADES, present, lambda old: old | {"title": old["title"].upper()})
    assert read_header(prior).title == "SPLEEN AND LIVER"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": ""}, "the prior has no name"),
        ({"title": None}, "title is missing or of the wrong type"),
        ({"labels": []}, "there are no labels"),
        ({"labels": ["spleen"]}, "labels holds a value of the wrong type"),
        ({"modalities": ["PET"]}, "the modalities are not among CT, MR"),
        ({"modalities": []}, "the modalities are not among CT, MR"),
        ({"backbone": "compact"}, "backbone is missing or of the wrong type"),
        ({"config": []}, "config is missing or of the wrong type"),
        ({"schema_version": True}, "schema_version is missing or of the wrong type"),
        ({"schema_version": "2"}, "schema_version is missing or of the wrong type"),
    ],
)
def test_a_header_with_a_wrong_value_is_refused(
    changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=reason):
        read_header(with_header(tmp_path / "w.safetensors", **changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_a_header_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match="header cannot be used"):
        PriorHeader.from_json(text)


@pytest.mark.parametrize(
    "labels",
    [
        (PriorLabel("liver", 1, (0, 0, 0)), PriorLabel("liver", 2, (0, 0, 0))),
        (PriorLabel("liver", 1, (0, 0, 0)), PriorLabel("spleen", 1, (0, 0, 0))),
    ],
)
def test_labels_must_differ(labels: tuple[PriorLabel, ...]) -> None:
    with pytest.raises(WeightsError, match="is there twice"):
        dataclasses.replace(HEADER, labels=labels)


def test_impossible_labels_and_backbones_are_refused() -> None:
    for wrong in ({"value": 0}, {"value": 256}, {"name": " "}, {"color": (0, 0)}, {"color": (0, 0, 256)}):
        with pytest.raises(WeightsError):
            dataclasses.replace(HEADER.labels[0], **wrong)
    for wrong in ({"name": ""}, {"image_size": 0}, {"memory_shape": (32, 16)}, {"memory_shape": (0, 16, 16)}):
        with pytest.raises(WeightsError):
            dataclasses.replace(HEADER.backbone, **wrong)


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX matter")
def test_a_full_disk_leaves_the_old_prior_and_nothing_else(prior: Path) -> None:
    code = """
import pathlib, resource, sys, torch
from DiffuSAMLib.errors import OutputError
from DiffuSAMLib.prior_files import read_header, write_prior
path = pathlib.Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    write_prior(path, read_header(path), {"big": torch.zeros(100_000)})
except OutputError as error:
    print(error.code)
"""
    before = prior.read_bytes()
    root = Path(prior_files.__file__).parent.parent
    printed = subprocess.run(
        [sys.executable, "-c", code, str(prior)], cwd=root, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "output"
    assert prior.read_bytes() == before
    assert list(prior.parent.iterdir()) == [prior]


def test_a_prior_that_cannot_be_written_is_said(prior: Path) -> None:
    with pytest.raises(OutputError):
        write_prior(prior / "below.safetensors", HEADER, make_tensors())
