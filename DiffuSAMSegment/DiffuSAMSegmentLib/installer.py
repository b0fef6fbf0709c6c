"""Putting PyTorch and the other packages into Slicer's Python, asked for and resumed after a restart."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .errors import SegmentationError
from .lib_location import libRoot, usesSlicersPython
from .temporary_folder import temporaryPath

REQUESTER = "DiffuSAM Segment"
TORCH_REQUIREMENT = ">=2.5.1"
# Licence files of PyTorch 2.13 have longer paths than Windows takes in Slicer's folder, and pip stops half-way.
TORCH_REQUIREMENT_ON_WINDOWS = f"{TORCH_REQUIREMENT},<2.13"
PENDING_KEY = "DiffuSAMSegment/InstallationPending"


def missingPackages(requirementsFile: Path) -> list[str]:
    """Requirements that Slicer's Python does not meet; empty where another Python computes."""
    if not usesSlicersPython():
        return []
    importlib.invalidate_caches()
    wanted = [f"torch{TORCH_REQUIREMENT}", *_lines(requirementsFile), "sam2"]
    return [requirement for requirement in wanted if not _installed(requirement)]


class Installer:
    """Asks, then installs; a restart in between is remembered.

    :param requirementsFile: packages to install
    :param constraintsFile: names of packages that are not to be changed
    :param onInstalling: called when `installing` has changed
    """

    def __init__(
        self, requirementsFile: Path, constraintsFile: Path, onInstalling: Callable[[], None] = lambda: None
    ) -> None:
        self._requirementsFile = requirementsFile
        self._constraintsFile = constraintsFile
        self._onInstalling = onInstalling
        # Meanwhile the application goes on: pip's output is shown line by line.
        self.installing = False

    def ensure(self, ask: bool = True) -> None:
        """Installs what is missing.

        :raises SegmentationError: this Slicer is too old or on a Mac, the user declined, the installation failed, or
            a restart has to come first
        """
        # Taken up here, or begun anew: no other Slicer is to take it up too.
        self.forget()
        missing = missingPackages(self._requirementsFile)
        if not missing:
            return
        if slicer.app.testingEnabled():
            raise self._error(
                _("These Python packages are missing: {names}.").format(names=", ".join(missing))
            )
        if _isIntelOnMac() and not _installed(f"torch{TORCH_REQUIREMENT}"):
            raise self._error(
                _("On a Mac, PyTorch cannot be installed into Slicer, which is an Intel program."),
                _(
                    "Install DiffuSAM Segment in an arm64 Python of your own and name that Python in the environment "
                    'variable DIFFUSAM_PYTHON; see "A Python of its own" in Docs/slicer-module.md.'
                ),
            )
        packaging = _slicerPackaging()
        if packaging is None:
            raise self._error(
                _("DiffuSAM Segment needs Slicer 5.12 or newer."), _("Install it, and the extension in it.")
            )
        if ask and not self._agreed(missing):
            raise self._error(_("The Python packages were not installed."))
        loaded = _loadedVersions()
        try:
            with self._shown():
                self._installAll(packaging)
        except SegmentationError:
            raise
        except Exception as error:  # pip and the extension manager raise anything
            logging.exception("DiffuSAM: the installation failed")
            raise self._error(_("The installation failed ({reason}).").format(reason=error)) from error
        left = missingPackages(self._requirementsFile)
        if left:
            raise self._error(
                _("After the installation these are still missing: {names}.").format(names=", ".join(left))
            )
        replaced = [name for name, version in loaded.items() if _version(name) != version]
        if replaced:
            # The child process is another Python, so that the user may go on without.
            text = _(
                "Slicer has loaded {names}, and another version was installed meanwhile. Restart Slicer now? "
                "What is not saved is lost."
            )
            if slicer.util.confirmYesNoDisplay(text.format(names=", ".join(replaced)), REQUESTER):
                self._restart()

    @staticmethod
    def pending() -> bool:
        """Whether Slicer was restarted in the middle of an installation, to which the user has agreed."""
        return slicer.util.settingsValue(PENDING_KEY, 0, converter=int) not in (0, _process())

    @staticmethod
    def forget() -> None:
        """There is nothing to go on with after a restart."""
        qt.QSettings().remove(PENDING_KEY)

    def _restart(self) -> None:
        """Restarts Slicer, which goes on from here.

        :raises SegmentationError: always; this Slicer has to stop here
        """
        # Not earlier: until now a second Slicer would take the installation up beside this one.
        settings = qt.QSettings()
        settings.setValue(PENDING_KEY, _process())
        settings.sync()
        slicer.util.restart()
        hint = _("The installation goes on when the module is opened again.")
        raise self._error(_("Slicer has to restart."), hint)

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        """Within it, the panel and the cursor say that packages are being installed."""
        self.installing = True
        try:
            self._onInstalling()
            with slicer.util.WaitCursor():
                yield
        finally:
            self.installing = False
            self._onInstalling()

    def _agreed(self, missing: list[str]) -> bool:
        text = _(
            "PyTorch and other Python packages need to be installed once, up to 3 GB. "
            "Slicer's own packages stay as they are. Install now?"
        )
        return slicer.util.confirmOkCancelDisplay(text, REQUESTER, detailedText="\n".join(missing))

    def _installAll(self, packaging) -> None:
        self._installTorch()
        with self._constraints() as constraints:
            self._install(packaging, constraints)

    def _installTorch(self) -> None:
        if _installed(f"torch{TORCH_REQUIREMENT}"):
            return
        if not hasattr(slicer.modules, "pytorchutils"):
            self._installExtension()
        import PyTorchUtils

        if _installed("torch"):
            raise self._error(
                _("The installed PyTorch is too old."),
                _("Uninstall it in the module PyTorch Utils, restart Slicer, and try again."),
            )
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False,
            torchVersionRequirement=TORCH_REQUIREMENT_ON_WINDOWS if _isWindows() else TORCH_REQUIREMENT,
        )
        if torch is None:
            raise self._error(_("PyTorch was not installed."))

    def _installExtension(self) -> None:
        """Gets the extension that knows which PyTorch fits; it can be used after a restart only."""
        manager = slicer.app.extensionsManagerModel()
        if manager is None or not manager.installExtensionFromServer("PyTorch", False):
            raise self._error(
                _("The extension PyTorch cannot be installed."),
                _("Install it in the Extensions Manager, restart Slicer, and try again."),
            )
        if slicer.util.confirmYesNoDisplay(
            _("Slicer has to restart; the installation then goes on. Restart now? What is not saved is lost.")
        ):
            self._restart()
        raise self._error(_("Slicer has to restart."), _("Restart it, then press the button again."))

    def _install(self, packaging, constraints: Path) -> None:
        packaging.pip_ensure(
            packaging.load_requirements(self._requirementsFile),
            constraints=constraints,
            requester=REQUESTER,
            prompt_install=False,
            # Asked at the end instead, when nothing is left to be installed.
            prompt_restart=False,
        )
        if not _installed("sam2"):
            # Without its dependencies: torch is here, torchvision is not used, and a build of its own would get both.
            os.environ["SAM2_BUILD_CUDA"] = "0"
            arguments = [
                "--no-deps",
                "--no-build-isolation",
                "-r",
                str(libRoot() / "requirements-sam2.txt"),
            ]
            packaging.pip_install(arguments)

    def _constraints(self):
        return _PinnedConstraints(_lines(self._constraintsFile))

    @staticmethod
    def _error(message: str, hint: str = "") -> SegmentationError:
        return SegmentationError(message, hint or _("Press the button to try again."), "packages")


