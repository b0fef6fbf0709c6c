"""Whatever is wrong with an image or an option, the user gets one sentence and exit code 2; no file is lost."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cases import LABEL_NAMES, Installation
from PIL import Image
from refusals import Refusal, noise, truncated, with_nan, write_image

from DiffuSAMLib.cli import main
from DiffuSAMLib.cohort_cases import CaseFiles, CohortCase
from DiffuSAMLib.cohort_table import CaseRow, write_table
from DiffuSAMLib.cohort_worker import CaseTask, segment_case
from DiffuSAMLib.content_hashes import sha256_of
from DiffuSAMLib.errors import OutputError
from DiffuSAMLib.evaluation import Evaluation
from DiffuSAMLib.segment_file import SegmentRequest

pytestmark = pytest.mark.usefixtures("random_weights")


def truncated_and_packed(path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(noise(8, 32, 32)), str(path), useCompression=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


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
    ("truncated.mha", truncated, r"ends after \d+ of \d+ bytes"),
    ("packed.nrrd", truncated_and_packed, "cannot be read as an image"),
    ("packed.mha", truncated_and_packed, r"ends after \d+ of \d+ bytes"),
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
    ("nan.nii.gz", with_nan, "1 voxel that is not finite"),
    ("nan.nrrd", with_nan, "1 voxel that is not finite"),
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


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, refuse: Refusal) -> None:
    refuse.image(tmp_path / f"{300 * 'x'}.nii.gz", says="cannot be looked at .* Check its name")


def test_a_missing_output_folder_is_refused(image: Path, refuse: Refusal) -> None:
    refuse("segment", image, "-o", refuse.out / "nowhere" / "labels.nrrd", says="no folder .*nowhere")
    assert not (refuse.out / "nowhere").exists()


def test_the_image_itself_is_not_overwritten(data: Path, refuse: Refusal) -> None:
    image = refuse.out / "image.nii.gz"
    shutil.copyfile(data / "images" / "abdomen.nii.gz", image)
    refuse("segment", image, "-o", image, says="the image itself")


def test_evaluate_finds_a_missing_report_folder_at_once(data: Path, refuse: Refusal) -> None:
    command = ["evaluate", "--images", data / "images", "--labels", data / "labels"]
    report = refuse.out / "nowhere" / "scores.json"
    refuse(*command, "--label-names", LABEL_NAMES, "--report", report, says="no folder .*nowhere")


def test_demo_into_a_file_is_refused(refuse: Refusal) -> None:
    refuse("demo", "-o", refuse.out / "labels.nii.gz", says="labels.nii.gz")


def test_names_that_are_not_utf8_are_refused(image: Path, refuse: Refusal) -> None:
    """SimpleITK would end the process without a word."""
    says = r"caf\\udce9\.nii\.gz holds a character that is not UTF-8, and cannot be used\. Rename"
    refuse.image(refuse.out / "caf\udce9.nii.gz", says=says)
    refuse("segment", image, "-o", refuse.out / "caf\udce9.nii.gz", says=says)


def test_a_case_of_a_cohort_whose_name_is_not_utf8_is_a_failed_row(
    installation: Installation, out: Path
) -> None:
    image = out / "caf\udce9.nii.gz"
    files = CaseFiles.of(CohortCase("case", image), out, "nrrd")
    request = SegmentRequest(image, files.output, prior=str(installation.prior), device="cpu")
    settings = {"prior_sha256": sha256_of(installation.prior)}
    outcome = segment_case(CaseTask(request, files, settings, threads=1))
    assert outcome.final
    assert r"caf\udce9.nii.gz holds a character that is not UTF-8" in outcome.error
    write_table(out, [CaseRow("case", image, "failed", error=outcome.error)], [], {})
    assert outcome.error in (out / "cohort.csv").read_text(encoding="utf-8")


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(), reason="No folder here that takes no file, even of root."
)
def test_a_folder_that_takes_no_file_is_refused_before_the_image_is_read(refuse: Refusal) -> None:
    says = r"/proc/self/labels\.nrrd cannot be written"
    refuse("segment", refuse.out / "missing.nii.gz", "-o", "/proc/self/labels.nrrd", says=says)
    command = ["evaluate", "--images", refuse.out / "nowhere", "--labels", refuse.out / "nowhere"]
    refuse(*command, "--report", "/proc/self/scores.json", says=r"/proc/self/scores\.json cannot be written")


def test_scores_are_said_before_their_report_is_written(
    data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(evaluation: Evaluation, path: Path) -> None:
        raise OutputError("The disk is full.")

    monkeypatch.setattr(Evaluation, "write", fail)
    command = ["evaluate", "--images", str(data / "images"), "--labels", str(data / "labels")]
    command += ["--label-names", LABEL_NAMES, "--device", "cpu", "--report", str(out / "scores.json")]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert "| abdomen |" in captured.out
    assert captured.err == "diffusam: The disk is full.\n"


def test_a_console_without_the_letters_of_a_name_shows_escapes(tmp_path: Path) -> None:
    """As that of Windows is where its output goes to a file."""
    folder = tmp_path / "\N{CJK UNIFIED IDEOGRAPH-60A3}"
    done = subprocess.run(
        [sys.executable, "-m", "DiffuSAMLib", "models", "list"],
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "DIFFUSAM_HOME": str(folder), "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == rf"Cache folder: {tmp_path}{os.sep}\u60a3"


@pytest.mark.parametrize("arguments", [["models", "list"], ["--help"]])
def test_a_reader_that_left_is_no_error(arguments: list[str]) -> None:
    program = (
        f"import sys\nfrom DiffuSAMLib.cli import main\nsys.stdin.readline()\nsys.exit(main({arguments!r}))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.close()
        child.stdout = None
        _, errors = child.communicate(b"go\n")
        assert errors == b""
        assert child.returncode == 0


@pytest.mark.parametrize("command", [[], ["segment"], ["models"], ["sing"]])
def test_an_incomplete_command_is_refused(refuse: Refusal, command: list[str]) -> None:
    refuse(*command, says="--help")
