"""A process of its own each: what a process has imported once cannot be forgotten."""

from __future__ import annotations

import subprocess
import sys

LEAN = """
import sys
import DiffuSAMLib.segment_file
for name in ("torch._dynamo", "diffusers.models.transformers", "scipy.stats"):
    assert name not in sys.modules, name
"""
LATER = """
import diffusers.models.transformers
import torch._dynamo
from diffusers import Transformer2DModel, UNet2DModel
from DiffuSAMLib import lean_diffusers
assert UNet2DModel is lean_diffusers.UNet2DModel
assert torch._dynamo.is_compiling() is False
"""
PLAINLY = """
import sys


class AnotherRelease:
    def find_spec(self, name, path=None, target=None):
        if name == "diffusers.models.attention" and sys.modules.get("torch._dynamo", self) is None:
            raise ImportError("the compiler is needed")


sys.meta_path.insert(0, AnotherRelease())
from DiffuSAMLib.lean_diffusers import UNet2DModel
from diffusers import UNet2DModel as whole
assert UNet2DModel is whole
assert "torch._dynamo" in sys.modules
"""


def test_segmenting_imports_neither_the_compiler_nor_transformers_and_both_can_be_imported_later() -> None:
    run(LEAN + LATER)


def test_diffusers_is_imported_plainly_where_it_cannot_do_without_them() -> None:
    run(PLAINLY)


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
