from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import LABEL_NAMES, ORGANS, reordered, small_abdomen, write_case

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.label_tables import parse_label_names
from DiffuSAMLib.labelled_files import find_cases
from DiffuSAMLib.labelled_stacks import load_stack, to_stack
from DiffuSAMLib.slices import as_channels
from DiffuSAMLib.volumes import Volume

NAMES = parse_label_names(LABEL_NAMES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_case(tmp_path, "a.1", small_abdomen(3))
    return tmp_path


def test_a_case_becomes_square_slices_with_the_labels_over_the_organs(folder: Path) -> None:
    case = find_cases(folder / "images", folder / "labels", NAMES, only=["a.1"])[0]
    # However their names are spelt.
    stack = load_stack(case, organs=("Liver", "SPLEEN", "pancreas"), size=96)
    abdomen = small_abdomen(3)
    assert stack.slices.shape == stack.labels.shape == (10, 96, 96)
    assert (stack.name, stack.modality, stack.origin) == ("a.1", "CT", "scan")
    # 96 pixels are the slices' own: nothing is resampled.
    np.testing.assert_array_equal(stack.labels == 1, abdomen.labels.array == 4)
    np.testing.assert_array_equal(stack.labels == 2, abdomen.labels.array == 1)
    assert stack.labels.max() == 2
    np.testing.assert_array_equal(stack.known, [True, True, False])
    window = (np.clip(abdomen.volume.array, -125, 275) + 125) / 400
    np.testing.assert_allclose(stack.images().numpy(), window, atol=0.5 / 255 + 1e-4)
    assert stack.images().dtype == torch.float32
    numbers = torch.tensor([0, 4])
    assert torch.equal(stack.channels(numbers, context=1), as_channels(stack.images(), numbers, context=1))


def test_labels_stay_on_their_organ_when_slices_are_resized() -> None:
    abdomen = small_abdomen(3)
    stack = to_stack(abdomen.volume, abdomen.labels.array, NAMES, name="a", organs=ORGANS, size=64)
    larger = to_stack(abdomen.volume, abdomen.labels.array, NAMES, name="a", organs=ORGANS, size=192)
    for value in range(1, 5):
        share = (stack.labels == value).mean()
        assert (larger.labels == value).mean() == pytest.approx(share, rel=0.08)
    np.testing.assert_array_equal(larger.labels[:, ::2, ::2], abdomen.labels.array)


def test_the_axis_order_of_the_file_does_not_matter() -> None:
    abdomen = small_abdomen(3)
    reference = to_stack(abdomen.volume, abdomen.labels.array, NAMES, name="a", organs=ORGANS, size=96)
    axes, flips = (1, 2, 0), (True, False, True)
    labels = Volume(abdomen.labels.array, abdomen.volume.geometry, "CT", "labels")
    stack = to_stack(
        reordered(abdomen.volume, axes, flips),
        reordered(labels, axes, flips).array,
        NAMES,
        name="a",
        organs=ORGANS,
        size=96,
    )
    np.testing.assert_array_equal(stack.slices, reference.slices)
    np.testing.assert_array_equal(stack.labels, reference.labels)


def test_a_case_without_any_of_the_organs_is_refused(folder: Path) -> None:
    case = find_cases(folder / "images", folder / "labels", {9: "pancreas"})[0]
    with pytest.raises(InputError, match="holds none of: pancreas"):
        load_stack(case, organs=("pancreas",), size=64)