class _PinnedConstraints:
    """A constraints file that holds packages at the versions which are installed now."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def __enter__(self) -> Path:
        pinned = [f"{name}=={version}" for name in self._names if (version := _version(name))]
        handle, path = tempfile.mkstemp(".txt", "DiffuSAM-constraints-", temporaryPath())
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write("\n".join(pinned) + "\n")
        self._path = Path(path)
        return self._path

    def __exit__(self, *_error: object) -> None:
        self._path.unlink(missing_ok=True)


def _process() -> int:
    """Tells this run of Slicer from the one after a restart."""
    return os.getpid()


def _isWindows() -> bool:
    return sys.platform == "win32"


def _isIntelOnMac() -> bool:
    """Whether Slicer is an Intel program on macOS, also on Apple silicon: PyTorch's last build for it is 2.2.2."""
    return sys.platform == "darwin" and platform.machine() == "x86_64"


def _slicerPackaging():
    """The module slicer.packaging; None in a Slicer before 5.12."""
    try:
        return importlib.import_module("slicer.packaging")
    except ImportError:
        return None


def _lines(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="ascii").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _loadedVersions() -> dict[str, str]:
    """Versions of the installed packages of which Slicer has loaded something, by name."""
    modules = {name.partition(".")[0] for name in sys.modules}
    packages = importlib.metadata.packages_distributions()
    names = {name for module in modules for name in packages.get(module, ())}
    return {name: version for name in sorted(names) if (version := _version(name)) is not None}


def _installed(requirement: str) -> bool:
    """Whether a requirement of the form "name" or "name>=version" is met."""
    name, _operator, least = requirement.partition(">=")
    version = _version(name.strip())
    return version is not None and (not least or _numbers(version) >= _numbers(least))


def _numbers(version: str) -> tuple[int, ...]:
    """The release part of a version, for comparing."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
