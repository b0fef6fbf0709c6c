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

import pytest
from module_host import NAME, Installed, refused, small_volume


@dataclass
class OwnPython:
    """As if the module had to install packages into this Python; `answers` are what the user says."""

    host: Any
    missing: set[str]
    replaced: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    pip: list[list[str]] = field(default_factory=list)

    def version(self, name: str) -> str | None:
        return None if name in self.missing else "100" if name in self.replaced else "99"

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


def test_who_wanted_to_train_is_told_there(panel: Any, own_python: OwnPython) -> None:
    import qt

    with own_python.user_says(qt.QMessageBox.Cancel):
        panel._train.onTrainButton()
    assert "not installed" in panel.ui.trainStatusLabel.text
    assert panel.ui.statusLabel.text == ""


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


def test_an_installation_that_wants_a_restart_goes_on_after_it(
    installed: Installed, panel: Any, own_python: OwnPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip replaced what Slicer had loaded. The user has agreed already, and is not asked again."""
    import qt
    from slicer_host import packaging

    install, pip_ensure = own_python.install, packaging.pip_ensure
    prompts: list[bool] = []

    def ensuring(*arguments: Any, **options: Any) -> Any:
        # Slicer's own prompt would restart it before sam2 is there, and nothing would go on.
        prompts.append(options.get("prompt_restart", True))
        return pip_ensure(*arguments, **options)

    monkeypatch.setattr(sys.modules["slicer.packaging"], "pip_ensure", ensuring)

    def replacing(arguments: list[str], options: dict[str, Any]) -> None:
        install(arguments, options)
        own_python.replaced.add("pytest")

    own_python.install = replacing  # type: ignore[method-assign]
    with own_python.user_says(qt.QMessageBox.Yes), packaging.pretending_missing("tqdm"):
        assert "restart" in refused(lambda: panel._installer.ensure(ask=False))
    assert prompts == [False]
    assert own_python.asked == ["ctkMessageBox.exec"]
    assert own_python.missing == set()
    assert installed.host.restarts() == 1
    assert not panel._installer.pending()
    restart(monkeypatch)
    assert panel._installer.pending()
    own_python.asked.clear()
    installed.host.leave(NAME)
    with own_python.user_says(qt.QMessageBox.Cancel):
        installed.host.enter(NAME)
        installed.host.wait_until(lambda: not panel._installer.pending(), 5)
    assert own_python.asked == []


def test_a_second_slicer_leaves_an_installation_to_the_first(
    panel: Any, own_python: OwnPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it goes on, nor after the first was killed; nor is what it took up begun twice."""
    import qt
    from DiffuSAMSegmentLib import installer
    from slicer_host.packaging import pretending_missing

    class KilledError(BaseException):
        """The application goes while pip is at work."""

    pending: list[bool] = []

    def cut_off(_arguments: list[str], _options: dict[str, Any]) -> None:
        with monkeypatch.context() as second:
            restart(second)
            pending.append(panel._installer.pending())
        raise KilledError

    # As after a restart that an earlier process wanted.
    qt.QSettings().setValue(installer.PENDING_KEY, os.getpid() + 2)
    assert panel._installer.pending()
    own_python.install = cut_off  # type: ignore[method-assign]
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"), pytest.raises(KilledError):
        panel._installer.ensure(ask=False)
    restart(monkeypatch)
    pending.append(panel._installer.pending())
    assert pending == [False, False]


def test_an_installation_cannot_be_entered_again(
    installed: Installed, panel: Any, own_python: OwnPython
) -> None:
    """Slicer shows pip's output line by line, and lets the user click in between."""
    import qt
    import slicer
    from slicer_host.packaging import pretending_missing

    ui = panel.ui
    install = own_python.install
    seen: list[bool] = []

    def slowly(arguments: list[str], options: dict[str, Any]) -> None:
        panel._onParametersModified()
        slicer.app.processEvents()
        assert ui.statusLabel.text == "Installing packages; this takes minutes."
        assert "being installed" in ui.segmentButton.toolTip
        assert "being installed" in ui.trainButton.toolTip
        assert qt.QApplication.overrideCursor() is not None
        seen.extend([ui.segmentButton.enabled, ui.trainButton.enabled, panel._install(panel._run.fail)])
        panel._run.onSegmentButton()
        panel._train.onTrainButton()
        install(arguments, options)

    own_python.install = slowly  # type: ignore[method-assign]
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"):
        assert panel._install(panel._run.fail)
    assert len(own_python.asked) == 1
    assert len(own_python.pip) == 2
    assert seen == [False] * 6
    assert ui.segmentButton.enabled
    assert ui.segmentButton.toolTip == "Find the checked organs in the volume."
    assert ui.statusLabel.text == ""
    assert not panel.logic.running
    assert qt.QApplication.overrideCursor() is None


def test_whatever_ends_an_installation_the_panel_is_as_before(panel: Any, own_python: OwnPython) -> None:
    import qt
    from slicer_host.packaging import pretending_missing

    def interrupt(_arguments: list[str], _options: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    own_python.install = interrupt  # type: ignore[method-assign]
    with (
        own_python.user_says(qt.QMessageBox.Ok),
        pretending_missing("tqdm"),
        pytest.raises(KeyboardInterrupt),
    ):
        panel._install(panel._run.fail)
    assert panel.ui.segmentButton.enabled
    assert panel.ui.statusLabel.text == ""
    assert qt.QApplication.overrideCursor() is None


@pytest.mark.parametrize("button", ["onSegmentButton", "onTrainButton"])
def test_nothing_begins_once_the_panel_was_left_during_the_installation(
    installed: Installed, panel: Any, own_python: OwnPython, button: str
) -> None:
    import qt
    from slicer_host.packaging import pretending_missing

    install = own_python.install

    def meanwhile(arguments: list[str], options: dict[str, Any]) -> None:
        install(arguments, options)
        if not own_python.missing:
            installed.host.leave(NAME)

    own_python.install = meanwhile  # type: ignore[method-assign]
    with own_python.user_says(qt.QMessageBox.Ok), pretending_missing("tqdm"):
        getattr(panel._run if button == "onSegmentButton" else panel._train, button)()
    assert own_python.missing == set()
    assert not panel.logic.running
    assert not panel.logic.training
    installed.host.enter(NAME)
    assert panel.ui.segmentButton.enabled


@pytest.mark.parametrize("processor", ["x86_64", "arm64"])
def test_on_a_mac_nothing_is_installed_into_an_intel_slicer(
    panel: Any, own_python: OwnPython, monkeypatch: pytest.MonkeyPatch, processor: str
) -> None:
    """PyTorch has no build for it that is new enough, also where it runs on Apple silicon."""
    import qt
    from DiffuSAMSegmentLib import installer

    monkeypatch.setattr(installer, "sys", SimpleNamespace(platform="darwin", modules=sys.modules))
    monkeypatch.setattr(installer, "platform", SimpleNamespace(machine=lambda: processor))
    own_python.missing.add("torch")
    with own_python.user_says(qt.QMessageBox.Cancel):
        panel.ui.segmentButton.click()
    is_intel = processor == "x86_64"
    assert ("DIFFUSAM_PYTHON" in panel.ui.statusLabel.text) == is_intel
    assert len(own_python.asked) == (0 if is_intel else 1)
    assert own_python.pip == []


def test_a_slicer_that_is_too_old_is_told_so(
    panel: Any, own_python: OwnPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qt

    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    with own_python.user_says(qt.QMessageBox.Ok):
        panel.ui.segmentButton.click()
    assert "Slicer 5.12" in panel.ui.statusLabel.text
    assert own_python.asked == []
    assert own_python.pip == []


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


@pytest.mark.parametrize(("system", "torch"), [("linux", ">=2.5.1"), ("win32", ">=2.5.1,<2.13")])
def test_the_whole_installation_from_the_first_click(
    installed: Installed,
    panel: Any,
    own_python: OwnPython,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    torch: str,
) -> None:
    """Nothing is there: the extension PyTorch, a restart, PyTorch through it, then the other packages."""
    import qt
    import slicer
    from DiffuSAMSegmentLib import installer
    from slicer_host.dialogs import answering
    from slicer_host.packaging import allowing_install, pretending_missing

    host = installed.host
    monkeypatch.setattr(installer, "sys", SimpleNamespace(platform=system, modules=sys.modules))
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
    assert wanted == [{"askConfirmation": False, "torchVersionRequirement": torch}]
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
