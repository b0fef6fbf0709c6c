"""A training that begins with the weights of an earlier prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .content_hashes import sha256_of
from .errors import InputError
from .organ_names import organ_key
from .prior import ORGAN_WEIGHTS, Prior, PriorConfig
from .prior_files import PriorHeader, read_header, read_prior
from .weights import LoadedBackbone, prior_path

BUNDLED = "abdomen"


@dataclass(frozen=True)
class EarlierPrior:
    """What a training begins with.

    Attributes:
        header: Of its file.
        tensors: Its weights.
        sha256: Of its file.
    """

    header: PriorHeader
    tensors: Mapping[str, Tensor]
    sha256: str

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of the scans that its weights have seen; procedural abdomens are none."""
        if not self.header.training.get("cases"):
            return ()
        return tuple(self.header.config.get("modalities", self.header.modalities))

    def cases_of(self, organs: Sequence[str]) -> set[str]:
        """Names of the cases that its weights have learnt such organs from."""
        known = {organ_key(label.name) for label in self.header.labels}
        return set(self.header.training.get("cases", ())) if known & set(map(organ_key, organs)) else set()


def earlier_prior(start: str, backbone: LoadedBackbone, config: PriorConfig) -> EarlierPrior | None:
    """The prior to begin with, if any.

    What a prior has learnt of telling organs apart and of marking them helps with other organs too, and with other
    weights of the same backbone.

    Args:
        start: "none", the name or file of a prior, or "auto": the bundled prior where it fits.
        backbone: That of the training.
        config: Of the prior to be trained; the bundled one fits its own backbone's weights, kind and widths.

    Raises:
        InputError: The prior was made for a backbone of another name.
        WeightsError: It is missing or damaged.
    """
    if start == "none":
        return None
    if start == "auto":
        header = read_header(prior_path(BUNDLED))
        same_backbone = header.backbone.weights_sha256 == backbone.sha256
        return (
            read_earlier(BUNDLED, header.backbone.name)
            if same_backbone and _same_shape(header, config)
            else None
        )
    return read_earlier(start, backbone.backbone.name)


def read_earlier(start: str, backbone: str) -> EarlierPrior:
    """The prior of that name or file, whose backbone must be called as here; its weights may be others.

    Raises:
        InputError: The prior was made for a backbone of another name.
        WeightsError: It is missing or damaged.
    """
    path = prior_path(start)
    header, tensors = read_prior(path)
    if header.backbone.name != backbone:
        raise InputError(
            f"The prior {header.name} was made for the backbone {header.backbone.name}, not {backbone}.",
            hint="Start from a prior of the same backbone, or from none.",
        )
    return EarlierPrior(header, tensors, sha256_of(path))


@torch.no_grad()
def begin_with(prior: Prior, earlier: EarlierPrior) -> None:
    """Copies the weights of an earlier prior; what belongs to an organ only where both know it by the same name."""
    state = prior.state_dict()
    for name, value in earlier.tensors.items():
        if name in state and state[name].shape == value.shape and not name.startswith(ORGAN_WEIGHTS):
            state[name].copy_(value)
    _copy_organs(state, prior.config, earlier)


def _copy_organs(state: Mapping[str, Tensor], config: PriorConfig, earlier: EarlierPrior) -> None:
    """Copies what belongs to the organs that both know, where both are equally wide."""
    names = [organ_key(label.name) for label in earlier.header.labels]
    wanted = [organ_key(organ) for organ in config.organs]
    shared = [organ for organ in wanted if organ in names]
    mine, theirs = ([known.index(organ) for organ in shared] for known in (wanted, names))
    for name, weights in state.items():
        if name.startswith(ORGAN_WEIGHTS):
            rows, others = (
                _by_organ(weights, len(config.organs)),
                _by_organ(earlier.tensors[name], len(names)),
            )
            if rows.shape[1:] == others.shape[1:]:
                rows[mine] = others[theirs].to(rows)


def _by_organ(weights: Tensor, organs: int) -> Tensor:
    """A view with one row for each organ."""
    return weights.view(organs, -1, *weights.shape[1:])


def _same_shape(header: PriorHeader, config: PriorConfig) -> bool:
    other = PriorConfig.from_dict(header.config)
    names = ("kind", "width", "outline_width", "training_steps")
    return all(getattr(other, name) == getattr(config, name) for name in names)
