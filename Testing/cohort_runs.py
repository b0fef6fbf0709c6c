"""What the tests of cohorts share: an installed copy, a cluster, images that cannot be used, and the table of results."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from cases import Installation, install_random_weights

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def package_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with small random weights, which other processes find too."""
    folder = tmp_path_factory.mktemp("package_copy")
    install_random_weights(folder / "Resources")
    unwanted = shutil.ignore_patterns("Weights", "__pycache__")
    shutil.copytree(REPOSITORY / "Resources", folder / "Resources", ignore=unwanted, dirs_exist_ok=True)
    shutil.copytree(REPOSITORY / "DiffuSAMLib", folder / "DiffuSAMLib", ignore=unwanted)
    return folder


@pytest.fixture
def copied_weights(package_copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is run here finds the same weights."""
    Installation(package_copy / "Resources").use(monkeypatch, tmp_path / "cache")


@pytest.fixture(scope="module")
def cluster_address() -> Iterator[str]:
    """A cluster with a worker of two threads, inside this process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address=None,
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    ) as cluster:
        yield cluster.scheduler_address


def add_bad_images(folder: Path) -> None:
    (folder / "damaged.nii.gz").write_bytes(b"not a NIfTI at all")
    times = sitk.GetImageFromArray(np.zeros((2, 3, 4, 4), np.float32), isVector=False)
    sitk.WriteImage(times, str(folder / "times.nii.gz"))


def table(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of `cohort.csv` by case, after a check that `cohort.json` says the same."""
    with (folder / "cohort.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    content = json.loads((folder / "cohort.json").read_text(encoding="ascii"))
    assert content["schema_version"] == 1
    assert [(case["name"], case["status"], case["error"]) for case in content["cases"]] == [
        (name, row["status"], row["error"]) for name, row in rows.items()
    ]
    return rows


def statuses(folder: Path) -> dict[str, str]:
    return {name: row["status"] for name, row in table(folder).items()}


def events_of(output: str) -> list[dict[str, Any]]:
    assert output.isascii()
    return [json.loads(line) for line in output.splitlines()]
