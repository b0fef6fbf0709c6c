"""One click in the test host: real child process, bundled weights; what appears while it runs and what is left."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from module_host import (
    NAME,
    ORGANS,
    PATIENCE_S,
    ROOT,
    Installed,
    click_and_wait,
    labels_in_layer,
    labels_of,
    report_of,
    segment_names,
    tags,
)

from DiffuSAMLib.procedural import DEMO_SEED, make_abdomen
from DiffuSAMLib.volume_text import volume_text


@dataclass
class Clicked:
    """What was seen of a run of the whole procedural abdomen, and of a second one with other organs."""

    blocks: list[float] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    text: str = ""
    dice: dict[str, float] = field(default_factory=dict)
    table: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    second: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def clicked(installed: Installed) -> Clicked:
    import SampleData
    import slicer

    host = installed.host
    host.clean()
    panel = installed.open_panel()
    volume = SampleData.downloadSample("ProceduralAbdomenCT")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    panel._parameterNode.inputVolume = volume
    result = Clicked()
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        # A quick computer is ready before there are many of the usual ones.
        patch.setattr("DiffuSAMSegmentLib.segmentation_run.REFRESH_MS", 10)
        panel.ui.segmentButton.click()
    segmentation = panel.ui.outputSelector.currentNode()
    assert panel.ui.segmentButton.text == "Stop"
    voxels = -1
    while panel.logic.running:
        assert time.monotonic() - started < PATIENCE_S
        # Often enough to see every slice's coming; looking all the time would hold up what is waited for.
        time.sleep(0.005)
        before = time.monotonic()
        slicer.app.processEvents()
        if panel.logic.running:
            result.blocks.append(time.monotonic() - before)
            now = int((labels_in_layer(segmentation) > 0).sum())
            if now != voxels:
                voxels = now
                result.seen.append(now)
    result.text = panel.ui.statusLabel.text
    truth = make_abdomen(DEMO_SEED).labels.array
    found = labels_of(segmentation, volume)
    for value, name in enumerate(ORGANS, start=1):
        overlap = (found == value) & (truth == value)
        result.dice[name] = 2 * overlap.sum() / ((found == value).sum() + (truth == value).sum())
    result.report = report_of(segmentation)
    rows = range(panel.ui.resultTable.rowCount)
    result.table = [panel.ui.resultTable.item(row, 1).text() for row in rows]
    content = segmentation.GetSegmentation()
    segments = [content.GetNthSegment(n) for n in range(content.GetNumberOfSegments())]
    reference = segmentation.GetNodeReferenceID(segmentation.GetReferenceImageGeometryReferenceRole())
    result.facts = {
        "layers": content.GetNumberOfLayers("Binary labelmap"),
        "reference": reference == volume.GetID(),
        "parent": hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation)) == study,
        "terminology": {s.GetName(): tags(s, s.GetTerminologyEntryTagName()) for s in segments},
        "colours": {s.GetName(): tuple(round(255 * part) for part in s.GetColor()) for s in segments},
    }
    # Again, with the liver alone, into the same segmentation.
    panel._parameterNode.skippedOrgans = [name for name in ORGANS if name != "liver"]
    pid = panel.logic.process.pid
    names = segment_names(segmentation)
    again = click_and_wait(installed, panel)
    result.second = {
        "same node": again is segmentation,
        "same process": panel.logic.process.pid == pid,
        "same organs": sorted(segment_names(again)) == sorted(names),
        # Without rivals the liver may win a few voxels at its edge.
        "same labels": bool((labels_of(again, volume) == found).mean() > 0.999),
        "encode": report_of(again)["timings"]["encode"],
    }
    host.unload_module(NAME)
    return result


def test_one_click_finds_the_organs(clicked: Clicked) -> None:
    assert np.mean(list(clicked.dice.values())) > 0.9, clicked.dice


def test_what_was_found_is_told(clicked: Clicked) -> None:
    assert "4 of 4" in clicked.text
    volumes = [volume_text(organ["volume_ml"]) for organ in clicked.report["organs"]]
    assert clicked.table == volumes


def test_slices_appear_while_the_run_goes_on(clicked: Clicked) -> None:
    assert len(clicked.seen) > 5
    assert clicked.seen[0] == 0
    assert clicked.seen == sorted(clicked.seen)


def test_slicer_stays_responsive(clicked: Clicked) -> None:
    # Two may be other programs' doing.
    assert sorted(clicked.blocks)[-3] < 0.15


def test_the_result_lies_where_slicer_wants_it(clicked: Clicked) -> None:
    assert clicked.facts["layers"] == 1
    assert clicked.facts["reference"]
    assert clicked.facts["parent"]
    table = json.loads((ROOT / "Resources" / "Terminology" / "organs.json").read_text(encoding="utf-8"))
    for name, entry in clicked.facts["terminology"].items():
        assert table["organs"][name]["type"][0] in entry
        assert clicked.facts["colours"][name] == tuple(table["organs"][name]["color"])


def test_a_second_run_does_not_encode_again(clicked: Clicked) -> None:
    assert clicked.second.pop("encode") == 0
    assert all(clicked.second.values()), clicked.second
    assert clicked.report["timings"]["encode"] > 0
