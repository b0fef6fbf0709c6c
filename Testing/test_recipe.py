from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from DiffuSAMLib.augmentation import IntensityAugmentation, SpatialAugmentation
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.held_out import ValidationConfig
from DiffuSAMLib.prior_files import read_prior, write_prior
from DiffuSAMLib.recipe import PAPER, Recipe, TrainingConfig, default_recipe, load_recipe
from DiffuSAMLib.weights import prior_path


def test_the_papers_settings_are_the_default_of_metas_backbones() -> None:
    """arXiv 2604.24719."""
    recipe = default_recipe("sam2.1_tiny")
    training = recipe.training
    assert (recipe.name, recipe.backbone, recipe.image_size, recipe.kind) == (
        "paper",
        "sam2.1_tiny",
        512,
        "diffusion",
    )
    assert (training.optimizer, training.learning_rate, training.batch) == ("adam", 1e-4, 4)
    assert (training.iterations, training.prior_weight, training.segmentation_weight) == (7800, 1, 1)
    assert recipe.training_steps == 1000
    assert default_recipe("sam2.1_large") == replace(PAPER, backbone="sam2.1_large")
    assert default_recipe("compact") == Recipe()


def test_the_recipe_for_one_modality_is_milder_and_else_the_same() -> None:
    compact, milder = load_recipe("compact"), load_recipe("one-modality")
    intensity, before = milder.training.intensity, compact.training.intensity
    assert intensity.cross_modality < before.cross_modality
    assert intensity.strength < before.strength
    training = replace(milder.training, intensity=before)
    assert replace(milder, name="compact", training=training) == compact


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
    recipe = replace(
        PAPER,
        name="mine",
        training=TrainingConfig(minutes=2.5, spatial=SpatialAugmentation(rotation=3)),
        validation=ValidationConfig(held_out="case 7", patience=4),
    )
    path = tmp_path / "recipe.json"
    recipe.write(path)
    assert load_recipe(path) == load_recipe(str(path)) == recipe
    content = json.loads(path.read_text())
    assert next(iter(content)) == "schema_version"
    assert content["training"]["spatial"]["rotation"] == 3


def test_what_a_file_leaves_out_has_its_default() -> None:
    content = {"schema_version": 7, "training": {"batch": 2, "learning_rate": 1}}
    assert Recipe.from_dict(content) == Recipe(training=TrainingConfig(batch=2, learning_rate=1.0))


def test_a_recipe_of_the_first_schema_is_upgraded() -> None:
    """They held the training's settings alone."""
    old: dict[str, Any] = {
        "iterations": 10,
        "minutes": None,
        "spatial": {"rotation": 4.0},
        "intensity": {"cross_modality": 0.2},
    }
    expected = TrainingConfig(
        iterations=10,
        slice_uses=1,
        recycle=False,
        spatial=SpatialAugmentation(rotation=4.0),
        intensity=IntensityAugmentation(cross_modality=0.2, organ_curves=0.0),
    )
    assert Recipe.from_dict(old) == Recipe(start="none", planes="axial", reach_mm=0, training=expected)


def test_recipes_of_the_second_schema_used_every_slice_once() -> None:
    assert Recipe.from_dict({"schema_version": 1, "training": {"batch": 4}}).training.slice_uses == 1


def test_recipes_of_the_third_schema_began_anew() -> None:
    expected = Recipe(start="none", planes="axial", reach_mm=0, training=TrainingConfig(recycle=False))
    assert Recipe.from_dict({"schema_version": 2}) == expected
    assert PAPER.start == "none"


def test_recipes_of_the_fourth_schema_had_axial_slices_alone() -> None:
    assert Recipe.from_dict({"schema_version": 3}).planes == "axial"
    assert PAPER.planes == "axial"


def test_recipes_of_the_fifth_schema_read_images_with_a_network_of_its_own() -> None:
    old = {"schema_version": 4, "width": [32, 64], "condition_width": [80, 112]}
    assert Recipe.from_dict(old) == Recipe(width=(32, 64), reach_mm=0, training=TrainingConfig(recycle=False))


