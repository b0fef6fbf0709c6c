"""What the benchmarks share: where data and results lie, and how a result is written."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from DiffuSAMLib import __version__
from DiffuSAMLib.datasets import LabelledFiles, read_dataset
from DiffuSAMLib.files import atomic_path
from DiffuSAMLib.json_values import to_json_value
from DiffuSAMLib.splits import load_split

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "Testing" / "benchmarks" / "results"
SPLITS = ROOT / "Testing" / "benchmarks" / "splits"
DATA = Path(os.environ.get("DIFFUSAM_DATA", ROOT.parent / "shared" / "data"))
SETS = {"BTCV": DATA / "btcv-ct", "CHAOS": DATA / "chaos-mr-t2spir"}
ORGANS = ("spleen", "right kidney", "left kidney", "liver")


def development_cases(name: str, split: str = "bundled") -> list[LabelledFiles]:
    """The development cases of "BTCV" or "CHAOS"."""
    chosen = load_split(SPLITS / f"{split}.json").development
    prefix = name.lower()
    return read_dataset(SETS[name], only=[case for case in chosen if case.startswith(prefix)])


def write_result(name: str, content: dict[str, Any]) -> Path:
    """Writes `results/<name>.json` with the command and the versions that made it."""
    path = RESULTS / f"{name}.json"
    script = Path(sys.argv[0]).name
    record = {
        "command": " ".join(["python", f"Testing/benchmarks/{script}", *sys.argv[1:]]),
        "program_version": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **content,
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(to_json_value(record), indent=1) + "\n", encoding="ascii")
    return path
