"""What the tests of the section Train share: cases in the scene, and priors that go afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from module_host import ORGANS, PATIENCE_S, Installed, add_volume

from DiffuSAMLib.procedural import make_abdomen

MINE = "my-organs"


@pytest.fixture
def no_priors(installed: Installed) -> Iterator[None]:
    """What a test leaves in the user's folder of priors goes."""
    yield
    shutil.rmtree(priors_folder(), ignore_errors=True)


def priors_folder() -> Path:
    return Path(os.environ["DIFFUSAM_HOME"]) / "priors"


def add_case(seed: int = 3, name: str = "patient", organs: tuple[str, ...] = ORGANS) -> tuple[Any, Any]:
    """10 slices of 96 x 96 pixels, and a segmentation with some of the organs."""
    abdomen = make_abdomen(seed, shape=(10, 96, 96), spacing=(3.5, 3.5, 20.0))
    volume = add_volume(abdomen.volume.array.astype(np.int16), abdomen.volume.geometry.matrix, name)
    return volume, add_segmentation(volume, abdomen.labels.array, organs)


def add_segmentation(volume: Any, labels: np.ndarray, organs: tuple[str, ...]) -> Any:
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume.GetName()} drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name in organs:
        identifier = node.GetSegmentation().AddEmptySegment("", name)
        mask = (labels == ORGANS.index(name) + 1).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identifier, volume)
    return node


def fill_in(panel: Any, cases: int = 1) -> list[tuple[Any, Any]]:
    """Cases in the scene and in the table, and a name."""
    nodes = [add_case(seed=3 + n, name=f"patient {n}") for n in range(cases)]
    for _ in nodes:
        panel.ui.addCaseButton.click()
    panel.ui.trainNameLineEdit.text = MINE
    assert panel.ui.trainButton.enabled, panel.ui.trainButton.toolTip
    return nodes


def wait_for_losses(installed: Installed, panel: Any) -> None:
    installed.host.wait_until(
        lambda: panel.ui.trainStatusLabel.text.startswith("Iteration") or not panel.logic.training, PATIENCE_S
    )
    assert panel.logic.training, panel.ui.trainStatusLabel.text


def wait_for_end(installed: Installed, panel: Any) -> None:
    installed.host.wait_until(lambda: not panel.logic.training, PATIENCE_S)


def nodes_of(kind: str) -> list[Any]:
    import slicer

    return list(slicer.util.getNodesByClass(kind))
