from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cases import EVERYWHERE, ORGANS, Installation, reordered, small_abdomen, write_case

from DiffuSAMLib.errors import InputError, OutOfMemoryError
from DiffuSAMLib.evaluation import CaseResult, Evaluation, evaluate, evaluate_by
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.labelmaps import read_labelmap
from DiffuSAMLib.metrics import OrganScore, score_case
from DiffuSAMLib.preflight import CaseFacts
from DiffuSAMLib.progress import ProgressEvent
from DiffuSAMLib.segmentation_files import write_scalar, write_segmentation
from DiffuSAMLib.segmenter import Segmenter
from DiffuSAMLib.terminology import segment_for
from DiffuSAMLib.volumes import Volume, read_volume
from DiffuSAMLib.weights import LoadedPrior

NAMES = dict(enumerate(ORGANS, start=1))


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
    assert evaluation.deviation() == pytest.approx(np.std([0.8, 0.5], ddof=1))
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
def loaded(installation: Installation) -> LoadedPrior:
    return installation.load()


def labelled(folder: Path, name: str, label_names: dict[int, str], *, seed: int = 3) -> LabelledFiles:
    write_case(folder, name, small_abdomen(seed))
    file = f"{name}.nii.gz"
    return LabelledFiles(name, folder / "images" / file, folder / "labels" / file, label_names)


def test_scores_are_those_of_the_segmentation(loaded: LoadedPrior, tmp_path: Path) -> None:
    cases = [labelled(tmp_path, "a", NAMES), labelled(tmp_path, "b", NAMES, seed=4)]
    events: list[ProgressEvent] = []
    found = evaluate(loaded, cases, options=EVERYWHERE, progress=events.append)
    assert [(event.stage, event.done) for event in events] == [
        ("read", 1),
        ("read", 2),
        ("evaluate", 0),
        ("evaluate", 1),
        ("evaluate", 2),
    ]
    assert [case.name for case in found.cases] == ["a", "b"]
    assert all(case.seconds > 0 and case.modality == "CT" for case in found.cases)
    segmenter = Segmenter(loaded.backbone.backbone, loaded.prior)
    labels = segmenter.segment(read_volume(cases[0].image), EVERYWHERE).labels
    values = {organ: value for value, organ in NAMES.items()}
    expected = score_case(labels, small_abdomen().labels.array, values, (20.0, 3.5, 3.5))
    assert found.cases[0].scores.keys() == expected.keys()
    for organ in expected:
        assert found.cases[0].scores[organ].dice == pytest.approx(expected[organ].dice)
        assert found.cases[0].scores[organ].hd95_mm == pytest.approx(expected[organ].hd95_mm, rel=1e-4)


def test_scores_do_not_depend_on_the_axis_order_of_the_files(tmp_path: Path) -> None:
    """One of them counts by axial slices."""

    def liver_everywhere(volume: Volume, case: LabelledFiles) -> np.ndarray:
        return np.full(volume.array.shape, 4, np.uint8)

    abdomen = small_abdomen()
    volume, labels = abdomen.volume, dataclasses.replace(abdomen.volume, array=abdomen.labels.array)
    found = []
    for name, axes in (("axial", (0, 1, 2)), ("sagittal", (2, 0, 1))):
        case = LabelledFiles(name, tmp_path / f"{name}.nrrd", tmp_path / f"{name}_labels.nrrd", NAMES)
        for path, each in ((case.image, volume), (case.labels, labels)):
            other = reordered(each, axes, (False, True, True))
            write_scalar(path, other.array, other.geometry)
        (result,) = evaluate_by(liver_everywhere, [case], organs=ORGANS, training_cases=()).cases
        found.append([dataclasses.astuple(score) for score in result.scores.values()])
    assert found[0] == [pytest.approx(score, nan_ok=True) for score in found[1]]


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


