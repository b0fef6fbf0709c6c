"""The panel in the test host: bound to its parameters, and telling what is missing."""

from __future__ import annotations

from typing import Any

import pytest
from module_host import (
    NAME,
    ORGANS,
    Installed,
    add_volume,
    small_volume,
)

from DiffuSAMLib.procedural import make_abdomen


def test_the_panel_and_the_parameters_follow_each_other(panel: Any) -> None:
    import slicer

    parameters, ui = panel._parameterNode, panel.ui
    volume = small_volume()
    ui.inputSelector.setCurrentNode(volume)
    assert parameters.inputVolume is volume
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    parameters.outputSegmentation = segmentation
    assert ui.outputSelector.currentNode() is segmentation
    for name in ("modality", "device", "quality", "frames"):
        box = getattr(ui, f"{name}ComboBox")
        before = getattr(parameters, name)
        box.currentIndex = box.count - 1
        last = getattr(parameters, name)
        assert last is not before
        assert box.currentText == last.label()
        setattr(parameters, name, before)
        assert box.currentText == before.label()
    ui.keepPartialCheckBox.checked = True
    assert parameters.keepPartial
    ui.confidenceCheckBox.checked = True
    assert parameters.confidence
    ui.organList.item(3).setCheckState(_unchecked())
    assert parameters.skippedOrgans == ["liver"]
    parameters.skippedOrgans = ["spleen"]
    assert ui.organList.item(0).checkState() == _unchecked()
    assert ui.organList.item(3).checkState() != _unchecked()
    assert parameters.prior == "abdomen"


def _unchecked() -> Any:
    import qt

    return qt.Qt.Unchecked


def test_reset_leaves_only_the_input_and_the_output(panel: Any) -> None:
    parameters, ui = panel._parameterNode, panel.ui
    volume = small_volume()
    parameters.inputVolume = volume
    for name in ("modality", "device", "quality"):
        getattr(ui, f"{name}ComboBox").currentIndex = 1
    ui.noOrgansButton.click()
    ui.keepPartialCheckBox.checked = True
    ui.confidenceCheckBox.checked = True
    ui.resetButton.click()
    assert [ui.modalityComboBox.currentIndex, ui.deviceComboBox.currentIndex] == [0, 0]
    assert ui.qualityComboBox.currentIndex == 0
    assert parameters.skippedOrgans == []
    assert not ui.keepPartialCheckBox.checked
    assert not ui.confidenceCheckBox.checked
    assert parameters.inputVolume is volume


def test_a_disabled_button_says_what_is_missing(panel: Any) -> None:
    ui = panel.ui
    assert not ui.segmentButton.enabled
    assert "input volume" in ui.segmentButton.toolTip
    panel._parameterNode.inputVolume = small_volume()
    assert ui.segmentButton.enabled
    ui.noOrgansButton.click()
    assert not ui.segmentButton.enabled
    assert "organ" in ui.segmentButton.toolTip
    ui.allOrgansButton.click()
    assert ui.segmentButton.enabled
    assert not ui.show3DButton.enabled
    assert ui.show3DButton.toolTip


def test_while_a_run_is_on_all_that_is_disabled_says_so(panel: Any) -> None:
    ui = panel.ui
    panel._parameterNode.inputVolume = small_volume()
    names = ("inputSelector", "modelsButton", "allOrgansButton", "resetButton", "deviceComboBox")
    before = [getattr(ui, name).toolTip for name in names]
    ui.segmentButton.click()
    assert panel.logic.running
    assert {getattr(ui, name).toolTip for name in names} == {"Stop the run first."}
    assert not ui.modelsButton.enabled
    assert not ui.show3DButton.enabled
    assert "end of the run" in ui.show3DButton.toolTip
    ui.segmentButton.click()
    assert [getattr(ui, name).toolTip for name in names] == before
    assert ui.modelsButton.enabled


