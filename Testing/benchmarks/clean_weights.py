"""The weights that A, B and B-reverse begin with, which lie in the repository's history, not among its files.

A clone holds a file twice, once in its history; with what only the benchmarks need it would be larger than the
100 MB that Slicer's Extensions Index allows. Who publishes this without its history should publish them beside it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from common import BENCHMARKS, ROOT

from DiffuSAMLib.files import atomic_path

CLEAN_BACKBONE = BENCHMARKS / "weights" / "clean-backbone.safetensors"
CLEAN_PRIOR = BENCHMARKS / "weights" / "clean-prior.safetensors"
# As `git hash-object` names them, by their content: commits may be rewritten, these names stay.
BLOBS = {
    CLEAN_BACKBONE: "69585bbde785ede09226c95e9a12af97afc36e90",
    CLEAN_PRIOR: "6815104642feccf901a3c2abcbd868a23dbe47ba",
}


def taken_from_history(path: Path) -> Path:
    """The same path; where its file is missing and the history has it, it is written first.

    A copy without history, or with the last commits alone, does not have it: the file then is still missing.
    """
    if path in BLOBS and not path.exists() and shutil.which("git") is not None:
        command = ["git", "-C", str(ROOT), "cat-file", "blob", BLOBS[path]]
        blob = subprocess.run(command, capture_output=True, check=False)
        if blob.returncode == 0:
            with atomic_path(path) as temporary:
                temporary.write_bytes(blob.stdout)
    return path
