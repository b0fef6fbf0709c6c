from __future__ import annotations

import time

import pytest

from DiffuSAMLib.stage_timer import StageTimer


def test_a_stage_entered_twice_adds_up() -> None:
    timer = StageTimer()
    for _ in range(2):
        with timer("encode"):
            time.sleep(0.02)
    with pytest.raises(KeyError), timer("propagate"):
        raise KeyError
    assert list(timer.seconds) == ["encode", "propagate"]
    assert 0.04 <= timer.seconds["encode"] < 1.0
