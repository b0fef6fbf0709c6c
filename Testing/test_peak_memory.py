from __future__ import annotations

import numpy as np

from DiffuSAMLib.peak_memory import cuda_peak_memory_mb, peak_memory_mb


def test_peak_memory_is_at_least_what_is_held() -> None:
    held = np.ones(50_000_000 // 8)
    peak = peak_memory_mb()
    assert peak is not None
    assert held.nbytes / 1e6 < peak < 1e6


def test_cpu_has_no_gpu_memory() -> None:
    assert cuda_peak_memory_mb("cpu") is None
