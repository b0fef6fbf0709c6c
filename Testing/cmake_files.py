from __future__ import annotations

import re
from pathlib import Path


def cmake_list(file: Path, name: str) -> list[str]:
    """The files that a `CMakeLists.txt` sets a variable to."""
    match = re.search(rf"set\({name}\n(.*?)\)", file.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    return match[1].replace("${MODULE_NAME}", "DiffuSAMSegment").split()
