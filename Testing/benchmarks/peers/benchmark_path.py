"""Imported first by every peer, so that each can be run as a script: what the benchmarks share lies one folder up."""

from __future__ import annotations

import sys
from pathlib import Path

_BENCHMARKS = str(Path(__file__).resolve().parents[1])
if _BENCHMARKS not in sys.path:
    sys.path.append(_BENCHMARKS)
