"""Scripts in the test host that need an application of their own: the example of README, the module's self-test."""

from __future__ import annotations

import functools
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from module_host import NAME, ROOT, Installed, segment_names, small_volume


def test_the_batch_example_of_the_readme_works(
    installed: Installed, panel: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import slicer

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = next(text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "slicer" in text)
    images, results = tmp_path / "images", tmp_path / "results"
    images.mkdir()
    results.mkdir()
    assert slicer.util.saveNode(small_volume(), str(images / "one.nii.gz"))
    slicer.mrmlScene.Clear()
    codes: list[int] = []
    monkeypatch.setattr(slicer.util, "exit", codes.append)
    monkeypatch.setattr(sys, "argv", ["batch.py", str(images), str(results)])
    exec(compile(example, "batch.py", "exec"), {})
    assert codes == [0]
    segmentation = slicer.util.loadSegmentation(str(results / "one.seg.nrrd"))
    assert set(segment_names(segmentation)) <= {"liver", "spleen"}
    installed.wait_for_processes()


@pytest.mark.usefixtures("installed", "panel")
def test_the_self_test_of_the_module_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the abdomen of Sample Data with a third of its slices."""
    import slicer

    from DiffuSAMLib import procedural

    thick = functools.partial(procedural.make_abdomen, shape=(16, 160, 160), spacing=(2.0, 2.0, 15.0))
    monkeypatch.setattr(procedural, "make_abdomen", thick)
    events = slicer.app.processEvents
    # The self-test asks for events without a pause, which holds up the computing process on a computer of few cores.
    monkeypatch.setattr(slicer.app, "processEvents", lambda *flags: (time.sleep(0.005), events(*flags)))
    module = sys.modules[NAME]
    test = module.DiffuSAMSegmentTest()
    test.runTest()