def test_spellings_of_an_organ_are_one_organ(
    loaded: LoadedPrior, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = labelled(tmp_path, "a", NAMES)
    spelled = {1: "Spleen", 2: "right_kidney", 3: "Left  kidney", 4: "LIVER"}
    cases = [plain, dataclasses.replace(plain, name="b", label_names=spelled)]
    one, other = evaluate(loaded, cases, options=EVERYWHERE).cases
    assert list(other.scores) == list(ORGANS)
    assert other.scores == one.scores
    assert not caplog.records


def test_organs_that_are_not_scored_are_said_once(
    loaded: LoadedPrior, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What one case lacks and another has is no matter."""
    first = labelled(tmp_path, "a", {4: "liver", 1: "pancreas"})
    cases = [first, dataclasses.replace(first, name="b", label_names={1: "Spleen", 2: "Pancreas"})]
    evaluation = evaluate(loaded, cases, options=EVERYWHERE)
    assert [list(case.scores) for case in evaluation.cases] == [["liver"], ["spleen"]]
    assert caplog.messages == [
        "Not scored, for no label has the name: right kidney, left kidney.",
        "Not scored, for the prior does not know them: Pancreas.",
    ]


def test_organs_asked_for_may_be_spelled_in_any_way(
    loaded: LoadedPrior, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = labelled(tmp_path, "a", NAMES)
    full = evaluate(loaded, [case], options=EVERYWHERE).cases[0].scores
    some = dataclasses.replace(EVERYWHERE, organs=("LIVER", "right_kidney"))
    scores = evaluate(loaded, [case], options=some).cases[0].scores
    assert list(scores) == ["right kidney", "liver"]
    assert scores["liver"].true_ml == full["liver"].true_ml
    assert not caplog.records
    with pytest.raises(InputError, match="does not know livr"):
        evaluate(loaded, [case], options=dataclasses.replace(EVERYWHERE, organs=("livr",)))


@pytest.mark.parametrize("table", [NAMES, {1: "spleen", 2: "Right_Kidney", 3: "Left_Kidney", 4: "liver"}])
def test_a_segmentation_that_contradicts_the_table_is_refused(
    loaded: LoadedPrior, tmp_path: Path, table: dict[int, str]
) -> None:
    case = labelled(tmp_path, "a", NAMES)
    path, labels = tmp_path / "a.seg.nrrd", read_labelmap(case.labels)
    swapped = [segment_for(ORGANS[place], value) for value, place in enumerate((0, 2, 1, 3), start=1)]
    write_segmentation(path, labels.array, labels.geometry, swapped)
    with pytest.raises(InputError) as error:
        evaluate(loaded, [dataclasses.replace(case, labels=path, label_names=table)])
    assert str(error.value) == (
        "a: a.seg.nrrd has names of its own, and it calls label 2 left kidney, which is label 3 in the table given. "
        "Leave the label names out to take those of the files."
    )
    own = dataclasses.replace(case, labels=path, label_names=read_labelmap(path).names)
    assert list(evaluate(loaded, [own], options=EVERYWHERE).cases[0].scores) == list(ORGANS)


def rewrite(path: Path, *, empty: bool = False, shift_mm: float = 0.0) -> None:
    """A label map without labels, or at another place."""
    image = sitk.ReadImage(str(path))
    changed = image * 0 if empty else image
    x, y, z = image.GetOrigin()
    changed.SetOrigin((x, y, z + shift_mm))
    sitk.WriteImage(changed, str(path))


def nothing(volume: Volume, case: LabelledFiles) -> np.ndarray:
    return np.zeros(volume.array.shape, np.uint8)


def test_bad_cases_are_named_before_the_first_is_segmented(tmp_path: Path) -> None:
    cases = [labelled(tmp_path, name, NAMES) for name in "abcd"]
    rewrite(cases[1].labels, shift_mm=20)
    cases[3].image.write_bytes(cases[3].image.read_bytes()[:-5000])
    segmented: list[str] = []

    def remembering(volume: Volume, case: LabelledFiles) -> np.ndarray:
        segmented.append(case.name)
        return nothing(volume, case)

    with pytest.raises(
        InputError, match=r"^b: The labels lie on another grid .* Nor can these be scored: d\."
    ):
        evaluate_by(remembering, cases, organs=ORGANS, training_cases=())
    assert segmented == []


def test_many_bad_cases_are_counted(tmp_path: Path) -> None:
    cases = [LabelledFiles(str(n), tmp_path / "x", tmp_path / "y", NAMES) for n in range(9)]
    with pytest.raises(
        InputError, match=r"^0: There is no .* Check the path\. Nor .* scored: 1, 2, 3, 4, 5 and 3 more\."
    ):
        evaluate_by(nothing, cases, organs=ORGANS, training_cases=())


def test_a_case_is_not_scored_twice(tmp_path: Path) -> None:
    case = labelled(tmp_path, "a", NAMES)
    with pytest.raises(InputError, match=r"^Two cases are called a\. List it once"):
        evaluate_by(nothing, [case, case], organs=ORGANS, training_cases=())


def test_a_case_without_any_organ_is_a_control(tmp_path: Path) -> None:
    """Found though absent scores 0; absent and not found is no figure."""
    case = labelled(tmp_path, "a", NAMES)
    rewrite(case.labels, empty=True)

    def liver_somewhere(volume: Volume, case: LabelledFiles) -> np.ndarray:
        labels = nothing(volume, case)
        labels[2:4, 20:40, 20:40] = 4
        return labels

    scores = evaluate_by(liver_somewhere, [case], organs=ORGANS, training_cases=()).cases[0].scores
    assert list(scores) == list(ORGANS)
    assert math.isnan(scores["spleen"].dice)
    assert scores["liver"].dice == 0
    assert scores["liver"].hd95_mm == math.inf
    assert scores["liver"].true_ml == 0


def test_an_empty_label_map_of_another_grid_is_refused(tmp_path: Path) -> None:
    case = labelled(tmp_path, "a", NAMES)
    rewrite(case.labels, empty=True, shift_mm=20)
    with pytest.raises(InputError, match=r"^a: .* holds no label"):
        evaluate_by(nothing, [case], organs=ORGANS, training_cases=())


def test_the_case_that_needs_too_much_memory_is_named(tmp_path: Path) -> None:
    def fail(volume: Volume, case: LabelledFiles) -> np.ndarray:
        raise OutOfMemoryError("Too little memory.", hint="Use another device.")

    with pytest.raises(OutOfMemoryError, match=r"^a: Too little memory\. Use another device\."):
        evaluate_by(fail, [labelled(tmp_path, "a", NAMES)], organs=ORGANS, training_cases=())


@pytest.mark.parametrize("version", ["today's", "the first"])
def test_images_of_the_training_are_refused_under_another_name(
    loaded: LoadedPrior, tmp_path: Path, version: str
) -> None:
    """By the digests that a training's check of its cases notes down, or noted down at first."""
    trained, fresh = labelled(tmp_path, "p0", NAMES), labelled(tmp_path, "fresh", NAMES, seed=4)
    copy = dataclasses.replace(trained, name="q0", image=tmp_path / "q0.nii.gz")
    shutil.copyfile(trained.image, copy.image)
    volume = read_volume(trained.image)
    digest = (
        CaseFacts.of(trained, volume, read_labelmap(trained.labels), ORGANS).digest
        if version == "today's"
        else hashlib.sha256(volume.array.tobytes()).hexdigest()
    )
    header = dataclasses.replace(
        loaded.header, training={**loaded.header.training, "image_digests": [digest]}
    )
    prior = dataclasses.replace(loaded, header=header)
    assert evaluate(prior, [fresh], options=EVERYWHERE).cases
    with pytest.raises(
        InputError, match=r"used in training under another name: q0\. Evaluate on other cases\."
    ):
        evaluate(prior, [fresh, copy], options=EVERYWHERE)
    # Priors of earlier versions have no digests.
    assert evaluate(loaded, [copy], options=EVERYWHERE).cases
