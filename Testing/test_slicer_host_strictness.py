"""The test host: does it see what Slicer overlooks, and does it offer no more than Slicer?"""

from __future__ import annotations

import pathlib
import sys
from pathlib import Path

import pytest


def test_an_exception_in_a_slot_is_seen(host):
    import qt

    button = qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    with host.guard.expecting("ZeroDivisionError"):
        button.click()


def test_an_exception_in_an_observer_is_seen(host):
    import slicer

    def broken(caller, event):
        raise KeyError("broken observer")

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
    node.AddObserver("ModifiedEvent", broken)
    with host.guard.expecting("broken observer"):
        node.Modified()


def test_an_exception_in_a_timer_is_seen(host):
    import qt

    qt.QTimer.singleShot(0, lambda: [][1])
    with host.guard.expecting("IndexError"):
        host.process_events(0.05)


def test_a_vtk_error_is_seen(host):
    import vtk

    with host.guard.expecting("vtkAlgorithm"):
        vtk.vtkAlgorithm().SetInputConnection(3, None)


def test_a_temporary_file_is_seen(host):
    import slicer

    folder = Path(slicer.util.tempDirectory())
    assert any(folder.name in what for what in host.guard.leftovers())
    folder.rmdir()


def test_a_message_of_qt_is_seen(host):
    import qt

    with host.guard.expecting("already has a layout"):
        widget = qt.QWidget()
        qt.QVBoxLayout(widget)
        qt.QVBoxLayout(widget)


def test_whatever_is_seen_fails_the_test(host):
    import qt
    import slicer
    import vtk
    from slicer_host.guard import Guard

    with host.guard.expecting("vtkAlgorithm"), Guard(host) as guard:
        qt.QTimer.singleShot(0, lambda: {}["swallowed"])
        host.process_events(0.05)
        vtk.vtkAlgorithm().SetInputConnection(3, None)
        slicer.app.pauseRender()
        label = qt.QLabel()
        label.colour = "red"
        guard.look_for_strays(label)
        problems = "\n".join(guard.problems())
    slicer.app.resumeRender()
    for what in ("swallowed", "vtkAlgorithm", "paused rendering", "colour"):
        assert what in problems
    with Guard(host) as guard:
        host.process_events()
    assert guard.problems() == []


def test_an_unanswered_dialog_raises(host):
    import qt
    from slicer_host import dialogs

    with pytest.raises(RuntimeError, match="nobody answers"):
        qt.QFileDialog.getOpenFileName(None, "Choose")
    with dialogs.answering(lambda what, *arguments: "/a"):
        assert qt.QFileDialog.getOpenFileName(None, "Choose") == "/a"
    host.set_testing(False)
    import slicer

    with dialogs.answering(lambda what, *arguments: qt.QMessageBox.Ok):
        assert slicer.util.confirmOkCancelDisplay("Install?")


def test_attributes_that_pythonqt_refuses_are_found(host):
    import ctk
    import qt
    from slicer_host.pythonqt import stray_attributes

    parent = qt.QWidget()
    slider = ctk.ctkSliderWidget(parent)
    slider.Value = 3
    label = qt.QLabel("x", parent)
    label.wordwrap = True
    assert stray_attributes(parent) == ["ctkSliderWidget ''.Value", "QLabel ''.wordwrap"]


@pytest.mark.parametrize(
    "wrong",
    [
        "qt.QPushButton().connect('clickd()', print)",
        "qt.QComboBox().connect('currentIndexChanged(QString)', print)",
        "qt.QPushButton().connect('clicked()', None)",
        "qt.QLabel('x').text()",
        "setattr(qt.QLabel(), 'text', 5)",
        "setattr(qt.QLabel(), 'text', None)",
        "setattr(ctk.ctkSliderWidget(), 'value', '3')",
        "setattr(ctk.ctkPathLineEdit(), 'currentPath', pathlib.Path('/a'))",
        "setattr(qt.QWidget(), 'width', 3)",
        "ctk.ctkSliderWidget().setRange(0, 1)",
        "ctk.ctkSliderWidget().tickPosition",
        "slicer.qMRMLNodeComboBox().nodes()",
        "slicer.app.mainWindow()",
        "slicer.qMRMLNoSuchWidget",
        "ctk.ctkNoSuchWidget",
        "qt.QLabel(text='x')",
        "qt.Signal",
        "slicer.packaging.pip_install('torch')",
        "slicer.app.resumeRender()",
    ],
)
def test_what_does_not_work_in_slicer_raises(host, wrong):
    import ctk
    import qt
    import slicer

    names = {"ctk": ctk, "qt": qt, "slicer": slicer, "pathlib": pathlib, "setattr": setattr}
    with pytest.raises((AttributeError, TypeError, ValueError, RuntimeError)):
        eval(wrong, names)


