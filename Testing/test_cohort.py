"""Cohorts, on a cluster inside this process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import ORGANS, files_in, read_array, small_abdomen, write_case, write_dicom
from cohort_runs import add_bad_images, events_of, statuses, table

from DiffuSAMLib import cohort, cohort_worker
from DiffuSAMLib.cli import main
from DiffuSAMLib.cohort_cases import list_cases
from DiffuSAMLib.cohort_cluster import local_cluster
from DiffuSAMLib.cohort_table import CaseRow, write_table
from DiffuSAMLib.errors import InputError, OutputError
from DiffuSAMLib.file_locks import held

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.usefixtures("copied_weights")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two good images, a damaged one and a time series."""
    for name, seed in (("first", 3), ("second", 4)):
        write_case(tmp_path, name, small_abdomen(seed))
    folder = tmp_path / "images"
    add_bad_images(folder)
    (folder / "notes.txt").write_text("not an image")
    (folder / "first.seg.nrrd").write_text("not an image either")
    return folder


@pytest.fixture
def segment(cluster_address: str, images: Path, tmp_path: Path) -> Callable[..., int]:
    """Segments the images on the cluster of this process."""

    def run(*options: str) -> int:
        folders = ["--images", str(images), "-o", str(tmp_path / "out"), "--dask", cluster_address]
        return main(["segment", *folders, "--device", "cpu", *options])

    return run


