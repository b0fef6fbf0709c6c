from __future__ import annotations

import pytest

from DiffuSAMLib import procedural_stacks as module
from DiffuSAMLib.procedural_stacks import procedural_stacks

ORGANS = ("spleen", "liver")


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        ((), ["MR", "CT", "MR"]),
        (("CT",), ["MR", "MR", "MR"]),
        (("MR",), ["CT", "CT", "CT"]),
        (("CT", "MR"), ["MR", "CT", "MR"]),
    ],
)
def test_they_show_what_real_cases_do_not(
    real: tuple[str, ...], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = module.make_abdomen
    # Small ones are quicker.
    monkeypatch.setattr(
        module, "make_abdomen", lambda seed, **how: make(seed, **{**how, "shape": (8, 48, 48)})
    )
    stacks = procedural_stacks(3, organs=ORGANS, size=64, real=real)
    assert [stack.modality for stack in stacks] == expected
    assert all(stack.origin == "procedural" for stack in stacks)
    assert len({stack.name for stack in stacks}) == 3
    assert stacks[0].known.tolist() == [True, True]
