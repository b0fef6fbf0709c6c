from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import random_backbone
from torch import Tensor

from DiffuSAMLib import weights
from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.content_hashes import sha256_of
from DiffuSAMLib.errors import OutputError, WeightsError
from DiffuSAMLib.prior import Prior, PriorConfig
from DiffuSAMLib.sam2_network import build_network
from DiffuSAMLib.weights import (
    BACKBONE_KEY,
    load_backbone,
    load_prior,
    save_backbone,
    save_prior,
)

State = dict[str, Tensor]


class CodeInAPickle:
    """Makes a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def compact_state(a_compact_backbone: Backbone) -> State:
    return dict(a_compact_backbone.network.state_dict())


def refusal(path: Path) -> str:
    """What is said of a file that is not the compact backbone's: one sentence and one hint at most."""
    with pytest.raises(WeightsError) as caught:
        load_backbone("compact", path=path, image_size=64)
    assert str(path) in caught.value.message
    for sentence in (caught.value.message, caught.value.hint):
        assert "\n" not in sentence
        assert sentence == "" or sentence.endswith(".")
    return caught.value.message


def test_a_checkpoint_in_metas_layout_loads_strictly(a_sam21_tiny_backbone: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    state = a_sam21_tiny_backbone.network.state_dict()
    torch.save({"model": state}, path)
    loaded = load_backbone("sam2.1_tiny", path=path)
    assert loaded.backbone.image_size == 512
    assert loaded.sha256 == sha256_of(path)
    assert loaded.training_cases == ()
    found = loaded.backbone.network.state_dict()
    assert list(found) == list(state)
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert not any(parameter.requires_grad for parameter in loaded.backbone.parameters())


@pytest.mark.parametrize("name", ["sam2.1_small", "sam2.1_base_plus", "sam2.1_large"])
def test_so_do_the_larger_ones(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    state = build_network(name, image_size=512).state_dict()
    torch.save({"model": state}, path)
    found = load_backbone(name, path=path, image_size=512).backbone.network.state_dict()
    path.unlink()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_weights_do_not_depend_on_the_image_size(compact_state: State, tmp_path: Path) -> None:
    torch.save({"model": compact_state}, tmp_path / "weights.pt")
    for size in (64, 320):
        loaded = load_backbone("compact", path=tmp_path / "weights.pt", image_size=size)
        assert loaded.backbone.memory_shape == (32, size // 16, size // 16)


def test_a_backbone_survives_saving_in_half_precision(compact_state: State, tmp_path: Path) -> None:
    path = tmp_path / "compact.safetensors"
    save_backbone(path, compact_state, {"training_cases": ["btcv_0001"], "iterations": 5})
    loaded = load_backbone("compact", path=path)
    assert loaded.backbone.image_size == 256
    assert loaded.training_cases == ("btcv_0001",)
    for key, value in loaded.backbone.network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, compact_state[key].half().float())


def test_a_backbone_whose_folder_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"compact\.safetensors cannot be written"):
        save_backbone(tmp_path / "file" / "compact.safetensors", {}, {})


def test_weights_with_a_tensor_missing_are_refused(compact_state: State, tmp_path: Path) -> None:
    del compact_state["no_obj_ptr"]
    torch.save({"model": compact_state}, tmp_path / "weights.pt")
    assert "other names or shapes" in refusal(tmp_path / "weights.pt")


def test_weights_with_a_tensor_too_many_are_refused(compact_state: State, tmp_path: Path) -> None:
    torch.save({"model": {**compact_state, "extra": torch.zeros(1)}}, tmp_path / "weights.pt")
    assert "other names or shapes" in refusal(tmp_path / "weights.pt")


def test_weights_of_another_shape_are_refused(compact_state: State, tmp_path: Path) -> None:
    compact_state["no_obj_ptr"] = torch.zeros(1, 256)
    torch.save({"model": compact_state}, tmp_path / "weights.pt")
    assert "other names or shapes" in refusal(tmp_path / "weights.pt")


def test_weights_of_another_backbone_are_refused(a_sam21_tiny_backbone: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_backbone(path, a_sam21_tiny_backbone.network.state_dict(), {})
    assert "does not hold the weights of compact" in refusal(path)


def test_a_truncated_checkpoint_is_refused(compact_state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": compact_state}, path)
    for share in (0.99, 0.5, 0.0):
        os.truncate(path, int(path.stat().st_size * share))
        assert "damaged" in refusal(path)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "made by the pickle"
    torch.save({"model": {"weight": CodeInAPickle(target)}}, tmp_path / "zipped.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"model": CodeInAPickle(target)}, protocol=2))
    for name in ("zipped.pt", "plain.pt"):
        assert "not a SAM2.1 checkpoint" in refusal(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}},
        {"model": [1, 2]},
        {"model": {"weight": "text"}},
        {"model": {1: torch.zeros(1)}},
        torch.zeros(3),
    ],
    ids=["no model", "a list", "text", "numbered", "a tensor"],
)
def test_a_file_without_model_weights_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    assert 'no "model" weights' in refusal(tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["missing.pt", "missing.safetensors"])
def test_a_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    assert "There is no file" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["text.pt", "text.safetensors"])
def test_a_file_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("These are no weights at all.", encoding="utf-8")
    assert "is not a" in refusal(tmp_path / name)


