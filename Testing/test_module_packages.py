"""Missing packages in the test host: found, installed if the user agrees, taken up after a restart."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import module_host
import pytest
from module_host import (
    NAME,
    Installed,
    small_volume,
)

pytest_plugins = ["slicer_host.fixtures"]
pytestmark = module_host.pytestmark

installed = module_host.installed
panel = module_host.panel
logic = module_host.logic


@dataclass
class OwnPython:
    """As if the module had to install packages into this Python; `answers` are what the user says."""

    host: Any
    missing: set[str]
    asked: list[str] = field(default_factory=list)
    pip: list[list[str]] = field(default_factory=list)

    def version(self, name: str) -> str | None:
        return None if name in self.missing else "99"

    def install(self, arguments: list[str], _options: dict[str, Any]) -> None:
        self.pip.append(arguments)
        self.missing -= {"sam2"} if any("requirements-sam2" in each for each in arguments) else {"tqdm"}

    @contextmanager
    def user_says(self, answer: Any) -> Iterator[None]:
        from slicer_host.dialogs import answering
        from slicer_host.packaging import allowing_install

        self.host.set_testing(False)
        try:
            with (
                allowing_install(self.install),
                answering(lambda what, *_: self.asked.append(what) or answer),
            ):
                yield
        finally:
            self.host.set_testing(True)


def restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Slicer were another process now."""
    from DiffuSAMSegmentLib import installer

    monkeypatch.setattr(installer, "_process", lambda: os.getpid() + 1)


@pytest.fixture
def own_python(panel: Any, installed: Installed, monkeypatch: pytest.MonkeyPatch) -> OwnPython:
    from DiffuSAMSegmentLib import installer

    own = OwnPython(installed.host, {"sam2", "tqdm"})
    monkeypatch.delenv("DIFFUSAM_PYTHON")
    monkeypatch.setattr(installer, "_version", own.version)
    panel._parameterNode.inputVolume = small_volume()
    return own


def test_missing_packages_are_found_before_a_run(panel: Any, own_python: OwnPython) -> None:
    panel.ui.segmentButton.click()
    assert not panel.logic.running
    assert "tqdm" in panel.ui.statusLabel.text
    assert "sam2" in panel.ui.statusLabel.text
    assert "torch" not in panel.ui.statusLabel.text
    assert own_python.pip == []


def test_packages_are_installed_only_if_the_user_agrees(panel: Any, own_python: OwnPython) -> None:
    import qt

    with own_python.user_says(qt.QMessageBox.Cancel):
        panel.ui.segmentButton.click()
    assert own_python.asked
    assert own_python.pip == []
    assert "not installed" in panel.ui.statusLabel.text
    assert not panel.logic.running


def test_an_installation_leaves_slicers_packages_alone(panel: Any, own_python: OwnPython) -> None:
    import qt
    from slicer_host.packaging import pretending_missing

    constraints: list[str] = []
    install = own_python.install

    def reading(arguments: list[str], options: dict[str, Any]) -> None:
        if "-c" in arguments:
            constraints.extend(Path(arguments[arguments.index("-c") + 1]).read_text().split())
        install(arguments, options)

    own_python.install = reading  # type: ignore[method-assign]
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"):
        panel._installer.ensure()
    assert len(own_python.asked) == 1
    packages, sam2 = own_python.pip
    assert any(each.startswith("tqdm") for each in packages)
    assert not any(each.startswith("torch") for each in packages)
    assert {"numpy==99", "SimpleITK==99", "torch==99"} <= set(constraints)
    assert sam2[:2] == ["--no-deps", "--no-build-isolation"]
    assert Path(sam2[-1]).is_file()
    assert not panel._installer.pending()


def test_pytorch_comes_through_its_own_extension(panel: Any, own_python: OwnPython) -> None:
    import qt

    own_python.missing.add("torch")
    with own_python.user_says(qt.QMessageBox.Ok):
        panel.ui.segmentButton.click()
    # The test host has no Extensions Manager to get it from.
    assert "extension PyTorch" in panel.ui.statusLabel.text
    assert own_python.pip == []


