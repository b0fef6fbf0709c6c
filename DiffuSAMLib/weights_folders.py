"""Where downloaded, imported and trained weights lie."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import WeightsError


def cache_folder() -> Path:
    """Where downloaded and imported weights lie: ``DIFFUSAM_HOME``, else the platform's usual place.

    Raises:
        WeightsError: The user has no home folder.
    """
    if home := os.environ.get("DIFFUSAM_HOME"):
        return Path(home).expanduser()
    try:
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "diffusam"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "diffusam"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusam"
    except RuntimeError as error:
        raise WeightsError(
            "There is no home folder for weights.",
            hint="Name a folder in the environment variable DIFFUSAM_HOME.",
        ) from error


def prior_folder() -> Path:
    """Where the user's own priors lie; any prior file put here is listed under its file name."""
    return cache_folder() / "priors"