@pytest.mark.parametrize("record", ["{", "[]", '{"training_cases": 3}'])
def test_a_damaged_training_record_is_refused(record: str, compact_state: State, tmp_path: Path) -> None:
    path = tmp_path / "compact.safetensors"
    path.write_bytes(safetensors.torch.save(compact_state, metadata={BACKBONE_KEY: record}))
    assert "training record" in refusal(path)


@pytest.fixture
def a_saved_prior(a_small_prior: Prior, compact_state: State, tmp_path: Path) -> tuple[Path, Path]:
    """The files of a prior and of its backbone."""
    backbone_path, path = tmp_path / "backbone.safetensors", tmp_path / "two-organs.safetensors"
    save_backbone(backbone_path, compact_state, {"training_cases": ["seen_by_backbone"]})
    save(path, a_small_prior.state_dict(), a_small_prior.config, backbone_path)
    return path, backbone_path


def save(path: Path, state: State, config: PriorConfig, backbone_path: Path) -> None:
    backbone = load_backbone("compact", path=backbone_path, image_size=64)
    save_prior(
        path,
        state,
        config=config,
        backbone=backbone,
        title="Two organs",
        modalities=("CT",),
        licence="Apache-2.0",
        training={"cases": ["seen_by_prior"]},
        metrics={"dice": 0.5},
    )


def test_a_prior_survives_saving_with_its_backbone(
    a_saved_prior: tuple[Path, Path], a_small_prior: Prior
) -> None:
    path, backbone_path = a_saved_prior
    loaded = load_prior(path, backbone_path=backbone_path)
    assert loaded.header.name == "two-organs"
    assert [label.name for label in loaded.header.labels] == ["spleen", "liver"]
    assert loaded.header.backbone.memory_shape == (32, 4, 4)
    assert loaded.backbone.backbone.image_size == 64
    assert loaded.prior.config == a_small_prior.config
    assert loaded.training_cases == ("seen_by_prior", "seen_by_backbone")
    assert loaded.sha256 == sha256_of(path)
    for key, value in loaded.prior.state_dict().items():
        assert torch.equal(value, a_small_prior.state_dict()[key].half().float())


def test_a_regression_prior_stays_one(
    a_saved_prior: tuple[Path, Path], a_small_prior: Prior, tmp_path: Path
) -> None:
    values = {**a_small_prior.config.to_dict(), "kind": "regression"}
    config = PriorConfig.from_dict(json.loads(json.dumps(values)))
    save(tmp_path / "control.safetensors", a_small_prior.state_dict(), config, a_saved_prior[1])
    loaded = load_prior(tmp_path / "control.safetensors", backbone_path=a_saved_prior[1])
    assert loaded.prior.config.kind == "regression"


def test_a_prior_is_refused_with_other_backbone_weights(
    a_saved_prior: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    save_backbone(other, random_backbone("compact", image_size=64, seed=1).network.state_dict(), {})
    with pytest.raises(WeightsError, match="made for other weights of the backbone compact"):
        load_prior(a_saved_prior[0], backbone_path=other)


def test_a_prior_whose_tensors_do_not_fit_its_shape_is_refused(
    a_saved_prior: tuple[Path, Path], a_small_prior: Prior
) -> None:
    path, backbone_path = a_saved_prior
    state = a_small_prior.state_dict()
    del state["outline_decoder.head.bias"]
    save(path, state, a_small_prior.config, backbone_path)
    with pytest.raises(WeightsError, match="other names or shapes"):
        load_prior(path, backbone_path=backbone_path)


def test_a_prior_for_images_prepared_in_another_way_is_refused(
    compact_state: State, a_small_prior: Prior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_backbone(tmp_path / "compact.safetensors", compact_state, {})
    backbone = load_backbone("compact", path=tmp_path / "compact.safetensors", image_size=64)
    monkeypatch.setitem(weights.PREPROCESSING, "ct_window_hu", [-200, 300])
    save_prior(
        tmp_path / "p.safetensors",
        a_small_prior.state_dict(),
        config=a_small_prior.config,
        backbone=backbone,
        title="",
        modalities=["CT"],
        licence="",
        training={},
        metrics={},
    )
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="prepared in another way"):
        load_prior(tmp_path / "p.safetensors", backbone_path=tmp_path / "compact.safetensors")
