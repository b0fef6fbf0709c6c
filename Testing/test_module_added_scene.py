"""A scene that is opened or added while the panel is open, and names that differ in case only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from module_host import Installed, segment_names, small_volume


@pytest.fixture
def saved(installed: Installed, panel: Any, tmp_path: Path) -> Path:
    """A scene with patient B, the liver in it and the choices for both; the scene is empty again."""
    import slicer

    volume = small_volume("patient B")
    segmentation = put_liver(volume, None)
    parameters = panel._parameterNode
    parameters.inputVolume = volume
    parameters.outputSegmentation = segmentation
    parameters.trainingVolumes, parameters.trainingSegmentations = [volume], [segmentation]
    file = tmp_path / "scene.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(file))
    installed.host.close_scene()
    return file


def put_liver(volume: Any, segmentation: Any) -> Any:
    """What a run would put there, without one."""
    from DiffuSAMSegmentLib.segmentation_output import SegmentationOutput
    from DiffuSAMSegmentLib.segmentation_run import organsOf

    organs = organsOf("abdomen", ("liver",))
    output = SegmentationOutput(volume, segmentation, organs)
    output.begin()
    labels = np.zeros((10, 96, 96), np.uint8)
    labels[3:6, 30:50, 30:50] = organs[0].value
    output.finish(labels, '{"organs": []}')
    return output.node


def volume_named(name: str) -> Any:
    import slicer

    return slicer.util.getFirstNodeByClassByName("vtkMRMLScalarVolumeNode", name)


def choices(panel: Any) -> list[str]:
    """What the panel holds, and what it shows."""
    parameters, ui = panel._parameterNode, panel.ui
    held = [parameters.inputVolume, parameters.outputSegmentation]
    held += [*parameters.trainingVolumes, *parameters.trainingSegmentations]
    shown = [ui.inputSelector.currentNode(), ui.outputSelector.currentNode()]
    return [node.GetName() if node is not None else "none" for node in (*held, *shown)]


CHOICES = ["patient B", "patient B organs"] * 3


@pytest.mark.parametrize("clear", [True, False], ids=["opened", "added"])
@pytest.mark.parametrize("before", ["nothing", "a volume", "a choice"])
def test_the_choices_of_a_scene_are_there_when_it_is(
    installed: Installed, panel: Any, saved: Path, clear: bool, before: str
) -> None:
    import slicer

    if before != "nothing":
        small_volume("patient A", seed=1)
    if before == "a choice":
        panel.exit()
        panel.enter()
        assert panel._parameterNode.inputVolume.GetName() == "patient A"
    assert slicer.mrmlScene.ReadFromMRB(str(saved), clear)
    installed.host.process_events()
    assert choices(panel) == CHOICES
    assert panel.ui.segmentButton.enabled


def test_a_scene_that_is_added_keeps_its_organs_apart(panel: Any, saved: Path) -> None:
    """The volume that was first in the saved scene has another ID then, and its old one is another patient's."""
    import slicer

    first = small_volume("patient A", seed=1)
    identifier = first.GetID()
    assert slicer.mrmlScene.ReadFromMRB(str(saved), False)
    own = volume_named("patient B")
    assert first.GetID() == identifier != own.GetID()
    segmentation = slicer.util.getFirstNodeByClassByName("vtkMRMLSegmentationNode", "patient B organs")
    put_liver(own, segmentation)
    assert segment_names(segmentation) == ["liver"]
    for _again in range(2):
        put_liver(first, segmentation)
        assert segment_names(segmentation) == ["liver", "liver"]
    assert panel.logic is not None


@pytest.mark.usefixtures("panel")
def test_a_tag_of_an_earlier_version_is_believed_on_the_volumes_own_grid_only() -> None:
    first, second = small_volume("first"), small_volume("second")
    segmentation = put_liver(first, None)
    segmentation.GetSegmentation().GetNthSegment(0).SetTag("DiffuSAM.Volume", second.GetID())
    put_liver(second, segmentation)
    assert segment_names(segmentation) == ["liver", "liver"]
    segmentation.GetSegmentation().GetNthSegment(0).SetTag("DiffuSAM.Volume", first.GetID())
    put_liver(first, segmentation)
    assert segment_names(segmentation) == ["liver", "liver"]


@pytest.mark.usefixtures("panel")
@pytest.mark.parametrize("organ", ["Tumour", "tumour"])
def test_segments_whose_names_differ_in_case_only_are_told_apart(tmp_path: Path, organ: str) -> None:
    import SimpleITK as sitk
    import slicer
    from DiffuSAMSegmentLib.training_export import TrainingCase, exportCase

    volume = small_volume()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "both")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    masks = {}
    for number, name in enumerate(("Tumour", "tumour")):
        masks[name] = np.zeros((10, 96, 96), np.uint8)
        masks[name][2 + 3 * number, 30:50, 30:50] = 1
        identifier = node.GetSegmentation().AddEmptySegment("", name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(masks[name], node, identifier, volume)
    written = exportCase(TrainingCase(volume, node), [organ], tmp_path, 1, "CT")
    found = sitk.GetArrayFromImage(sitk.ReadImage(written["labels"]))
    np.testing.assert_array_equal(found, masks[organ])