def test_slots_get_as_many_arguments_as_they_take(host):
    import functools

    import qt

    button, calls = qt.QPushButton(), []
    button.connect("clicked(bool)", lambda: calls.append("none"))
    button.connect("clicked(bool)", lambda checked: calls.append(checked))
    button.connect("clicked(bool)", lambda *all_of_them: calls.append(all_of_them))
    button.connect("clicked(bool)", functools.partial(calls.append))
    button.click()
    assert calls == ["none", False, (False,), False]


def test_disconnect_undoes_one_connection(host):
    import ctk

    slider, calls = ctk.ctkSliderWidget(), []
    slider.connect("valueChanged(double)", calls.append)
    slider.value = 1.0
    assert slider.disconnect("valueChanged(double)", calls.append)
    assert not slider.disconnect("valueChanged(double)", calls.append)
    slider.value = 2.0
    assert calls == [1.0]


def test_packages_can_be_missing_and_installed_for_a_test(host):
    import slicer
    from slicer_host import packaging

    assert slicer.packaging.pip_check("numpy>=1.20")
    assert not slicer.packaging.pip_check("numpy>=99")
    with packaging.pretending_missing("numpy") as missing:
        assert not slicer.packaging.pip_check(["numpy"])
        assert slicer.packaging.pip_ensure("numpy") is None  # testing mode installs nothing
        with packaging.allowing_install(lambda arguments, options: missing.discard("numpy")):
            slicer.packaging.pip_ensure("numpy", skip_in_testing=False)
        assert slicer.packaging.pip_check("numpy")


def test_extensions_are_what_the_test_says(host):
    import slicer

    model = slicer.app.extensionsManagerModel()
    assert not model.installExtensionFromServer("PyTorch")
    host.set_extension_installer(lambda name: name == "PyTorch")
    assert model.installExtensionFromServer("PyTorch", True)
    assert model.isExtensionInstalled("PyTorch")
    assert host.restarts() == 1


def test_requirements_files_are_read_as_slicer_reads_them(host, tmp_path):
    import slicer
    from packaging.requirements import InvalidRequirement

    file = tmp_path / "requirements.txt"
    file.write_text("# comment\n--index-url x\n\nnumpy>=1.26\n")
    assert [str(r) for r in slicer.packaging.load_requirements(file)] == ["numpy>=1.26"]
    file.write_text("numpy>=1.26  # comment\n")
    with pytest.raises(InvalidRequirement):
        slicer.packaging.load_requirements(file)


def test_sample_data_is_checked_and_not_downloaded(host):
    import SampleData

    register = SampleData.SampleDataLogic.registerCustomSampleDataSource
    with pytest.raises(ValueError, match="fileNames"):
        register(category="A", sampleName="B", uris=["u"], fileNames=["f", "g"])
    register(
        category="A", sampleName="B", uris="https://example.org/v.nrrd", fileNames="v.nrrd", nodeNames="v"
    )
    with pytest.raises(SampleData.DownloadRefused):
        SampleData.SampleDataLogic().downloadSample("B")


def test_settings_are_not_the_users(host):
    import qt

    qt.QSettings().setValue("A/b", True)
    assert Path(qt.QSettings().fileName()).is_relative_to(host.folder)


def test_every_host_widget_offers_no_more_than_the_real_one(host):
    from slicer_host.facts import facts
    from slicer_host.host_class import written_classes

    assert len(written_classes()) > 25
    for cls in written_classes():
        name = cls.__name__ if cls.__name__ in facts().classes else cls.__mro__[1].__name__
        qt_base = next(c for c in cls.__mro__ if c.__module__.startswith("PySide6."))
        assert qt_base.__name__ in (facts().qt_base(name), "QObject"), (
            f"{name} derives from another class of Qt"
        )
        allowed = facts().names(name) | set(dir(qt_base)) | set(getattr(cls, "host_enumeration", "").split())
        public = {n for n in dir(cls) if not n.startswith("_")} - {"host_enumeration", "staticMetaObject"}
        assert public <= allowed, (
            f"{name} has {sorted(public - allowed)}, which Slicer does not show to Python"
        )


def test_slicer_util_is_slicers_own(host):
    import slicer
    from slicer_host.facts import facts

    assert len([n for n in facts().util_names if not hasattr(slicer.util, n)]) < 5
    assert "site-packages" in slicer.util.__file__
    assert sys.modules["slicer.util"] is slicer.util


def test_a_plot_view_of_the_host_wants_an_owner(host):
    """Without one, the view would appear in the layout of the application."""
    import slicer

    view = slicer.qMRMLPlotView()
    view.setMRMLScene(slicer.mrmlScene)
    node = slicer.vtkMRMLPlotViewNode()
    with pytest.raises(ValueError, match="layout"):
        view.setMRMLPlotViewNode(node)
    view.delete()
