from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from DiffuSAMLib.config_json import from_json, settings_of, with_settings
from DiffuSAMLib.errors import InputError


@dataclass(frozen=True)
class Pace:
    rate: float = 0.5
    limit: float | None = None


@dataclass(frozen=True)
class Config:
    """A field of every kind that configurations have."""

    count: int = 1
    name: str = "plain"
    quick: bool = False
    kind: Literal["round", "square"] = "round"
    size: tuple[int, float] = (2, 3.0)
    pace: Pace = field(default_factory=Pace)


@pytest.mark.parametrize(
    "config",
    [Config(), Config(4, "of my own", True, "square", (8, 1.5), Pace(0.25, 7.0))],
    ids=["defaults", "all fields"],
)
def test_a_configuration_comes_back_from_json(config: Config) -> None:
    assert from_json(Config, json.loads(json.dumps(asdict(config))), source="f.json") == config


def test_what_is_left_out_has_its_default() -> None:
    assert from_json(Config, {"pace": {"limit": 2}}, source="f.json") == Config(pace=Pace(limit=2.0))


def test_a_whole_number_will_do_for_a_fraction_and_becomes_one() -> None:
    config = from_json(Config, {"size": [4, 5], "pace": {"rate": 1, "limit": 2}}, source="f.json")
    assert [type(value) for value in (*config.size, config.pace.rate, config.pace.limit)] == [
        int,
        float,
        float,
        float,
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"count": 1.0}, '"count" must be a whole number'),
        ({"count": True}, '"count" must be a whole number'),
        ({"count": None}, '"count" must be a whole number'),
        ({"name": 3}, '"name" must be a text'),
        ({"quick": 1}, '"quick" must be true or false'),
        ({"kind": "oval"}, '"kind" must be one of round, square'),
        ({"size": 2}, '"size" must be a list of 2 values'),
        ({"size": [2, 3.0, 4.0]}, '"size" must be a list of 2 values'),
        ({"size": [2.5, 3.0]}, '"size" must be a whole number'),
        ({"pace": {"rate": "fast"}}, r'"pace\.rate" must be a number'),
        ({"pace": {"rate": False}}, r'"pace\.rate" must be a number'),
        ({"pace": {"rate": math.inf}}, r'"pace\.rate" must be a number'),
        ({"pace": {"limit": "none"}}, r'"pace\.limit" must be a number'),
        ({"pace": 3}, "pace .*JSON object"),
        (None, "the content .*JSON object"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_by_its_place_and_what_must_stand_there(
    content: Any, says: str
) -> None:
    with pytest.raises(InputError, match=rf"^f\.json: {says}"):
        from_json(Config, content, source="f.json")


@pytest.mark.parametrize(
    ("content", "place", "choices"),
    [
        ({"colour": "red"}, "colour", "count, name, quick, kind, size, pace"),
        ({"pace": {"rat": 1}}, "pace.rat", "rate, limit"),
    ],
)
def test_an_unknown_field_is_told_with_those_there_are(content: Any, place: str, choices: str) -> None:
    with pytest.raises(InputError) as caught:
        from_json(Config, content, source="f.json")
    assert f'there is no setting "{place}"' in str(caught.value)
    assert choices in caught.value.hint


def test_settings_are_json_where_they_can_be_and_else_text() -> None:
    texts = ["a.count=4", " rate = 0.5", "size=[1, 2]", "limit=null", "quick=true", "name=a=b", "kind="]
    assert settings_of(texts) == {
        "a.count": 4,
        "rate": 0.5,
        "size": [1, 2],
        "limit": None,
        "quick": True,
        "name": "a=b",
        "kind": "",
    }


def test_changed_settings_leave_what_they_were_changed_from_as_it_was() -> None:
    content = asdict(Config())
    changed = with_settings(content, {"pace.rate": 2.0, "count": 3}, hint="")
    assert from_json(Config, changed, source="f.json") == Config(count=3, pace=Pace(rate=2.0))
    assert content == asdict(Config())
