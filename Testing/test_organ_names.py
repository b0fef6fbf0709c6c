from __future__ import annotations

import pytest

from DiffuSAMLib.data_options import organ_names
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.label_tables import parse_label_names
from DiffuSAMLib.organ_names import organ_key


def test_spellings_of_a_name_are_one_organ() -> None:
    assert organ_key("Right_Kidney") == organ_key(" right  kidney ") == "right kidney"
    assert organ_key("fe\u0301mur") == organ_key("F\u00e9mur")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("spleen,liver", ("spleen", "liver")),
        (" spleen , ,liver,", ("spleen", "liver")),
        ('"Kidney, left", liver', ("Kidney, left", "liver")),
        ('vertebra "L1",liver', ('vertebra "L1"', "liver")),
    ],
)
def test_names_are_listed_with_commas(text: str, names: tuple[str, ...]) -> None:
    assert organ_names(text) == names


def test_no_name_is_told() -> None:
    assert organ_names(None) is None
    with pytest.raises(InputError, match="names no organ"):
        organ_names(" , ")


def test_a_label_name_may_have_a_comma() -> None:
    assert parse_label_names('1=spleen,"2=Kidney, left"') == {1: "spleen", 2: "Kidney, left"}
    with pytest.raises(InputError, match="left"):
        parse_label_names("1=spleen,2=Kidney, left")
