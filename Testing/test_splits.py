from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.splits import Split, load_split, refuse_overlap, refuse_seen_images, save_split

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import make_splits  # noqa: E402

SPLIT_FILES = sorted((BENCHMARKS / "splits").glob("*.json"))


def all_cases(prefix: str) -> list[str]:
    """Every case with this prefix that the split files name."""
    splits = [load_split(path) for path in SPLIT_FILES]
    cases = {case for split in splits for case in (*split.train, *split.development, *split.test)}
    return sorted(case for case in cases if case.startswith(prefix))


@pytest.mark.parametrize("path", SPLIT_FILES, ids=lambda path: path.stem)
def test_every_split_file_loads_and_bears_its_name(path: Path) -> None:
    split = load_split(path)
    assert split.name == path.stem
    assert split.train
    assert split.note


def test_the_written_splits_are_what_the_script_draws() -> None:
    made = make_splits.make_splits(*(all_cases(prefix) for prefix in ("btcv", "chaos", "hippocampus")))
    assert sorted(split.name for split in made) == [path.stem for path in SPLIT_FILES]
    for split in made:
        assert load_split(BENCHMARKS / "splits" / f"{split.name}.json") == split


def test_the_splits_use_all_shared_cases() -> None:
    assert [len(all_cases(prefix)) for prefix in ("btcv", "chaos", "hippocampus")] == [22, 14, 120]


def test_no_draw_trains_on_a_development_case() -> None:
    development = load_split(BENCHMARKS / "splits" / "bundled.json").development
    assert len(development) == 8
    for path in SPLIT_FILES:
        split = load_split(path)
        assert not set(split.train) & set(development)
        if "draw" in path.stem and "volumes" not in path.stem:
            assert len(split.train) == 3


def test_the_draws_differ() -> None:
    for prefix, count in (("fewshot_ct", 5), ("mr_to_ct", 5), ("hippocampus", 3)):
        draws = [load_split(path).train for path in SPLIT_FILES if path.stem.startswith(f"{prefix}_draw")]
        assert len(set(draws)) == len(draws) == count


def test_a_split_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    split = Split("s", ("a", "b"), ("c",), (), "why")
    save_split(split, tmp_path / "s.json")
    assert load_split(tmp_path / "s.json") == split


def test_an_overlap_in_a_split_names_the_cases() -> None:
    with pytest.raises(InputError, match=r"a \(train and test\), b \(train and development\)|b .*a "):
        Split("s", ("a", "b"), ("b",), ("a", "c"), "")


def test_a_case_listed_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"a \(train and train\)"):
        Split("s", ("a", "a"), (), (), "")


def test_an_overlap_in_a_file_is_refused(tmp_path: Path) -> None:
    content = {"name": "s", "note": "", "train": ["a"], "development": [], "test": ["a"]}
    (tmp_path / "s.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="more than once"):
        load_split(tmp_path / "s.json")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"name": "s"}', '{"name":1,"note":"","train":[],"development":[],"test":[]}']
)
def test_a_file_that_is_no_split_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(InputError, match="is not"):
        load_split(tmp_path / "s.json")


def test_a_missing_split_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_split(tmp_path / "absent.json")


def test_evaluating_on_training_cases_is_refused_by_name() -> None:
    refuse_overlap(["a", "b"], ["c"])
    with pytest.raises(InputError, match=r"used in training: a, b\."):
        refuse_overlap(["b", "a", "d"], ["a", "c", "b"])


def test_evaluating_on_training_images_is_refused_whatever_they_are_called() -> None:
    refuse_seen_images((), [("a", "12")])
    refuse_seen_images(["34"], [("a", "12")])
    with pytest.raises(InputError, match=r"used in training under another name: a, c\."):
        refuse_seen_images(["12", "34"], [("a", "12"), ("b", "56"), ("c", "34")])
