"""The ruler itself: what it refuses, what it keeps, and what its tables say."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import LABEL_NAMES, ORGANS, small_abdomen, write_case
from conftest import random_backbone

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.evaluation import CaseResult, Evaluation
from DiffuSAMLib.label_tables import parse_label_names
from DiffuSAMLib.metrics import OrganScore
from DiffuSAMLib.recipe import Recipe, TrainingConfig
from DiffuSAMLib.splits import Split, load_split, save_split
from DiffuSAMLib.weights import save_backbone

BENCHMARKS = Path(__file__).parent / "benchmarks"
for folder in (BENCHMARKS / "peers", BENCHMARKS):
    sys.path.insert(0, str(folder))

import ablations  # noqa: E402
import common  # noqa: E402
import continued_priors  # noqa: E402
import diffusam  # noqa: E402
import ideas  # noqa: E402
import prior_rows  # noqa: E402
import protocols  # noqa: E402
import run_all  # noqa: E402
import tables  # noqa: E402
import units  # noqa: E402
from prior_rows import PriorRow, measure_row  # noqa: E402
from protocols import PROTOCOLS, Job  # noqa: E402
from rows import METHODS, Summary  # noqa: E402
from units import Unit  # noqa: E402

SPLIT_NAME = "fewshot_ct_draw1"


def score(organ: str, dice: float, hd95: float | None = 4.0) -> OrganScore:
    return OrganScore(organ, dice, dice + 0.1, float("inf") if hd95 is None else hd95, dice, 10.0, 12.0)


def evaluation(*dice: float) -> Evaluation:
    """A case for each value, the same for all organs."""
    return Evaluation(
        [
            CaseResult(f"btcv_{number}", "CT", {organ: score(organ, value) for organ in ORGANS}, 1.0)
            for number, value in enumerate(dice)
        ]
    )


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data, splits, weights and results in a folder of the test's own: a case to train on, to score, and to find."""
    data = tmp_path / "data" / "btcv-ct"
    for number, name in enumerate(("btcv_train", "btcv_scored", "btcv_kept"), start=3):
        write_case(data, name, small_abdomen(number))
    labels = {organ: value for value, organ in parse_label_names(LABEL_NAMES).items()}
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **labels}}))
    (tmp_path / "splits").mkdir()
    split = Split(SPLIT_NAME, ("btcv_train",), ("btcv_scored",), ("btcv_kept",), "for the tests")
    save_split(split, tmp_path / "splits" / f"{SPLIT_NAME}.json")
    monkeypatch.setattr(common, "DATA", tmp_path / "data")
    for module in (protocols, prior_rows):
        monkeypatch.setattr(module, "SPLITS", tmp_path / "splits")
    monkeypatch.setattr(units, "RESULTS", tmp_path / "results")
    for module in (continued_priors, prior_rows):
        monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    return tmp_path


@pytest.fixture
def backbone_seeing(workplace: Path) -> Callable[..., Path]:
    """Writes random weights of a compact backbone that has seen the cases named."""

    def write(*cases: str) -> Path:
        path = workplace / "backbone.safetensors"
        network = random_backbone("compact", image_size=256).network
        save_backbone(path, network.state_dict(), {"training_cases": cases})
        return path

    return write


def job(**options: Any) -> Job:
    return Job(PROTOCOLS["A"], 1, **options)


def test_a_backbone_that_has_seen_a_scored_case_is_refused_before_any_training(
    workplace: Path, backbone_seeing: Callable[..., Path]
) -> None:
    path = backbone_seeing("btcv_scored", "btcv_other")
    with pytest.raises(InputError, match="used in training: btcv_scored"):
        measure_row(PriorRow("diffusam", ""), job(backbone_path=path), recipe=Recipe())
    assert not (workplace / "runs").exists()
    assert job(backbone_path=backbone_seeing("btcv_other")).backbone().training_cases == ("btcv_other",)


def test_the_clean_backbone_is_asked_for_where_it_is_missing(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "CLEAN_BACKBONE", workplace / "none.safetensors")
    with pytest.raises(InputError, match="clean_backbone"):
        job().backbone()


