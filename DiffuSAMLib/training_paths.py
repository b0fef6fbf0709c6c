"""Where a training keeps its files, beside the prior that it makes."""

from __future__ import annotations

from pathlib import Path


def checkpoint_path(output: Path) -> Path:
    """Where the unfinished run of a prior lies."""
    return output.with_suffix(".training")


def run_folder(output: Path) -> Path:
    """Where the tables and pictures of a prior's training lie."""
    return output.with_suffix(".run")


def lock_path(output: Path) -> Path:
    """What is locked while a prior is trained; hidden, as nobody need look at it."""
    return output.with_name(f".{output.name}.lock")