def test_an_image_that_comes_later_is_noticed(panel: Any) -> None:
    import slicer

    patient = small_volume()
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "later")
    panel._parameterNode.inputVolume = empty
    assert not panel.ui.segmentButton.enabled
    slicer.util.updateVolumeFromArray(empty, slicer.util.arrayFromVolume(patient))
    assert panel.ui.segmentButton.enabled
    assert "CT" in panel.ui.modalityGuessLabel.text


def test_an_image_may_change_its_shape(panel: Any, capfd: pytest.CaptureFixture[str]) -> None:
    import slicer

    volume = small_volume()
    panel._parameterNode.inputVolume = volume
    slicer.util.updateVolumeFromArray(volume, slicer.util.arrayFromVolume(volume)[1:-1, 4:-4].copy())
    assert panel.ui.segmentButton.enabled
    assert "Traceback" not in capfd.readouterr().err


def test_a_label_map_is_not_taken_for_the_input(installed: Installed, panel: Any) -> None:
    import slicer

    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    installed.host.leave(NAME)
    installed.host.enter(NAME)
    assert panel._parameterNode.inputVolume is None
    volume = small_volume()
    installed.host.leave(NAME)
    installed.host.enter(NAME)
    assert panel._parameterNode.inputVolume is volume


def test_the_licence_of_the_bundled_model_is_asked_about_once(installed: Installed, panel: Any) -> None:
    import qt
    from slicer_host.dialogs import answering

    panel._parameterNode.inputVolume = small_volume()
    texts: list[str] = []

    def press(answer: Any) -> None:
        with answering(lambda _what, text, _box: texts.append(text) or answer):
            panel.ui.segmentButton.click()

    installed.host.set_testing(False)
    try:
        press(qt.QMessageBox.Cancel)
        assert not panel.logic.running
        assert "not accepted" in panel.ui.statusLabel.text
        for _press in range(2):
            press(qt.QMessageBox.Ok)
            assert panel.logic.running
            panel.ui.segmentButton.click()
    finally:
        installed.host.set_testing(True)
    assert len(texts) == 2
    assert "Research" in texts[0]


def test_a_prior_shows_its_card(panel: Any) -> None:
    text = panel.ui.priorCardLabel.text
    for part in (*ORGANS, "CT", "MR", "Licence", "compact", "comes with the extension"):
        assert part in text


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_modality_is_guessed_and_shown(panel: Any, modality: Any) -> None:
    volume = make_abdomen(3, modality=modality, shape=(10, 96, 96), spacing=(3.5, 3.5, 20.0)).volume
    panel._parameterNode.inputVolume = add_volume(volume.array, volume.geometry.matrix)
    assert modality in panel.ui.modalityGuessLabel.text


def test_what_dicom_says_is_believed(panel: Any) -> None:
    import slicer

    volume = small_volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(volume), "DICOM.Modality", "MR")
    panel._parameterNode.inputVolume = volume
    assert "MR" in panel.ui.modalityGuessLabel.text


def test_a_modality_of_dicom_that_no_prior_knows_is_told(panel: Any) -> None:
    import slicer

    volume = small_volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(volume), "DICOM.Modality", "PT")
    panel._parameterNode.inputVolume = volume
    assert panel.ui.modalityGuessLabel.text == "taken for CT, but DICOM says PT"
    assert "CT and MR only" in panel.ui.modalityGuessLabel.toolTip
    panel._parameterNode.inputVolume = small_volume("another")
    assert panel.ui.modalityGuessLabel.text == "taken for CT"
    assert "CT and MR only" not in panel.ui.modalityGuessLabel.toolTip


def test_sample_data_offers_a_patient_that_never_lived(panel: Any) -> None:
    import SampleData
    import slicer

    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    node = SampleData.downloadSample("ProceduralAbdomenMR")
    assert view.GetBackgroundVolumeID() == node.GetID()
    assert node.GetImageData().GetDimensions() == (160, 160, 48)
    sources = SampleData.SampleDataLogic.sampleDataSourcesByCategory("DiffuSAM Segment")
    assert [source.sampleName for source in sources] == [
        "ProceduralAbdomenCT",
        "ProceduralAbdomenMR",
        "CTLiver",
        "MRAbdomen",
    ]