def test_recipes_of_the_sixth_schema_put_true_latents_under_noise() -> None:
    assert not Recipe.from_dict({"schema_version": 5}).training.recycle
    assert not PAPER.training.recycle
    assert Recipe().training.recycle


def test_recipes_of_the_seventh_schema_saw_no_slices_beside() -> None:
    assert Recipe.from_dict({"schema_version": 6}).reach_mm == 0
    assert PAPER.reach_mm == 0
    assert Recipe().reach_mm == 9


def test_settings_are_changed_by_their_place() -> None:
    changed = Recipe().with_settings({"training.spatial.rotation": 2, "backbone": "sam2.1_tiny"})
    assert changed.training.spatial.rotation == 2
    assert changed.backbone == "sam2.1_tiny"
    for place in ("training.rotation", "rotation", "training.batch.size", "", "schema_version"):
        with pytest.raises(InputError, match="no setting"):
            Recipe().with_settings({place: 1})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "not a JSON object"),
        ({"schema_version": 99}, "newer DiffuSAM Segment"),
        ({"schema_version": True}, "no usable schema_version"),
        ({"schema_version": 1, "colour": 3}, 'no setting "colour"'),
        ({"schema_version": 1, "training": {"batchsize": 3}}, 'no setting "training.batchsize"'),
        ({"schema_version": 1, "training": {"batch": "3"}}, '"training.batch" must be a whole number'),
        ({"schema_version": 1, "training": {"batch": True}}, '"training.batch" must be a whole number'),
        ({"schema_version": 1, "training": {"optimizer": "sgd"}}, "one of adamw, adam"),
        ({"schema_version": 1, "training": []}, "training is not a JSON object"),
        ({"schema_version": 1, "width": [32]}, "a list of 2 values"),
        ({"schema_version": 1, "width": [32, 60]}, "multiples of 16"),
        ({"schema_version": 5, "outline_width": 12}, "multiples of 8"),
        ({"schema_version": 7, "reach_mm": -1}, "reach_mm must be 0 to 100"),
        *[({"schema_version": 1, "image_size": side}, "multiple of 32") for side in (0, -32, 100, 8192)],
        ({"schema_version": 1, "training": {"batch": 0}}, "batch must be 1"),
        ({"schema_version": 1, "training": {"slice_uses": 0}}, "slice_uses must be 1"),
        ({"schema_version": 1, "training": {"seed": 10**14}}, "seed must be 0 to"),
        ({"schema_version": 1, "training": {"learning_rate": float("nan")}}, "must be a number"),
        ({"schema_version": 1, "training": {"spatial": {"scale": -2}}}, "scale must be 0 to 4"),
        ({"schema_version": 1, "training": {"intensity": {"strength": 50}}}, "strength must be 0 to 5"),
        ({"schema_version": 1, "training": {"iterations": 0}}, "at least one iteration"),
        ({"schema_version": 1, "training": {"learning_rate": 0}}, "learning rate"),
        ({"schema_version": 1, "training": {"average": 2}}, "average must be 0 to 1"),
        ({"schema_version": 1, "validation": {"patience": 0}}, "patience of 1 or more"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(content: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Recipe.from_dict(content)


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    with pytest.raises(InputError, match="Give compact, one-modality, paper, a JSON file, or a prior"):
        load_recipe(path)
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_recipe(path)


def test_a_recipe_is_also_taken_of_a_prior_by_its_name() -> None:
    assert load_recipe("abdomen") == load_recipe(prior_path("abdomen"))
    assert load_recipe("abdomen").reach_mm == 9
    with pytest.raises(InputError, match="The recipe nobody cannot be read"):
        load_recipe("nobody")


def test_a_recipe_begins_with_the_default_where_its_start_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header, tensors = read_prior(prior_path("abdomen"))
    recipe = {**header.training["recipe"], "start": "gone.safetensors"}
    path = tmp_path / "own.safetensors"
    write_prior(path, replace(header, training={**header.training, "recipe": recipe}), tensors)
    assert load_recipe(path).start == "auto"
    assert f"{path} began with gone.safetensors" in caplog.text
