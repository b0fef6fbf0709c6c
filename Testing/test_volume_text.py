from __future__ import annotations

import pytest

from DiffuSAMLib.volume_text import volume_text


@pytest.mark.parametrize(
    ("volume_ml", "text"),
    [
        (1815.45, "1815"),
        (100.4, "100"),
        (99.96, "100"),
        (99.94, "99.9"),
        (12.0, "12.0"),
        (2.345, "2.35"),
        (0.0451, "0.0451"),
        (1e-6, "0.00000100"),
        (0.0, "0"),
    ],
)
def test_small_volumes_keep_three_digits(volume_ml: float, text: str) -> None:
    assert volume_text(volume_ml) == text
