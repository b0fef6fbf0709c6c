from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from cases import EVERYWHERE, ORGANS, Installation, install_random_weights, small_abdomen, write_case

from DiffuSAMLib.datasets import LabelledFiles
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.evaluation import CaseResult, Evaluation, evaluate
from DiffuSAMLib.metrics import OrganScore, score_case
from DiffuSAMLib.progress import ProgressEvent
from DiffuSAMLib.segmenter import Segmenter
from DiffuSAMLib.volumes import read_volume
from DiffuSAMLib.weights import LoadedPrior


def score(name: str, dice: float, hd95: float = 3.0) -> OrganScore:
    return OrganScore(name, dice, dice, hd95, dice, 10.0, 12.0)


@pytest.fixture
def evaluation() -> Evaluation:
    """The second case has no spleen, neither true nor predicted."""
    return Evaluation(
        [
            CaseResult("one", "CT", {"spleen": score("spleen", 0.9), "liver": score("liver", 0.7)}, 2.0),
            CaseResult(
                "two",
                "MR",
                {"spleen": score("spleen", math.nan, math.nan), "liver": score("liver", 0.5, math.inf)},
                3.0,
            ),
        ]
    )


def test_means_leave_out_organs_that_are_nowhere(evaluation: Evaluation) -> None:
    assert evaluation.mean() == pytest.approx((0.9 + 0.7 + 0.5) / 3)
    assert evaluation.mean(organ="spleen") == pytest.approx(0.9)
    assert evaluation.mean("hd95_mm", organ="spleen") == pytest.approx(3)
    assert evaluation.mean("hd95_mm") == math.inf
    assert evaluation.deviation() == pytest.approx(np.std([0.8, 0.5]))
    assert evaluation.organs == ["spleen", "liver"]


def test_a_figure_of_nothing_is_not_a_number_and_no_warning() -> None:
    empty = Evaluation([CaseResult("one", "CT", {"spleen": score("spleen", math.nan)}, 1.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(empty.mean())
        assert math.isnan(empty.deviation())
        assert math.isnan(Evaluation([]).mean())


def test_scores_are_written_as_strict_json(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.write(tmp_path / "scores.json")
    text = (tmp_path / "scores.json").read_text(encoding="ascii")
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content["schema_version"] == 1
    assert content["summary"]["liver"]["dice"] == pytest.approx(0.6)
    assert content["summary"]["mean"]["hd95_mm"] is None
    assert content["cases"][1]["scores"]["spleen"]["dice"] is None
    assert [case["name"] for case in content["cases"]] == ["one", "two"]
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_the_table_has_a_row_for_each_case_and_the_means(evaluation: Evaluation) -> None:
    lines = evaluation.table().splitlines()
    assert lines[0] == "| case | spleen | liver | mean |"
    assert lines[2] == "| one | 0.900 | 0.700 | 0.800 |"
    assert lines[3] == "| two | nan | 0.500 | 0.500 |"
    assert lines[4] == "| **mean** | 0.900 | 0.600 | **0.700** |"
    assert len({line.count("|") for line in lines}) == 1


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install_random_weights(tmp_path_factory.mktemp("installed") / "Resources")


@pytest.fixture(scope="module")
def loaded(installation: Installation) -> LoadedPrior:
    return installation.load()


def labelled(folder: Path, name: str, label_names: dict[int, str], *, seed: int = 3) -> LabelledFiles:
    write_case(folder, name, small_abdomen(seed))
    file = f"{name}.nii.gz"
    return LabelledFiles(name, folder / "images" / file, folder / "labels" / file, label_names)


def test_scores_are_those_of_the_segmentation(loaded: LoadedPrior, tmp_path: Path) -> None:
    names = dict(enumerate(ORGANS, start=1))
    cases = [labelled(tmp_path, "a", names), labelled(tmp_path, "b", names, seed=4)]
    events: list[ProgressEvent] = []
    found = evaluate(loaded, cases, options=EVERYWHERE, progress=events.append)
    assert [event.done for event in events] == [0, 1, 2]
    assert [case.name for case in found.cases] == ["a", "b"]
    assert all(case.seconds > 0 and case.modality == "CT" for case in found.cases)
    segmenter = Segmenter(loaded.backbone.backbone, loaded.prior)
    labels = segmenter.segment(read_volume(cases[0].image), EVERYWHERE).labels
    values = {organ: value for value, organ in names.items()}
    expected = score_case(labels, small_abdomen().labels.array, values, (20.0, 3.5, 3.5))
    assert found.cases[0].scores.keys() == expected.keys()
    for organ in expected:
        assert found.cases[0].scores[organ].dice == pytest.approx(expected[organ].dice)
        assert found.cases[0].scores[organ].hd95_mm == pytest.approx(expected[organ].hd95_mm, rel=1e-4)


def test_organs_are_matched_by_name_not_by_number(loaded: LoadedPrior, tmp_path: Path) -> None:
    """Label 4, the liver, is called spleen here; label 1 is an organ that the prior does not know."""
    case = labelled(tmp_path, "a", {4: "spleen", 1: "pancreas"})
    found = evaluate(loaded, [case], options=EVERYWHERE).cases[0]
    assert list(found.scores) == ["spleen"]
    liver = (small_abdomen().labels.array == 4).sum() * 3.5 * 3.5 * 20 / 1000
    assert found.scores["spleen"].true_ml == pytest.approx(liver)


def test_labels_without_any_organ_of_the_prior_are_refused(loaded: LoadedPrior, tmp_path: Path) -> None:
    case = labelled(tmp_path, "a", {1: "pancreas"})
    with pytest.raises(InputError, match="labels of a name none of the prior's organs"):
        evaluate(loaded, [case])


@pytest.mark.parametrize("name", ["seen_by_prior", "seen_by_backbone"])
def test_cases_that_the_weights_have_seen_are_refused(loaded: LoadedPrior, tmp_path: Path, name: str) -> None:
    assert set(loaded.training_cases) == {"seen_by_prior", "seen_by_backbone"}
    cases = [LabelledFiles(case, tmp_path / "x", tmp_path / "y", {}) for case in ("unseen", name)]
    with pytest.raises(InputError, match=f"used in training: {name}"):
        evaluate(loaded, cases)
