"""How dark MR images are shown to a prior that knows MR from procedural abdomens alone."""

from __future__ import annotations

from collections.abc import Collection

from .prior_files import PriorHeader

# The best of five on MR that no benchmark scores: Testing/benchmarks/mr_exponent.py.
PROCEDURAL_MR_GAMMA = 1.5


def mr_gamma(
    modalities: Collection[str], *, procedural: int, twins: int, earlier: PriorHeader | None = None
) -> float:
    """The exponent that scaled MR intensities get before a prior sees them; 1 leaves them.

    Args:
        modalities: Of the real training cases.
        procedural: How many procedural abdomens it learns from besides.
        twins: How many MR-like twins of CT: these are as bright as real MR, and darker input makes the result worse.
        earlier: Of the prior that it begins with. If that has seen real cases, its exponent is inherited.
    """
    if "MR" in modalities or twins:
        return 1.0
    if earlier is not None and earlier.training.get("cases"):
        return float(earlier.config.get("mr_gamma", 1.0))
    return PROCEDURAL_MR_GAMMA if procedural else 1.0
