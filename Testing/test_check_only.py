"""What `diffusam train --check-only` says of cases and options, without training."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import ORGANS, json_events
from training_runs import folders

from DiffuSAMLib.cli import main
from DiffuSAMLib.labelled_files import LabelledFiles


def test_check_only_reports_and_trains_nothing(
    cases: list[LabelledFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    lonely = cases[0].image.parent / "lonely.nii.gz"
    lonely.write_bytes(cases[0].image.read_bytes())
    try:
        assert main(["train", *folders(cases), "--check-only"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "case0.nii.gz goes with case0.nii.gz."
        assert "Image lonely.nii.gz has no label map of the same name; left out." in lines
        assert lines[-1] == f"4 cases can be trained on: {', '.join(ORGANS)}."
        assert main(["train", *folders(cases), "--check-only", "--json-progress"]) == 0
        events = json_events(capsys.readouterr().out)
        assert {event["level"] for event in events[:-1]} == {"info"}
        assert events[-1]["cases"] == 4
    finally:
        lonely.unlink()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--validation", "nobody"], "no case nobody to hold out"),
        (["--modality", "MR", "--twins", "3"], "none of the cases to learn from is CT"),
        (["--set", "planes=three"], "Three planes need voxels"),
    ],
)
def test_check_only_refuses_what_a_training_would(
    cases: list[LabelledFiles], capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert main(["train", *folders(cases), *options, "--check-only"]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "case0.nii.gz goes with case0.nii.gz." in captured.out


def test_check_only_refuses_procedural_abdomens_of_other_organs(
    cases: list[LabelledFiles], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *folders(cases), "--label-names", "1=tail", "--procedural", "3", "--check-only"]
    assert main(command) == 2
    assert "Procedural abdomens show only" in capsys.readouterr().err


def test_too_little_memory_for_all_cases_is_one_sentence(
    cases: list[LabelledFiles], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("DiffuSAMLib.learnt_cases.to_stack", full)
    assert main(["train", *folders(cases), "--check-only"]) == 2
    assert "too little free memory for these cases" in capsys.readouterr().err
