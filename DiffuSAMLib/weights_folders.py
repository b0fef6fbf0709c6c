"""Where downloaded, imported and trained weights lie."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Where downloaded and imported weights lie: ``DIFFUSAM_HOME``, else the platform's usual place."""
    if home := os.environ.get("DIFFUSAM_HOME"):
        return Path(home).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "diffusam"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "diffusam"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusam"


def prior_folder() -> Path:
    """Where the user's own priors lie; any prior file put here is listed under its file name."""
    return cache_folder() / "priors"
