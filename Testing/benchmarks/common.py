"""What the benchmarks share: where data and results lie, and how a result is written."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from DiffuSAMLib import __version__
from DiffuSAMLib.files import atomic_path
from DiffuSAMLib.json_values import to_json_value
from DiffuSAMLib.labelled_files import LabelledFiles, read_dataset
from DiffuSAMLib.splits import load_split

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "Testing" / "benchmarks"
RESULTS = BENCHMARKS / "results"
SPLITS = BENCHMARKS / "splits"
# Weights made on the way, not part of the repository.
RUNS = ROOT / "runs" / "benchmarks"
DATA = Path(os.environ.get("DIFFUSAM_DATA", ROOT.parent / "shared" / "data"))
# Folders of the data sets by the first word of their cases' names.
FOLDERS = {"btcv": "btcv-ct", "chaos": "chaos-mr-t2spir", "hippocampus": "msd-hippocampus-mr"}
ORGANS = ("spleen", "right kidney", "left kidney", "liver")


def labelled_cases(names: Iterable[str]) -> list[LabelledFiles]:
    """Cases of the shared data sets by their names, in the order of the data sets and names."""
    wanted: dict[str, list[str]] = {}
    for name in names:
        wanted.setdefault(name.split("_")[0], []).append(name)
    return [
        case
        for prefix, folder in FOLDERS.items()
        if prefix in wanted
        for case in read_dataset(DATA / folder, only=wanted[prefix])
    ]


def development_cases(name: str, split: str = "bundled") -> list[LabelledFiles]:
    """The development cases of "BTCV" or "CHAOS"."""
    chosen = load_split(SPLITS / f"{split}.json").development
    return labelled_cases(case for case in chosen if case.startswith(name.lower()))


def provenance() -> dict[str, Any]:
    """The command and the versions that make a result."""
    # Options may name files of this machine: only what they are called is told.
    parts = [option.rpartition("=") for option in sys.argv[1:]]
    options = [title + sign + (Path(rest).name if os.sep in rest else rest) for title, sign, rest in parts]
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    return {
        "command": shlex.join(["python", shown, *options]),
        "program_version": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Writes strict JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(to_json_value(content), indent=1) + "\n", encoding="ascii")
    return path


def write_result(name: str, content: dict[str, Any]) -> Path:
    """Writes `results/<name>.json` with the command and the versions that made it."""
    return write_json(RESULTS / f"{name}.json", {**provenance(), **content})
