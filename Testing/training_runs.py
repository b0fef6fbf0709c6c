"""What tests of whole trainings start from: four small cases, and the bundled backbone at 64 px for a few iterations."""

from __future__ import annotations

import pytest
from cases import ORGANS, small_abdomen, write_case

from DiffuSAMLib.held_out import ValidationConfig
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.recipe import Recipe, TrainingConfig

RECIPE = Recipe(
    image_size=64,
    width=(16, 32),
    outline_width=8,
    training=TrainingConfig(iterations=4, batch=2, checkpoint_seconds=0),
    validation=ValidationConfig(every_minutes=0, slices=2),
)
OPTIONS = [
    *("--image-size", "64", "--batch", "2", "--iterations", "6", "--validation", "none"),
    *("--set", "width=[16,32]", "--set", "outline_width=8", "--set", "training.checkpoint_seconds=0"),
]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledFiles]:
    """Four, written as images and labels."""
    folder, found = tmp_path_factory.mktemp("data"), []
    for number in range(4):
        name = f"case{number}"
        write_case(folder, name, small_abdomen(3 + number))
        file = f"{name}.nii.gz"
        names = dict(enumerate(ORGANS, 1))
        found.append(LabelledFiles(name, folder / "images" / file, folder / "labels" / file, names))
    return found


def folders(cases: list[LabelledFiles]) -> list[str]:
    root = cases[0].image.parents[1]
    names = ",".join(f"{value}={name}" for value, name in cases[0].label_names.items())
    return [
        *("--images", str(root / "images")),
        *("--labels", str(root / "labels")),
        *("--label-names", names, "--device", "cpu"),
    ]


class StopAfter:
    """Stop and keep, or Ctrl-C, before an iteration."""

    def __init__(self, iterations: int, *, keep: bool = True) -> None:
        self.left, self.keep = iterations, keep

    def __call__(self) -> bool:
        self.left -= 1
        if self.left >= 0:
            return False
        if not self.keep:
            raise KeyboardInterrupt
        return True
