"""A training that begins with the weights of an earlier prior."""

from __future__ import annotations

from .errors import InputError
from .prior import ORGAN_WEIGHTS, Prior
from .weights import LoadedBackbone, LoadedPrior


def begin_with(prior: Prior, earlier: LoadedPrior, backbone: LoadedBackbone) -> None:
    """Copies the weights of an earlier prior; what belongs to its organs only where they are the same.

    Args:
        prior: A fresh one, changed in place.
        earlier: Where the weights come from.
        backbone: That of the training.

    Raises:
        InputError: The earlier prior was made for another backbone.
    """
    if earlier.backbone.sha256 != backbone.sha256:
        raise InputError(
            f"The prior {earlier.header.name} was made for another backbone.",
            hint="Start from a prior of the same backbone and image size.",
        )
    state = prior.state_dict()
    same_organs = earlier.prior.config.organs == prior.config.organs
    copied = {
        name: value
        for name, value in earlier.prior.state_dict().items()
        if name in state
        and value.shape == state[name].shape
        and (same_organs or not name.startswith(ORGAN_WEIGHTS))
    }
    prior.load_state_dict({**state, **copied})
