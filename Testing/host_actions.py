"""What `make host-demo` does in the test host: it clicks, draws organs, and compares them with the truth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from DiffuSAMLib.metrics import dice

ORGANS = ("spleen", "right kidney", "left kidney", "liver")
PATIENCE_S = 600


@dataclass
class Click:
    """What one press of "Segment organs" was seen to do.

    Attributes:
        segmentation: The complete segmentation node.
        seconds: From the press to the complete node.
        click_ms: The press itself: the volume is written for the child process.
        block_ms: The longest that the event loop was away while the child process computed.
        import_ms: The last event of the run: labels, report and table.
        report: The run report that the node carries.
    """

    segmentation: Any
    seconds: float
    click_ms: float
    block_ms: float
    import_ms: float
    report: dict[str, Any]


def click(panel: Any, *, until: Callable[[], bool] = lambda: False) -> Click:
    """Presses the button and runs the event loop until the run has ended, or `until` holds.

    Raises:
        RuntimeError: The run failed, with the panel's sentence.
    """
    import slicer

    started = time.perf_counter()
    panel.ui.segmentButton.click()
    click_ms = 1000 * (time.perf_counter() - started)
    segmentation = panel.ui.outputSelector.currentNode()
    longest = last = 0.0
    while panel.logic.running and not until():
        if time.perf_counter() - started > PATIENCE_S:
            raise RuntimeError(f"Not within {PATIENCE_S} s: {panel.ui.statusLabel.text}")
        time.sleep(0.002)
        before = time.perf_counter()
        slicer.app.processEvents()
        last = 1000 * (time.perf_counter() - before)
        longest = max(longest, last if panel.logic.running else 0.0)
    seconds = time.perf_counter() - started
    report = segmentation.GetAttribute("DiffuSAM.Report") if segmentation is not None else None
    if report is None and not panel.logic.running:
        raise RuntimeError(panel.ui.statusLabel.text)
    return Click(segmentation, seconds, click_ms, longest, last, json.loads(report or "{}"))


def dice_of(segmentation: Any, volume: Any, truth: np.ndarray, values: dict[str, int]) -> dict[str, float]:
    """Dice of each organ against labels `(z, y, x)` on the volume's grid."""
    import slicer

    scores = {}
    for name, value in values.items():
        found = np.zeros(truth.shape, bool)
        if identifier := segmentation.GetSegmentation().GetSegmentIdBySegmentName(name):
            found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume) > 0
        scores[name] = float(dice(found, truth == value))
    return scores


def add_drawn_abdomen(seed: int) -> None:
    """A procedural abdomen in the scene, with a segmentation that shows its true organs."""
    import slicer
    from DiffuSAMSegmentLib.sample_data import addProceduralAbdomen

    volume, labels = addProceduralAbdomen(seed=seed)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume.GetName()} organs")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for value, name in enumerate(ORGANS, start=1):
        identifier = node.GetSegmentation().AddEmptySegment("", name)
        mask = (labels == value).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identifier, volume)


def validations(section: Any) -> int:
    """How often the prior was checked on held-out slices so far."""
    return section._plot.dice.table.GetTable().GetNumberOfRows() if section._plot is not None else 0
