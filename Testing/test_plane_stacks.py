from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import ORGANS, write_case

from DiffuSAMLib.held_out import HeldOut
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.labelled_stacks import load_stack
from DiffuSAMLib.plane_stacks import plane_stacks
from DiffuSAMLib.planes import AXIAL, PLANES
from DiffuSAMLib.prior_files import read_header
from DiffuSAMLib.procedural import make_abdomen
from DiffuSAMLib.recipe import Recipe, TrainingConfig
from DiffuSAMLib.train import train_prior
from DiffuSAMLib.weights import load_prior

SIZE = 64
SLICES = 24


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> LabelledFiles:
    """A patient of cubic voxels."""
    folder = tmp_path_factory.mktemp("data")
    abdomen = make_abdomen(3, shape=(SLICES, 40, 48), spacing=(8.0, 8.0, 8.0))
    write_case(folder, "cubic", abdomen)
    names = dict(enumerate(ORGANS, 1))
    return LabelledFiles("cubic", folder / "images/cubic.nii.gz", folder / "labels/cubic.nii.gz", names)


def test_the_other_planes_show_the_same_organs(case: LabelledFiles) -> None:
    coronal, sagittal = plane_stacks([case], PLANES, organs=ORGANS, size=SIZE)
    axial = load_stack(case, organs=ORGANS, size=SIZE)
    assert [coronal.name, sagittal.name] == ["cubic, coronal", "cubic, sagittal"]
    assert [len(stack.slices) for stack in (axial, coronal, sagittal)] == [SLICES, 40, 48]
    for stack in (coronal, sagittal):
        assert set(np.unique(stack.labels)) == set(np.unique(axial.labels))


def test_axial_slices_alone_need_no_other_stacks(case: LabelledFiles) -> None:
    assert plane_stacks([case], AXIAL, organs=ORGANS, size=SIZE) == []


def test_slices_held_out_are_black_in_the_other_planes(case: LabelledFiles) -> None:
    axial = load_stack(case, organs=ORGANS, size=SIZE)
    lowest = HeldOut(axial, (0, 1), range(SLICES // 2))
    whole, cut = (
        plane_stacks([case], PLANES, organs=ORGANS, size=SIZE, held_out=held_out)
        for held_out in (None, lowest)
    )
    for before, after in zip(whole, cut, strict=True):
        # Rows run from head to feet: the lower half of each slice.
        upper = SIZE // 2 - 2
        np.testing.assert_array_equal(before.slices[:, :upper], after.slices[:, :upper])
        assert before.slices[:, SIZE // 2 + 2 :].any()
        assert not after.slices[:, SIZE // 2 + 2 :].any()
        assert not after.labels[:, SIZE // 2 + 2 :].any()


def test_a_case_held_out_is_in_no_plane(case: LabelledFiles) -> None:
    held_out = HeldOut(load_stack(case, organs=ORGANS, size=SIZE), (0, 1), None)
    other = replace(case, name="other")
    stacks = plane_stacks([case, other], PLANES, organs=ORGANS, size=SIZE, held_out=held_out)
    assert [stack.name for stack in stacks] == ["other, coronal", "other, sagittal"]


@pytest.mark.usefixtures("quick_trainings")
@pytest.mark.parametrize(("planes", "learnt"), [("auto", PLANES), ("axial", AXIAL)])
def test_a_prior_says_which_planes_it_has_learnt(
    case: LabelledFiles, tmp_path: Path, planes: str, learnt: tuple[str, ...]
) -> None:
    recipe = Recipe(
        image_size=SIZE,
        width=(16, 32),
        outline_width=8,
        planes=planes,  # type: ignore[arg-type]
        training=TrainingConfig(iterations=2, batch=2),
    )
    output = tmp_path / "prior.safetensors"
    train_prior([case], output, recipe=recipe, device="cpu")
    assert read_header(output).training["cases"] == ["cubic"]
    assert load_prior(output).prior.config.planes == learnt
