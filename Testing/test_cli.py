from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import (
    LABEL_NAMES,
    ORGANS,
    Installation,
    files_in,
    json_events,
    read_array,
    small_abdomen,
    write_case,
    write_dicom,
)
from PIL import Image

from DiffuSAMLib import __version__
from DiffuSAMLib.cli import main
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.label_tables import parse_label_names
from DiffuSAMLib.labelmaps import read_labelmap
from DiffuSAMLib.prior_files import read_header
from DiffuSAMLib.splits import Split, save_split
from DiffuSAMLib.volumes import read_volume
from DiffuSAMLib.weights import load_backbone, load_prior

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("quick_trainings", "random_weights")
TRAIN = ["--label-names", LABEL_NAMES, "--image-size", "128", "--batch", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three cases: two CT and one MR."""
    folder = tmp_path_factory.mktemp("data")
    write_case(folder, "first", small_abdomen(3))
    write_case(folder, "second", small_abdomen(4, "MR"))
    write_case(folder, "third", small_abdomen(5))
    table = {"background": 0, **{organ.replace(" ", "_"): n for n, organ in enumerate(ORGANS, 1)}}
    (folder / "dataset.json").write_text(json.dumps({"labels": table}))
    return folder


@pytest.fixture
def image(data: Path) -> Path:
    return data / "images" / "first.nii.gz"


def folders(data: Path) -> list[str]:
    return ["--images", str(data / "images"), "--labels", str(data / "labels")]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".seg.nrrd"])
def test_segment_writes_labels_on_the_grid_of_the_image(
    image: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"labels{ending}"
    assert main(["segment", str(image), "-o", str(output), "--device", "cpu"]) == 0
    labels, volume = read_labelmap(output), read_volume(image)
    assert labels.geometry.shape == volume.geometry.shape
    np.testing.assert_allclose(labels.geometry.matrix, volume.geometry.matrix, atol=1e-4)
    assert set(np.unique(labels.array)) <= {0, 1, 2, 3, 4}
    assert labels.names == (dict(enumerate(ORGANS, 1)) if ending == ".seg.nrrd" else {})
    captured = capsys.readouterr()
    guess, *lines = captured.out.splitlines()
    assert guess == "Taken for CT."
    assert [line.partition(":")[0] for line in lines] == list(ORGANS)
    assert captured.err == ""


@pytest.mark.parametrize("stated", ["by the user", "by the file"])
def test_a_modality_that_is_stated_is_not_told_as_a_guess(
    image: Path, tmp_path: Path, stated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if stated == "by the file":
        write_dicom(tmp_path / "dicom", small_abdomen(3).volume)
        command = ["segment", str(tmp_path / "dicom")]
    else:
        command = ["segment", str(image), "--modality", "MR"]
    assert (
        main([*command, "-o", str(tmp_path / "labels.nii.gz"), "--device", "cpu", "--organs", "liver"]) == 0
    )
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["liver"]


def test_confidence_report_and_preview_are_written_on_request(image: Path, tmp_path: Path) -> None:
    names = {"-o": "a.nii.gz", "--confidence": "b.nii.gz", "--report": "c.json", "--preview": "d.png"}
    options = [part for option, name in names.items() for part in (option, str(tmp_path / "out" / name))]
    (tmp_path / "out").mkdir()
    assert main(["segment", str(image), "--device", "cpu", *options]) == 0
    assert set(files_in(tmp_path / "out")) == set(names.values())
    report = json.loads((tmp_path / "out" / "c.json").read_text(encoding="ascii"))
    assert [organ["name"] for organ in report["organs"]] == list(ORGANS)
    assert report["program_version"] == __version__
    assert read_array(tmp_path / "out" / "b.nii.gz").shape == read_array(image).shape
    with Image.open(tmp_path / "out" / "d.png") as picture:
        picture.verify()


def test_json_progress_is_one_object_a_line_and_ends_with_done(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "bäuchle 腹.nii.gz"
    image.write_bytes((data / "images" / "first.nii.gz").read_bytes())
    output = tmp_path / "läbels.nii.gz"
    assert main(["segment", str(image), "-o", str(output), "--device", "cpu", "--json-progress"]) == 0
    captured = capsys.readouterr()
    events = json_events(captured.out)
    assert captured.err == ""
    assert events[-1]["event"] == "done"
    assert Path(events[-1]["output"]) == output
    assert [organ["name"] for organ in events[-1]["organs"]] == list(ORGANS)
    assert events[-1]["labels"] == {organ: value for value, organ in enumerate(ORGANS, start=1)}
    progress = [event for event in events if event["event"] == "progress"]
    assert {"read", "load", "encode", "generate", "propagate", "write"} == {e["stage"] for e in progress}
    assert all(0 <= event["done"] <= event["total"] for event in progress)
    decoded = {(event["slice"], event["organ"]) for event in events if event["event"] == "slice"}
    assert len(decoded) == 10 * len(ORGANS)


def test_json_progress_ends_with_error_when_it_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "nothing.nii.gz"
    assert main(["segment", str(missing), "-o", str(tmp_path / "a.nrrd"), "--json-progress"]) == 2
    captured = capsys.readouterr()
    last = json_events(captured.out)[-1]
    assert (last["event"], last["code"]) == ("error", "input")
    assert captured.err == f"diffusam: {last['message']} {last['hint']}\n"


@pytest.mark.parametrize("option", ["--json-progress", "--json"])
def test_wrong_options_are_told_as_json_too(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["segment", "a.nii.gz", "-o", "b.nii.gz", "--bogus"]
    assert main([*command, option]) == 2
    captured = capsys.readouterr()
    (event,) = json_events(captured.out)
    assert (event["event"], event["code"]) == ("error", "input")
    assert "--bogus" in event["message"]
    assert captured.err == f"diffusam: {event['message']} {event['hint']}\n"
    assert main(command) == 2
    assert capsys.readouterr().out == ""


def test_a_fault_of_the_program_reaches_the_reader_of_the_json_too(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(path: Path, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("DiffuSAMLib.segment_file.read_volume", broken)
    with pytest.raises(ZeroDivisionError):
        main(["segment", str(image), "-o", str(tmp_path / "a.nrrd"), "--json-progress"])
    assert json_events(capsys.readouterr().out)[-1]["code"] == "internal"


def test_the_same_seed_gives_the_same_labels(image: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        output = tmp_path / f"{name}.nii.gz"
        assert main(["segment", str(image), "-o", str(output), "--device", "cpu", "--seed", seed]) == 0
    a, b, c = (read_array(tmp_path / f"{name}.nii.gz") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_one_organ_keeps_its_number(image: Path, tmp_path: Path) -> None:
    output = tmp_path / "liver.nii.gz"
    command = ["segment", str(image), "-o", str(output), "--device", "cpu", "--organs", "liver"]
    without = ("3d", "regions", "appearance", "poses", "smooth", "refine", "clean")
    others = ["--steps", "1", "--samples", "2", *(f"--no-{name}" for name in without)]
    assert main([*command, *others]) == 0
    assert set(np.unique(read_array(output))) == {0, 4}


def test_train_then_evaluate(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = tmp_path / "split.json"
    save_split(Split("split", ("first", "second"), ("third",), (), "for this test"), split)
    prior, report = tmp_path / "prior.safetensors", tmp_path / "scores.json"
    command = ["train", *folders(data), *TRAIN, "-o", str(prior), "--iterations", "2", "--split", str(split)]
    assert main([*command, "--title", "Two cases", "--licence", "CC0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["first.nii.gz goes with first.nii.gz.", "second.nii.gz goes with second.nii.gz."]
    assert lines[2].startswith("Warning: The cases are of both modalities (CT: first; MR: second).")
    assert lines[3].startswith("Iteration 2 of about 2: losses prior ")
    assert lines[4] == f"{prior}: {', '.join(ORGANS)}"
    header = read_header(prior)
    assert header.title == "Two cases"
    assert header.licence == "CC0"
    # It begins with the bundled prior; what that has seen counts as seen.
    assert header.training["cases"] == ["first", "second", "seen_by_prior"]
    assert header.training["started_from"]["training"]["cases"] == ["seen_by_prior"]
    assert header.training["iterations"] == 2
    assert header.modalities == ("CT", "MR")
    assert [label.name for label in header.labels] == list(ORGANS)
    assert not list(tmp_path.glob("*.training"))

    command = ["evaluate", "--prior", str(prior), "--data", str(data), "--device", "cpu"]
    assert main([*command, "--split", str(split), "--report", str(report)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "| third |" in captured.out
    scores = json.loads(report.read_text(encoding="ascii"))
    assert [case["name"] for case in scores["cases"]] == ["third"]
    assert 0 <= scores["summary"]["mean"]["dice"] <= 1

    assert main([*command, "--json-progress"]) == 2
    captured = capsys.readouterr()
    assert "used in training: first, second." in captured.err
    assert json_events(captured.out)[-1]["event"] == "error"

    other = tmp_path / "other"
    write_case(other, "renamed", small_abdomen(3))
    command = ["evaluate", "--prior", str(prior), *folders(other), "--label-names", LABEL_NAMES]
    assert main([*command, "--device", "cpu"]) == 2
    assert "used in training under another name: renamed." in capsys.readouterr().err


def test_evaluate_refuses_cases_that_the_backbone_has_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("seen_by_backbone", "seen_by_prior", "unseen"):
        write_case(tmp_path, name, small_abdomen(3))
    assert main(["evaluate", *folders(tmp_path), "--label-names", LABEL_NAMES, "--device", "cpu"]) == 2
    assert "used in training: seen_by_backbone, seen_by_prior." in capsys.readouterr().err


def test_evaluate_names_the_cases_of_a_split_that_are_nowhere(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "split.json"
    save_split(Split("split", ("first",), ("third", "secnd"), (), "for this test"), split)
    command = ["evaluate", "--data", str(data), "--split", str(split), "--device", "cpu"]
    assert main(command) == 2
    assert "of the split file are in no --data folder: secnd." in capsys.readouterr().err
    assert main([*command, *folders(data), "--label-names", LABEL_NAMES]) == 2
    assert "no image with a label map: secnd." in capsys.readouterr().err
    assert main([*command, "--part", "test"]) == 2
    assert "The split file lists no case to take." in capsys.readouterr().err


def test_cases_of_a_split_that_no_data_set_has_are_looked_for_in_images(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "split.json"
    write_case(tmp_path, "fourth", small_abdomen(6))
    # Labels that are not to be used, for the data set has this case.
    write_case(tmp_path, "third", small_abdomen(3))
    save_split(Split("split", ("first",), ("third", "fourth"), ("second",), "for this test"), split)
    command = ["evaluate", "--data", str(data), *folders(tmp_path), "--label-names", LABEL_NAMES]
    command += ["--split", str(split), "--device", "cpu"]
    for part, names in (("development", ["third", "fourth"]), ("test", ["second"])):
        assert main([*command, "--part", part]) == 0
        rows = capsys.readouterr().out.splitlines()[2:-1]
        assert [row.split()[1] for row in rows] == names


def test_a_part_belongs_to_a_split(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *folders(data), "--part", "test"]) == 2
    assert "--part belongs to --split." in capsys.readouterr().err


def test_evaluate_says_which_organs_are_not_scored(
    data: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    names = "1=Spleen,2=right_kidney,3=tail,4=liver"
    assert main(["evaluate", *folders(data), "--label-names", names, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("| case | spleen | right kidney | liver | mean |")
    assert caplog.messages == [
        "Not scored, for no label has the name: left kidney.",
        "Not scored, for the prior does not know them: tail.",
    ]


class InterruptingOutput(io.StringIO):
    """Standard output at which the user presses Ctrl-C when a text passes by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def write(self, line: str, /) -> int:
        if self.text in line:
            raise KeyboardInterrupt
        return super().write(line)


def test_an_interrupted_training_is_resumed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prior = tmp_path / "out" / "prior.safetensors"
    command = ["train", *folders(data), *TRAIN, "-o", str(prior), "--iterations", "4", "--json-progress"]
    with monkeypatch.context() as patch:
        output = InterruptingOutput('"train", "done": 2')
        patch.setattr(sys, "stdout", output)
        assert main(command) == 130
    assert json_events(output.getvalue())[-1]["code"] == "interrupted"
    assert capsys.readouterr().err == "diffusam: interrupted.\n"
    assert {path.name for path in prior.parent.iterdir()} == {"prior.training", "prior.run"}

    assert main(command) == 2
    assert "--resume" in capsys.readouterr().err

    assert main([*command, "--resume"]) == 0
    events = json_events(capsys.readouterr().out)
    assert [event["done"] for event in events if event.get("stage") == "train"] == [3, 4]
    assert {path.name for path in prior.parent.iterdir()} == {"prior.safetensors", "prior.run"}


def test_models_are_listed_imported_used_and_removed(
    data: Path, image: Path, tmp_path: Path, installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "import", str(installation.prior), "--name", "abdomen"]) == 0
    trained = tmp_path / "trained.safetensors"
    assert main(["train", *folders(data), *TRAIN, "-o", str(trained), "--iterations", "1"]) == 0
    assert main(["models", "import", str(trained), "--name", "mine"]) == 0
    capsys.readouterr()
    assert main(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    states = {line.split()[0]: line for line in lines}
    assert " bundled " in states["compact"]
    assert " bundled " in states["abdomen"]
    assert " not downloaded " in states["sam2.1_tiny"]
    assert " imported " in states["mine"]
    assert lines[lines.index(states["mine"]) + 1].split("labels: ")[1] == LABEL_NAMES.replace(
        "=", " "
    ).replace(",", ", ")
    assert str(tmp_path / "cache") in lines[-1]
    command = ["segment", str(image), "-o", str(tmp_path / "a.nrrd"), "--prior", "mine", "--device", "cpu"]
    assert main(command) == 0
    assert main(["models", "remove", "mine"]) == 0
    capsys.readouterr()
    assert main(command) == 2
    assert "no weights called mine" in capsys.readouterr().err


def test_pretrain_backbone_writes_weights_that_load(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "split.json"
    save_split(Split("split", ("first",), ("third",), (), "for this test"), split)
    weights = tmp_path / "backbone.safetensors"
    command = ["pretrain-backbone", "--data", str(data), "--split", str(split), "-o", str(weights)]
    assert main([*command, "--procedural", "0", "--minutes", "0.0001"]) == 0
    assert capsys.readouterr().out == f"{weights}\n"
    assert load_backbone("compact", path=weights).training_cases == ("first",)
    begun = load_prior(tmp_path / "backbone-start.safetensors", backbone_path=weights)
    assert begun.training_cases == ("first", "first")
    assert set(files_in(tmp_path)) == {"backbone.safetensors", "backbone-start.safetensors", "split.json"}


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"DiffuSAM Segment {__version__}\n"


def test_python_m_shows_help_quickly() -> None:
    """Help and version must not wait for torch."""
    script = "import DiffuSAMLib.cli, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False).returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "DiffuSAMLib", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    for command in ("segment", "train", "evaluate", "demo", "models", "pretrain-backbone"):
        assert command in done.stdout


def test_label_names_are_read() -> None:
    assert parse_label_names("1=spleen, 2 = right kidney") == {1: "spleen", 2: "right kidney"}


@pytest.mark.parametrize("text", ["spleen", "256=spleen", "x=spleen", "1=", "1=a,,2=b", ""])
def test_wrong_label_names_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a label name"):
        parse_label_names(text)