@pytest.mark.usefixtures("quick_trainings")
def test_a_draw_is_trained_and_scored_once(workplace: Path, backbone_seeing: Callable[..., Path]) -> None:
    """From data to the result's file, and not again; other settings measure anew."""
    draw = job(backbone_path=backbone_seeing("hippocampus_001"), minutes=0.0001)
    recipe = Recipe(width=(16, 16), outline_width=8, training=TrainingConfig(batch=1))
    row = PriorRow("diffusam", "DiffuSAM", start="none", procedural=1)
    assert measure_row(row, draw, recipe=recipe)
    path = workplace / "results" / "units" / "A" / "diffusam_draw1_development.json"
    content = json.loads(path.read_text())
    assert [case["name"] for case in content["cases"]] == ["btcv_scored"]
    assert content["record"]["prior_cases"] == content["train"] == ["btcv_train"]
    assert content["record"]["backbone_cases"] == ["hippocampus_001"]
    assert content["settings"]["recipe"]["training"]["minutes"] == 0.0001
    assert content["settings"]["recipe"]["procedural"] == 1
    assert str(workplace) not in path.read_text()
    (trained,) = (workplace / "runs" / "priors").glob("*")
    before = trained.stat().st_mtime_ns
    assert not measure_row(row, draw, recipe=recipe)
    # Other options of segmenting take the same prior.
    from ablations import NO_3D

    assert measure_row(replace(NO_3D, start="none", procedural=1), draw, recipe=recipe)
    assert [trained] == list((workplace / "runs" / "priors").glob("*"))
    assert trained.stat().st_mtime_ns == before
    # Slices shown without their neighbours need a training of their own.
    assert measure_row(replace(row, method="alone", slice_context=0), draw, recipe=recipe)
    assert len(list((workplace / "runs" / "priors").glob("*"))) == 2
    alone = json.loads(path.with_name("alone_draw1_development.json").read_text())
    assert alone["settings"]["slice_context"] == 0
    assert "slice_context" not in content["settings"]
    # Trained further, with what the prior finds in a target case that is not scored.
    further = replace(row, method="further", more_minutes=0.0001, unlabelled=True)
    assert measure_row(further, draw, recipe=recipe)
    found = json.loads(path.with_name("further_draw1_development.json").read_text())
    assert found["record"]["prior_cases"] == ["btcv_kept", "btcv_train"]
    assert found["settings"]["unlabelled"] == ["btcv_kept"]
    assert not measure_row(further, draw, recipe=recipe)


def test_a_unit_is_measured_anew_when_its_settings_or_cases_change(workplace: Path) -> None:
    calls: list[int] = []

    def work() -> tuple[Evaluation, dict[str, Any]]:
        calls.append(1)
        return evaluation(0.5), {}

    assert Unit(job(), "unet", {"minutes": 1}).measure(work)
    assert not Unit(job(), "unet", {"minutes": 1}).measure(work)
    assert Unit(job(), "unet", {"minutes": 2}).measure(work)
    split = Split(SPLIT_NAME, ("btcv_other",), ("btcv_scored",), (), "for the tests")
    save_split(split, workplace / "splits" / f"{SPLIT_NAME}.json")
    assert Unit(job(), "unet", {"minutes": 2}).measure(work)
    assert len(calls) == 3
    Unit(job(), "unet", {"minutes": 2}).path.write_text("{")
    assert Unit(job(), "unet", {"minutes": 2}).measure(work)


@pytest.mark.usefixtures("workplace")
def test_a_setting_that_is_new_makes_no_earlier_result_stale() -> None:
    """Recipes of schema 6 could not say that the decoder sees other slices."""
    recipe = Recipe(reach_mm=0.0)
    earlier = {name: value for name, value in recipe.to_dict().items() if name != "reach_mm"}
    earlier["schema_version"] = 6
    Unit(job(), "unet", {"recipe": earlier}).measure(lambda: (evaluation(0.5), {}))
    assert Unit(job(), "unet", {"recipe": recipe.to_dict()}).is_measured
    assert not Unit(job(), "unet", {"recipe": Recipe().to_dict()}).is_measured
    # Nor could options ask for the brightness in the scan, or look at slices in several poses.
    Unit(job(), "unet", {"options": {"smooth": True}}).measure(lambda: (evaluation(0.5), {}))
    for later in ("appearance", "poses"):
        for used in (True, False):
            options = {"smooth": True, "appearance": False, "poses": False, later: used}
            assert Unit(job(), "unet", {"options": options}).is_measured == (not used)
    # A prior that was trained by then has the name that it would get today.
    assert prior_rows.in_oldest_schema(recipe) == earlier
    assert prior_rows.in_oldest_schema(Recipe()) == Recipe().to_dict()


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_the_written_splits_keep_the_protocols_apart(protocol: protocols.Protocol) -> None:
    clean = load_split(BENCHMARKS / "splits" / "clean_backbone.json").train
    bundled = load_split(BENCHMARKS / "splits" / "bundled.json").train
    assert not any(case.startswith(("btcv", "chaos")) for case in clean)
    for draw in protocol.draws:
        one = Job(protocol, draw)
        split = one.split
        assert all(name.startswith(protocol.target) for name in one.evaluated_names)
        assert not {*split.development, *split.test} & set(clean)
        if protocol.backbone == "bundled":
            assert not set(one.evaluated_names) & set(bundled)
        assert not {*one.unlabelled_names, *split.train} & set(one.evaluated_names)


