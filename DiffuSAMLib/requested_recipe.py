"""The recipe that a training is asked for, on the command line or by a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .recipe import Recipe, default_recipe, load_recipe
from .training_record import resumed_recipe


def requested_recipe(
    *, config: str | None, resumed: Path | None, backbone: str, settings: Mapping[str, Any]
) -> Recipe:
    """The named recipe, else that of the run to resume, else the backbone's, with what is overridden.

    Args:
        config: As `load_recipe` takes it; None names none.
        resumed: Prior whose unfinished run goes on, where there is one; None begins anew.
        backbone: Its default recipe is taken where there is no other.
        settings: Values by their places, such as "training.batch".

    Raises:
        InputError: There is no such recipe, the run is damaged, or a setting cannot be.
        WeightsError: The prior that `config` names is damaged.
    """
    recipe = None
    if config is not None:
        recipe = load_recipe(config)
    elif resumed is not None:
        recipe = resumed_recipe(resumed)
    return (recipe or default_recipe(backbone)).with_settings(settings)
