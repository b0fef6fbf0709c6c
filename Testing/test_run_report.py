from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from DiffuSAMLib.errors import OutputError
from DiffuSAMLib.peak_memory import peak_memory_mb
from DiffuSAMLib.run_report import InputRecord, RunReport, WeightsRecord, organ_records, package_versions


@pytest.fixture
def report() -> RunReport:
    labels = np.zeros((2, 3, 4), dtype=np.uint8)
    labels[0] = 1
    return RunReport(
        program_version="0.1.0",
        inputs=[
            InputRecord(
                Path("image.nii.gz"), "ef" * 32, "CT", (2, 3, 4), np.diag([2.0, 2.0, 5.0, 1.0]).tolist()
            )
        ],
        prior=WeightsRecord("abdomen", "ab" * 32),
        backbone=WeightsRecord("compact", "cd" * 32),
        seed=7,
        device="cpu",
        options={"steps": 2, "organs": ("spleen", "liver"), "scale": math.inf},
        timings={"encode": 1.5},
        organs=organ_records(
            labels,
            {"spleen": 1, "liver": 4},
            voxel_volume_ml=0.02,
            confidence_levels=np.full((2, 3, 4), 204, np.uint8),
        ),
        peak_memory_mb=peak_memory_mb(),
    )


def test_a_report_on_disk_holds_all_that_was_put_in(report: RunReport, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report.write(path)
    read = json.loads(path.read_text(encoding="ascii"))
    assert read["schema_version"] == 1
    assert read["program_version"] == "0.1.0"
    assert read["inputs"][0]["sha256"] == "ef" * 32
    assert read["inputs"][0]["shape"] == [2, 3, 4]
    assert read["inputs"][0]["matrix"][2] == [0.0, 0.0, 5.0, 0.0]
    assert read["prior"] == {"name": "abdomen", "sha256": "ab" * 32}
    assert read["options"] == {"steps": 2, "organs": ["spleen", "liver"], "scale": None}
    assert read["timings"] == {"encode": 1.5}
    assert read["cuda_peak_memory_mb"] is None
    assert [item.name for item in tmp_path.iterdir() if item.name.endswith(".json")] == ["report.json"]


def test_organs_are_counted_measured_and_missed(report: RunReport) -> None:
    spleen, liver = report.to_json()["organs"]
    assert spleen["volume_ml"] == pytest.approx(12 * 0.02)
    assert [organ["value"] for organ in (spleen, liver)] == [1, 4]
    assert (spleen["voxels"], spleen["present"], spleen["mean_confidence"]) == (12, True, 0.8)
    assert (liver["voxels"], liver["present"], liver["mean_confidence"]) == (0, False, None)


def test_a_report_that_cannot_be_written_says_so(report: RunReport, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        report.write(tmp_path / "missing" / "report.json")


def test_versions_name_the_packages_that_decide_the_result() -> None:
    versions = package_versions()
    assert list(versions) == ["python", "torch", "sam2", "diffusers", "numpy", "SimpleITK"]
    assert versions["numpy"] == np.__version__