def test_the_priors_of_a_are_those_of_b() -> None:
    for draw in PROTOCOLS["A"].draws:
        assert Job(PROTOCOLS["A"], draw).split.train == Job(PROTOCOLS["B"], draw).split.train
        assert Job(PROTOCOLS["B"], draw).unlabelled_names


def test_the_rows_of_a_variant_share_its_training() -> None:
    rows = [
        diffusam.variant(row, name="more", changes={"training.seed": 7}, start="mine", procedural=None)
        for row in (diffusam.DIFFUSAM, diffusam.NO_3D)
    ]
    assert [row.method for row in rows] == ["more", "more_no_3d"]
    job = Job(PROTOCOLS["A"], draw=1, part="development", minutes=3.0)
    first, second = (prior_rows.row_recipe(Recipe(), row, job) for row in rows)
    assert first == second
    assert (first.training.seed, first.training.minutes, first.procedural) == (7, 3.0, 48)
    assert {row.start for row in rows} == {"mine"}


def test_volumes_of_the_ablation_are_nested() -> None:
    for draw in (1, 2, 3):
        sets = [
            set(load_split(BENCHMARKS / "splits" / f"{name}_draw{draw}.json").train)
            for name in ("ct_1_volumes", "fewshot_ct", "ct_5_volumes", "ct_10_volumes")
        ]
        assert [len(cases) for cases in sets] == [1, 3, 5, 10]
        assert sets[0] < sets[1] < sets[2] < sets[3]