def test_an_installation_that_a_restart_cuts_off_goes_on(
    installed: Installed, panel: Any, own_python: OwnPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user has agreed to it already, and is not asked again; before the restart it does not go on."""
    import qt
    from slicer_host.packaging import pretending_missing

    class Quit(BaseException):
        """The application goes while pip is at work."""

    def cut_off(_arguments: list[str], _options: dict[str, Any]) -> None:
        raise Quit

    install, own_python.install = own_python.install, cut_off  # type: ignore[method-assign]
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"), pytest.raises(Quit):
        panel._installer.ensure()
    assert not panel._installer.pending()
    restart(monkeypatch)
    assert panel._installer.pending()
    own_python.install = install  # type: ignore[method-assign]
    own_python.asked.clear()
    installed.host.leave(NAME)
    with own_python.user_says(qt.QMessageBox.Cancel), pretending_missing("tqdm"):
        installed.host.enter(NAME)
        installed.host.wait_until(lambda: not panel._installer.pending(), 5)
    assert own_python.missing == set()
    assert own_python.asked == []


def test_an_installation_that_fails_is_not_taken_up_by_itself(panel: Any, own_python: OwnPython) -> None:
    import qt
    from slicer_host.packaging import pretending_missing

    def fail(_arguments: list[str], _options: dict[str, Any]) -> None:
        raise OSError("no route to host")

    own_python.install = fail  # type: ignore[method-assign]
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"):
        panel.ui.segmentButton.click()
    assert "no route to host" in panel.ui.statusLabel.text
    assert not panel._installer.pending()


def test_the_whole_installation_from_the_first_click(
    installed: Installed, panel: Any, own_python: OwnPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is there: the extension PyTorch, a restart, PyTorch through it, then the other packages."""
    import qt
    import slicer
    from slicer_host.dialogs import answering
    from slicer_host.packaging import allowing_install, pretending_missing

    host = installed.host
    own_python.missing.add("torch")
    host.set_extension_installer(lambda name: name == "PyTorch")
    texts: list[str] = []

    def agree(_what: str, text: str, box: Any) -> Any:
        texts.append(text)
        yes = qt.QMessageBox.Yes
        return yes if box.standardButtons & yes else qt.QMessageBox.Ok

    wanted: list[dict[str, Any]] = []

    class TorchLogic:
        """What the extension offers after the restart."""

        def installTorch(self, **options: Any) -> object:  # noqa: N802
            wanted.append(options)
            own_python.missing.discard("torch")
            return object()

    host.set_testing(False)
    with answering(agree), allowing_install(own_python.install):
        panel.ui.segmentButton.click()
        assert host.restarts() == 1
        assert len(texts) == 2
        assert own_python.pip == []
        assert "restart" in panel.ui.statusLabel.text
        # The application comes back with the extension.
        assert not panel._installer.pending()
        restart(monkeypatch)
        assert panel._installer.pending()
        host.leave(NAME)
        monkeypatch.setattr(slicer.modules, "pytorchutils", object(), raising=False)
        monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=TorchLogic))
        with pretending_missing("tqdm"):
            host.enter(NAME)
            host.wait_until(lambda: not panel._installer.pending(), 5)
    assert len(texts) == 2
    host.set_testing(True)
    assert wanted == [{"askConfirmation": False, "torchVersionRequirement": ">=2.5.1"}]
    assert own_python.missing == set()
    assert not any(each.startswith("torch") for call in own_python.pip for each in call)


@pytest.mark.usefixtures("own_python")
def test_the_self_test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as an error: in the application, runTest() is called without unittest."""
    module = sys.modules[NAME]
    test = module.DiffuSAMSegmentTest()
    said: list[str] = []
    monkeypatch.setattr(test, "delayDisplay", said.append)
    test.runTest()
    assert len(said) == 1
    assert "tqdm" in said[0]
