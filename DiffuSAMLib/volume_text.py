"""How volumes are written for people."""

from __future__ import annotations

from decimal import Decimal


def volume_text(volume_ml: float) -> str:
    """A volume in ml as a number: from 100 on without decimals, else to three significant digits.

    So a small organ is not rounded away, and a large one is not written more exactly than it is known.
    """
    if not 0 < volume_ml < 100:
        return f"{volume_ml:.0f}"
    # The alternate form keeps zeros at the end; as a Decimal it is written without an exponent.
    return f"{Decimal(f'{volume_ml:#.3g}'):f}"
