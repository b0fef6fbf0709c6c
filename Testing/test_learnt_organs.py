from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.learnt_organs import organs_of, unified


def test_more_organs_than_a_label_map_can_tell_apart_are_refused(tmp_path: Path) -> None:
    image = tmp_path / "x"
    names = [{value: f"organ {value + add}" for value in range(1, 200)} for add in (0, 100)]
    cases = [LabelledFiles(str(number), image, image, each) for number, each in enumerate(names)]
    with pytest.raises(InputError, match=r"name 299 organs, and a prior can have at most 255\. .*--organs"):
        organs_of(cases, None)
    assert organs_of(cases, ["organ 7"]) == ("organ 7",)


@pytest.mark.parametrize(
    ("tables", "order"),
    [
        ([{2: "posterior", 1: "anterior"}], "anterior posterior"),
        ([{3: "liver", 4: "spleen", 1: "liver"}, {9: "spleen"}], "liver spleen"),
        # A case without a liver, numbered for itself.
        ([{1: "spleen"}, {2: "spleen", 1: "liver"}], "liver spleen"),
        ([{1: "spleen", 2: "liver"}, {1: "liver", 2: "spleen"}], "spleen liver"),
        ([{2: "spleen", 1: "liver"}, {1: "spleen", 2: "liver"}], "spleen liver"),
    ],
)
def test_organs_are_ordered_by_their_values_where_the_cases_agree(
    tmp_path: Path, tables: list[dict[int, str]], order: str
) -> None:
    image = tmp_path / "x"
    cases = [LabelledFiles(str(number), image, image, table) for number, table in enumerate(tables)]
    assert organs_of(cases, None) == tuple(order.split())
    assert organs_of(cases, order.split()[::-1]) == tuple(order.split()[::-1])


def test_spellings_of_an_organ_are_one_organ(tmp_path: Path) -> None:
    image = tmp_path / "x"
    cases = [
        LabelledFiles("a", image, image, {1: "Right Kidney"}),
        LabelledFiles("b", image, image, {7: "right_kidney", 8: "liver"}),
    ]
    same = unified(cases)
    assert [dict(case.label_names) for case in same] == [{1: "Right Kidney"}, {7: "Right Kidney", 8: "liver"}]
    assert organs_of(same, ["_LIVER "]) == ("liver",)
    with pytest.raises(InputError, match=r"No case has labels for: tail\. They name Right Kidney, liver\."):
        organs_of(same, ["tail"])


@pytest.mark.parametrize("other", [unicodedata.normalize("NFD", "größe"), "GRÖSSE", "GRÖẞE"])
def test_accents_and_capitals_make_no_other_organ(tmp_path: Path, other: str) -> None:
    image = tmp_path / "x"
    cases = [LabelledFiles(name, image, image, {1: name}) for name in ("größe", other)]
    assert organs_of(unified(cases), None) == ("größe",)