def write_unit(folder: Path, method: str, draw: int, found: Evaluation) -> None:
    path = folder / "units" / "A" / f"{method}_draw{draw}_development.json"
    content = {
        "protocol": "A",
        "method": method,
        "draw": draw,
        "settings": {"minutes": 20},
        "record": {"backbone_cases": ["hippocampus_1", "hippocampus_2"], "iterations": 1000 * draw},
        **found.to_json(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(units.unit_text(content))


def test_tables_and_plots_come_from_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from plots import write_plots

    write_unit(tmp_path, "diffusam", 1, evaluation(0.7, 0.8))
    write_unit(tmp_path, "diffusam", 2, evaluation(0.9, 0.8))
    write_unit(tmp_path, "no_smooth", 1, evaluation(0.6, 0.8))
    write_unit(tmp_path, "no_smooth", 2, evaluation(0.9, 0.8))
    write_unit(tmp_path, "no_smooth_no_3d", 2, evaluation(0.75, 0.85))
    missed = Evaluation([CaseResult("btcv_0", "CT", {"liver": score("liver", 0.0, None)}, 1.0)])
    write_unit(tmp_path, "unetr", 1, missed)
    write_unit(tmp_path, "wider", 1, evaluation(0.65))
    text = tables.write_tables(tmp_path).read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    main = next(line for line in text.splitlines() if line.startswith("| **DiffuSAM**"))
    assert "0.800 ± 0.071 (2 of 5 draws)" in main
    assert main.count("not run") == 5
    assert "hippocampus 2" in rows["A"]
    assert "| 20 | 1000–2000 |" in next(x for x in text.splitlines() if x.startswith("| **DiffuSAM** | 2 |"))
    assert "| 20 | 1000 |" in next(x for x in text.splitlines() if x.startswith("| 2D UNETR | 1 |"))
    # Against the same draw only.
    assert "-5.0 (1 draw)" in text
    assert "(1 missed)" in text
    assert "| `wider` | 1 | 0.650" in text
    assert "| 50 sampling steps | not run |" in text
    assert "0.900" in text
    assert {path.name for path in write_plots(tmp_path)} == {
        "methods_A.png",
        "organs_A.png",
        "ablations_A.png",
    }
    assert all(path.stat().st_size > 1000 for path in tmp_path.glob("*.png"))


def test_ideas_are_weighed_by_the_mean_of_their_draws() -> None:
    idea = {"title": "twice", "protocol": "A", "minutes": [20.0], "kept": False}
    table = ideas.ideas_table({"ideas": [{**idea, "dice": {"1": [0.7, 0.8], "4": [0.8, 0.72]}}]})
    assert table.splitlines()[-1] == "| twice | A | 2 | 20 | 0.750 | 0.760 | +1.0 | taken out |"


def test_tables_of_nothing_say_so(tmp_path: Path) -> None:
    text = tables.write_tables(tmp_path).read_text(encoding="utf-8")
    assert "not run" in text
    assert "nnU-Net was cut" in text


def test_every_command_of_the_whole_run_names_a_script_and_known_protocols() -> None:
    for part in ("development", "test"):
        for script, *options in run_all.commands(20, part):
            assert (BENCHMARKS / script).is_file()
            named = [option for option in options if option in PROTOCOLS]
            assert named
            assert named == options[: len(named)]
            assert part == "development" or not any(name.startswith("C") for name in named)


@pytest.mark.parametrize("part", ["development", "test"])
def test_the_whole_run_measures_every_row_of_the_main_table(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scripts are run with their options; in the place of measuring a row is noted."""
    pytest.importorskip("monai")
    import peer

    measured = set()

    def note(method: str, job: Job) -> None:
        assert job.part == part
        measured.add((method, job.protocol.name, job.draw))

    for module in (ablations, diffusam):
        monkeypatch.setattr(module, "measure_row", lambda row, job, **_: note(row.method, job))
    monkeypatch.setattr(peer, "measure_peer", lambda method, _, job: note(method, job))
    for script, *options in run_all.commands(20, part):
        monkeypatch.setattr(sys, "argv", [script, *options])
        module = importlib.import_module(Path(script).stem)
        if script.startswith("peers/"):
            peer.run_peers(module.PEERS, None)
        else:
            module.main()
    promised = {
        (method, name, draw)
        for method, (_, names) in METHODS.items()
        for name in names
        for draw in PROTOCOLS[name].draws
        # C has no test cases.
        if part == "development" or not name.startswith("C")
    }
    assert not promised - measured


def test_a_training_in_parts_made_the_steps_of_all_of_them() -> None:
    records: list[dict[str, Any]] = [
        {"source": {"iterations": 171}, "adapting": {"iterations": 36}, "cases": ["chaos_1"]},
        {"iterations": 192},
        {"support_slices": 5},
    ]
    units = tuple({"draw": draw, "record": record} for draw, record in enumerate(records, start=1))
    assert Summary(units, 5).steps == [207, 192]


def test_a_row_is_set_against_the_base_whose_priors_saw_as_far() -> None:
    pytest.importorskip("matplotlib")
    from ablation_tables import base_of

    def summary(reach_mm: float) -> Summary:
        return Summary(({"draw": 1, "settings": {"recipe": {"reach_mm": reach_mm}}},), 5)

    far, near = summary(9.0), summary(0.0)
    rows = {("A", "steps_1"): summary(9.0), ("A", "steps_5"): summary(0.0)}
    found = {**rows, ("A", "no_smooth"): far, ("A", "no_reach"): near}
    assert base_of(found, "A", "steps_1") is far
    assert base_of(found, "A", "steps_5") is near
    assert base_of(found, "A", "no_reach") is far
    assert base_of({**rows, ("A", "no_smooth"): far}, "A", "steps_5") is far
    assert base_of(rows, "A", "steps_1") is None
    # Nothing is said of a prior that was taken as it is.
    assert Summary(({"draw": 1, "settings": {}},), 1).reach_mm == 0


def test_a_curve_joins_only_what_was_measured_on_the_same_draws() -> None:
    """Draws differ more than settings do."""
    pytest.importorskip("matplotlib")
    import plots

    def summary(**dice: float) -> Summary:
        units = [
            {"draw": int(draw[1:]), "cases": [{"name": "case", "scores": {"liver": {"dice": value}}}]}
            for draw, value in dice.items()
        ]
        return Summary(tuple(units), 5)

    methods = {"1": "steps_1", "2": "diffusam"}
    found = {("A", "diffusam"): summary(d1=0.9, d2=0.5), ("A", "steps_1"): summary(d1=0.8)}
    figure = plots.curve_plot(found, "steps", methods)
    assert figure is not None
    (curve,) = figure.axes[0].containers
    assert list(curve.lines[0].get_ydata()) == [0.8, 0.9]
    found["A", "steps_1"] = summary(d3=0.8)
    assert plots.curve_plot(found, "steps", methods) is None