def test_bad_cases_end_with_a_sentence_in_the_table_and_the_others_go_on(
    segment: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment("--json-progress", "--format", "seg.nrrd", "--preview") == 2
    captured = capsys.readouterr()
    sentence = f"2 of 4 cases could not be segmented. The table {out / 'cohort.csv'} says why."
    assert captured.err == f"diffusam: {sentence}\n"
    events = events_of(captured.out)
    assert [event["event"] for event in events].count("case") == 4
    progress = [event for event in events if event["event"] == "progress"]
    assert [(e["stage"], e["done"], e["total"]) for e in progress] == [("cohort", n, 4) for n in range(5)]
    last = events[-1]
    assert (last["event"], last["code"], last["message"] + " " + last["hint"]) == ("error", "cases", sentence)
    assert (last["table"], last["cases"], last["failed"]) == (str(out / "cohort.csv"), 4, 2)

    rows = table(out)
    assert statuses(out) == {"damaged": "failed", "first": "done", "second": "done", "times": "failed"}
    assert "damaged.nii.gz" in rows["damaged"]["error"]
    assert "has 4 dimensions" in rows["times"]["error"]
    content = json.loads((out / "cohort.json").read_text())
    assert content["labels"] == {organ: value for value, organ in enumerate(ORGANS, start=1)}
    cases = content["cases"]
    assert [case["attempts"] for case in cases] == [1, 1, 1, 1]
    good = {
        f"{name}.{end}" for name in ("first", "second") for end in ("seg.nrrd", "report.json", "preview.png")
    }
    assert set(files_in(out)) == {"cohort.csv", "cohort.json", *good}
    labels = read_array(out / "first.seg.nrrd")
    for value, organ in enumerate(ORGANS, start=1):
        volume = (labels == value).sum() * 3.5 * 3.5 * 20 / 1000
        assert float(rows["first"][f"{organ} (ml)"]) == pytest.approx(volume, abs=6e-4)
    assert float(rows["first"]["seconds"]) > 0
    assert [row["modality"] for row in rows.values()] == ["", "CT", "CT", ""]


def test_only_what_changed_is_done_again(
    segment: Callable[..., int], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for name in ("damaged", "times"):
        (images / f"{name}.nii.gz").unlink()

    def reused() -> dict[str, bool]:
        assert set(statuses(out).values()) == {"done"}
        return {
            case["name"]: case["reused"] for case in json.loads((out / "cohort.json").read_text())["cases"]
        }

    assert segment() == 0
    assert reused() == {"first": False, "second": False}
    before = files_in(out)
    # A copy with another time is the same image.
    os.utime(images / "first.nii.gz")
    assert segment() == 0
    assert reused() == {"first": True, "second": True}
    assert {**files_in(out), "cohort.json": b""} == {**before, "cohort.json": b""}
    assert capsys.readouterr().out.endswith(f"2 cases: {out / 'cohort.csv'}\n")

    shutil.copy(images / "second.nii.gz", images / "first.nii.gz")
    assert segment() == 0
    assert reused() == {"first": False, "second": True}
    (out / "second.nii.gz").unlink()
    assert segment() == 0
    assert reused() == {"first": True, "second": False}
    (out / "second.report.json").write_text("{")
    assert segment("--seed", "0") == 0
    assert reused() == {"first": True, "second": False}
    assert segment("--organs", "liver") == 0
    assert reused() == {"first": False, "second": False}
    columns = ["case", "status", "modality", "seconds", "liver (ml)", "warnings", "error", "image"]
    assert list(table(out)["first"]) == columns


def test_a_run_goes_on_from_the_files_of_the_first_cohorts(
    segment: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their tables told neither labels nor modality, their reports neither label values nor warnings."""
    out = tmp_path / "out"
    options = ["--organs", "liver", "--json-progress"]
    assert segment(*options) == 2
    content = json.loads((out / "cohort.json").read_text())
    del content["labels"]
    for case in content["cases"]:
        del case["modality"], case["warnings"]
    (out / "cohort.json").write_text(json.dumps(content))
    report = json.loads((out / "first.report.json").read_text())
    del report["inputs"][0]["warnings"], report["organs"][0]["value"]
    (out / "first.report.json").write_text(json.dumps(report))
    capsys.readouterr()
    assert segment(*options) == 2
    cases = {event["name"]: event for event in events_of(capsys.readouterr().out) if event["event"] == "case"}
    assert (cases["first"]["reused"], cases["first"]["modality"], cases["first"]["warnings"]) == (
        True,
        "CT",
        [],
    )


def test_warnings_of_an_image_are_in_the_table(
    segment: Callable[..., int], images: Path, tmp_path: Path
) -> None:
    write_dicom(images / "scan", small_abdomen(3).volume)
    write_dicom(images / "scan", small_abdomen(4).volume, slices=3, uid="1.2.9", number=2)
    assert segment("--organs", "liver") == 2
    row = table(tmp_path / "out")["scan"]
    assert (row["status"], row["modality"]) == ("done", "CT")
    assert row["warnings"].startswith("The folder holds 2 series")


def test_a_fault_is_tried_again_and_told_in_the_end(
    segment: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Faulty:
        def segment(self, request: Any) -> None:
            calls.append(request.image.name)
            raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cohort_worker, "_segmenter", Faulty())
    assert segment("--retries", "1") == 2
    assert calls.count("first.nii.gz") == 2
    row = table(tmp_path / "out")["first"]
    assert (row["status"], row["error"]) == ("failed", "The program failed (ZeroDivisionError: a bug).")


def test_a_table_that_cannot_be_written_now_stops_no_case(
    segment: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spreadsheet may hold it on Windows."""
    write, calls = cohort.write_table, []

    def held(*arguments: Any) -> None:
        calls.append(1)
        # The first one is that of the beginning.
        if len(calls) in (2, 3):
            raise OutputError("cohort.csv cannot be written.")
        write(*arguments)

    monkeypatch.setattr(cohort, "TABLE_SECONDS", -1.0)
    monkeypatch.setattr(cohort, "write_table", held)
    segment()
    assert len(calls) > 3
    assert statuses(tmp_path / "out")["second"] == "done"


def test_a_prior_that_changes_during_the_run_stops_it(
    segment: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cohort_worker, "sha256_of", lambda path: "another")
    assert segment() == 2
    assert "The prior abdomen of a worker is not the one that this run began with." in capsys.readouterr().err
    assert set(statuses(tmp_path / "out").values()) == {"pending"}


def test_results_of_somebody_else_are_not_replaced(
    segment: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "first.nii.gz").write_bytes(b"labels drawn by hand")
    assert segment() == 2
    assert "already holds first.nii.gz" in capsys.readouterr().err
    assert files_in(out) == {"first.nii.gz": b"labels drawn by hand"}


def test_a_second_run_into_the_same_folder_is_refused(
    segment: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with held(out / cohort.LOCK, refusal=AssertionError("nobody has it")):
        assert segment() == 2
    assert "Another run is segmenting into" in capsys.readouterr().err
    assert files_in(out) == {}


@pytest.mark.parametrize("name", ["cohort.csv", "cohort.json"])
def test_a_table_of_somebody_else_is_not_replaced(
    segment: Callable[..., int], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"my patients")
    assert segment() == 2
    assert f"already holds {name}, which no cohort run has written." in capsys.readouterr().err
    assert files_in(out) == {name: b"my patients"}


def test_another_format_leaves_no_label_map_of_the_first(
    segment: Callable[..., int], images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert segment("--organs", "liver") == 2
    corrected = out / "first.mha"
    corrected.write_bytes(b"labels corrected by hand")
    assert segment("--organs", "liver", "--format", "seg.nrrd") == 2
    label_maps = {"first.seg.nrrd", "second.seg.nrrd", "first.mha"}
    assert {name for name in files_in(out) if not name.endswith((".json", ".csv"))} == label_maps
    assert corrected.read_bytes() == b"labels corrected by hand"


def test_a_cohort_of_one_is_told_so(
    segment: Callable[..., int], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("damaged", "times", "second"):
        (images / f"{name}.nii.gz").unlink()
    assert segment("--organs", "liver") == 0
    assert capsys.readouterr().out.endswith(f"\n1 case: {tmp_path / 'out' / 'cohort.csv'}\n")


def test_an_error_that_is_not_utf8_does_not_end_the_table(tmp_path: Path) -> None:
    error = str(InputError("The file caf\udce9.dcm cannot be read."))
    assert error == "The file caf\\udce9.dcm cannot be read."
    rows = [CaseRow("a", tmp_path, "failed", error=text) for text in (error, "The program failed (\udce9).")]
    write_table(tmp_path, rows, [], {})
    written = (tmp_path / "cohort.csv").read_text(encoding="utf-8")
    assert error in written
    assert "The program failed (\\udce9)." in written


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--organs", "liver,brain"], "This prior does not know brain."),
        (["--steps", "0"], "The number of sampling steps must be 1 to"),
        (["--samples", "0"], "The number of samples must be 1 or more"),
        (["--seed", "-1"], "The seed must be 0 to"),
        (["--retries", "-1"], "The number of retries must be 0 or more"),
        (["--workers", "2"], "Give --dask or --workers, not both."),
        (["--confidence", "map.nii.gz"], "With --images, --confidence takes no file name."),
        (["--report", "report.json"], "With --images, every case has a report."),
        (["--prior", "nothing"], "There are no weights called nothing"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    segment: Callable[..., int],
    tmp_path: Path,
    options: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert segment(*options) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_one_image_or_a_folder(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = str(images / "first.nii.gz"), str(tmp_path / "out.nii.gz")
    for command, sentence in (
        (["-o", out], "No image is given."),
        ([image, "--images", str(images), "-o", out], "Both an IMAGE and --images are given."),
        ([image, "-o", out, "--retries", "1"], "--retries belongs to --images."),
        ([image, "-o", out, "--preview"], "--preview names no file."),
        (["--images", str(images), "-o", str(images)], "The results would lie among the images."),
        (["--images", str(tmp_path / "none"), "-o", out], "There is no folder"),
        (["--images", str(images), "-o", image], "is a file, where a folder is expected."),
        (["--images", str(images), "-o", out, "--dask", "nonsense://x"], "There is no Dask scheduler at"),
    ):
        assert main(["segment", *command]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1


def test_a_missing_package_is_named(
    segment: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("DiffuSAMLib.cohort_cluster.find_spec", lambda name: None)
    assert segment() == 2
    expected = (
        "diffusam: A cohort needs the Python package distributed, which is not installed. Run: pip install"
    )
    assert capsys.readouterr().err.startswith(expected)


def test_cases_are_named_without_endings(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.NRRD", "c.v1.mha", "d.nhdr", "d.raw", ".hidden.nii", "e.seg.nrrd", "f.txt"):
        (tmp_path / name).touch()
    (tmp_path / "g.x").mkdir()
    (tmp_path / "out").mkdir()
    cases = list_cases(tmp_path, leave_out=tmp_path / "out")
    assert [case.name for case in cases] == ["a", "b", "c.v1", "d", "g.x"]


@pytest.mark.parametrize("names", [("a.nii.gz", "a.mha"), ("A.nii", "a.nrrd"), ("a.nii", "a.confidence.nii")])
def test_results_of_the_same_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="would have results of the same name"):
        list_cases(tmp_path, leave_out=tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "sentence"), [("1.dcm", "DICOM files of one image"), ("a.txt", "no images")]
)
def test_a_folder_without_images_is_refused(tmp_path: Path, file: str, sentence: str) -> None:
    (tmp_path / file).touch()
    with pytest.raises(InputError, match=sentence):
        list_cases(tmp_path, leave_out=tmp_path / "out")


def test_dicom_files_without_endings_are_told(tmp_path: Path) -> None:
    write_dicom(tmp_path / "scan", small_abdomen(3).volume)
    for file in (tmp_path / "scan").iterdir():
        file.rename(file.with_suffix(""))
    with pytest.raises(InputError, match="DICOM files of one image"):
        list_cases(tmp_path / "scan", leave_out=tmp_path / "out")


def test_local_workers_keep_to_themselves() -> None:
    """A client without the key of the run is turned away."""
    with local_cluster(1) as cluster:
        address = cluster.client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        with pytest.raises((OSError, ValueError, TypeError)):
            distributed.Client(address, timeout=5, set_as_default=False)
