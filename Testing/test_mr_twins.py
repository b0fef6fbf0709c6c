from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import ORGANS, small_abdomen, write_case

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.held_out import HeldOut, ValidationConfig
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.labelled_stacks import load_stack
from DiffuSAMLib.mr_twins import mr_twin, mr_twins
from DiffuSAMLib.procedural_mr import MRSequence
from DiffuSAMLib.recipe import Recipe, TrainingConfig
from DiffuSAMLib.train import train_prior
from DiffuSAMLib.volumes import Volume

SIZE = 64
NAMES = dict(enumerate(ORGANS, 1))
SPLEEN, LIVER = 1, 4


def twin_of_the_abdomen(sequence: MRSequence, *, seed: int = 0, lowest: float | None = None) -> Volume:
    abdomen = small_abdomen()
    volume = abdomen.volume
    if lowest is not None:
        volume = replace(volume, array=volume.array.clip(lowest))
    return mr_twin(volume, abdomen.labels.array, NAMES, seed=seed, sequence=sequence)


def medians(twin: Volume) -> dict[str, float]:
    """Brightness of air, subcutaneous fat, spleen and liver."""
    abdomen = small_abdomen()
    hu, labels = abdomen.volume.array, abdomen.labels.array
    places = {
        "air": hu < -900,
        "fat": (hu > -115) & (hu < -85),
        "spleen": labels == SPLEEN,
        "liver": labels == LIVER,
    }
    return {name: float(np.median(twin.array[mask])) for name, mask in places.items()}


def test_a_twin_is_an_mr_of_the_same_patient_on_the_same_grid() -> None:
    twin = twin_of_the_abdomen("T1")
    volume = small_abdomen().volume
    assert (twin.modality, twin.geometry) == ("MR", volume.geometry)
    assert twin.array.shape == volume.array.shape
    assert np.isfinite(twin.array).all()
    assert twin.array.min() >= 0
    assert volume.modality == "CT"


def test_fat_is_the_brightest_in_t1_and_dark_where_it_is_suppressed() -> None:
    t1, suppressed = medians(twin_of_the_abdomen("T1")), medians(twin_of_the_abdomen("T2 fat-suppressed"))
    assert t1["fat"] > 1.5 * max(t1["liver"], t1["spleen"])
    assert suppressed["fat"] < min(suppressed["liver"], 0.5 * suppressed["spleen"])
    assert suppressed["spleen"] > suppressed["liver"]


@pytest.mark.parametrize("lowest", [None, -125.0])
def test_air_is_dark_also_in_a_ct_that_was_clipped(lowest: float | None) -> None:
    bright = medians(twin_of_the_abdomen("T1", lowest=lowest))
    assert bright["air"] < 0.15 * bright["fat"]


def test_organs_are_known_however_their_names_are_spelt() -> None:
    abdomen = small_abdomen()
    spelt = {1: "Spleen", 2: "Right_Kidney", 3: "left  kidney", 4: "LIVER"}
    twins = [
        mr_twin(abdomen.volume, abdomen.labels.array, names, seed=1, sequence="T2")
        for names in (NAMES, spelt)
    ]
    np.testing.assert_array_equal(twins[0].array, twins[1].array)


def test_the_same_seed_makes_the_same_twin_and_another_one_another() -> None:
    first, again, other = (twin_of_the_abdomen("T2", seed=seed).array for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledFiles]:
    """Two CT, and an MR."""
    folder = tmp_path_factory.mktemp("data")
    found = []
    for name, seed, modality in (("a", 3, "CT"), ("b", 5, "CT"), ("c", 4, "MR")):
        write_case(folder, name, small_abdomen(seed, modality))  # type: ignore[arg-type]
        image, labels = (folder / kind / f"{name}.nii.gz" for kind in ("images", "labels"))
        found.append(LabelledFiles(name, image, labels, NAMES, modality))
    return found


def test_every_ct_gets_about_as_many_twins(cases: list[LabelledFiles]) -> None:
    twins = mr_twins(cases[:2], 3, organs=ORGANS, size=SIZE)
    assert [twin.name for twin in twins] == ["a, twin 0", "a, twin 2", "b, twin 1"]
    assert {(twin.modality, twin.origin) for twin in twins} == {("MR", "twin")}
    for twin, case in zip(twins, (cases[0], cases[0], cases[1]), strict=True):
        np.testing.assert_array_equal(twin.labels, load_stack(case, organs=ORGANS, size=SIZE).labels)


def test_fewer_twins_than_cases(cases: list[LabelledFiles]) -> None:
    assert [twin.name for twin in mr_twins(cases[:2], 1, organs=ORGANS, size=SIZE)] == ["a, twin 0"]
    assert mr_twins(cases[:2], 0, organs=ORGANS, size=SIZE) == []


def test_beside_real_mr_most_twins_show_bright_fat(cases: list[LabelledFiles]) -> None:
    beside, alone = (
        mr_twins(cases[:1], 5, organs=ORGANS, size=SIZE, beside_mr=beside_mr) for beside_mr in (True, False)
    )
    assert sum(twin.slices.mean() for twin in beside) > sum(twin.slices.mean() for twin in alone)


def small_recipe(**settings: Any) -> Recipe:
    training = TrainingConfig(iterations=2, batch=2)
    return Recipe(image_size=SIZE, width=(16, 32), outline_width=8, training=training, **settings)


@pytest.mark.usefixtures("quick_trainings")
def test_a_training_learns_from_twins_and_says_so(cases: list[LabelledFiles], tmp_path: Path) -> None:
    output = tmp_path / "prior.safetensors"
    header = train_prior(cases[:2], output, recipe=small_recipe(twins=2), device="cpu")
    assert (header.training["mr_twins"], header.modalities) == (2, ("CT",))
    assert header.config["mr_gamma"] == 1


def test_a_training_on_mr_alone_refuses_twins(cases: list[LabelledFiles], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="twins are made from CT"):
        train_prior(cases[2:], tmp_path / "p.safetensors", recipe=small_recipe(twins=2), device="cpu")
    assert not list(tmp_path.iterdir())


def test_twins_of_a_ct_that_is_held_out_are_refused(cases: list[LabelledFiles], tmp_path: Path) -> None:
    recipe = small_recipe(twins=2, validation=ValidationConfig(held_out="b"))
    with pytest.raises(InputError, match="none of the cases to learn from is CT"):
        train_prior(cases[1:], tmp_path / "p.safetensors", recipe=recipe, device="cpu")


def test_slices_held_out_show_nothing_but_noise_in_the_twins(cases: list[LabelledFiles]) -> None:
    held_out = HeldOut(load_stack(cases[0], organs=ORGANS, size=SIZE), (4, 5), range(4, 7))
    (twin,) = mr_twins(cases[:1], 1, organs=ORGANS, size=SIZE, held_out=held_out)
    assert not twin.labels[4:7].any()
    assert twin.slices[5].max() < 0.3 * twin.slices[2].max()


def test_a_case_held_out_has_no_twin(cases: list[LabelledFiles]) -> None:
    held_out = HeldOut(load_stack(cases[0], organs=ORGANS, size=SIZE), (4, 5), None)
    twins = mr_twins(cases[:2], 2, organs=ORGANS, size=SIZE, held_out=held_out)
    assert [twin.name for twin in twins] == ["b, twin 0", "b, twin 1"]
