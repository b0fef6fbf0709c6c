"""Putting PyTorch and the other packages into Slicer's Python, asked for and resumed after a restart."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import re
import tempfile
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .errors import SegmentationError
from .library import libraryRoot, usesSlicersPython
from .temporary_folder import temporaryPath

REQUESTER = "DiffuSAM Segment"
TORCH_REQUIREMENT = ">=2.5.1"
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
    """

    def __init__(self, requirementsFile: Path, constraintsFile: Path) -> None:
        self._requirementsFile = requirementsFile
        self._constraintsFile = constraintsFile

    def ensure(self, ask: bool = True) -> None:
        """Installs what is missing.

        :raises SegmentationError: the user declined, the installation failed, or a restart has to come first
        """
        missing = missingPackages(self._requirementsFile)
        if not missing:
            self.forget()
            return
        if slicer.app.testingEnabled():
            raise self._error(
                _("These Python packages are missing: {names}.").format(names=", ".join(missing))
            )
        if ask and not self._agreed(missing):
            self.forget()
            raise self._error(_("The Python packages were not installed."))
        # Whoever installs may restart Slicer in the middle, pip for a package that is in use; then it goes on.
        self._remember()
        try:
            self._installAll()
        except _RestartError:
            raise
        except SegmentationError:
            self.forget()
            raise
        except Exception as error:  # pip and the extension manager raise anything
            self.forget()
            logging.exception("DiffuSAM: the installation failed")
            raise self._error(_("The installation failed ({reason}).").format(reason=error)) from error
        self.forget()
        left = missingPackages(self._requirementsFile)
        if left:
            raise self._error(
                _("After the installation these are still missing: {names}.").format(names=", ".join(left))
            )

    @staticmethod
    def pending() -> bool:
        """Whether Slicer was restarted in the middle of an installation, to which the user has agreed."""
        return slicer.util.settingsValue(PENDING_KEY, 0, converter=int) not in (0, _process())

    @staticmethod
    def _remember() -> None:
        settings = qt.QSettings()
        settings.setValue(PENDING_KEY, _process())
        settings.sync()

    @staticmethod
    def forget() -> None:
        """The installation is finished or given up."""
        qt.QSettings().remove(PENDING_KEY)

    def _agreed(self, missing: list[str]) -> bool:
        text = _(
            "PyTorch and other Python packages need to be installed once, up to 3 GB. "
            "Slicer's own packages stay as they are. Install now?"
        )
        return slicer.util.confirmOkCancelDisplay(text, REQUESTER, detailedText="\n".join(missing))

    def _installAll(self) -> None:
        self._installTorch()
        with self._constraints() as constraints:
            self._install(constraints)

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
            askConfirmation=False, torchVersionRequirement=TORCH_REQUIREMENT
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
            _("Slicer has to restart; the installation then goes on. Restart now?")
        ):
            slicer.util.restart()
        raise _RestartError(
            _("Slicer has to restart."),
            _("The installation goes on when the module is opened again."),
            "packages",
        )

    def _install(self, constraints: Path) -> None:
        requirements = [r for r in _lines(self._requirementsFile) if not _installed(r)]
        packaging = _slicerPackaging()
        if packaging is not None:
            packaging.pip_ensure(
                packaging.load_requirements(self._requirementsFile),
                constraints=constraints,
                requester=REQUESTER,
                prompt_install=False,
            )
        elif requirements:
            slicer.util.pip_install([*requirements, "-c", str(constraints)])
        if not _installed("sam2"):
            # Without its dependencies: torch is here, torchvision is not used, and a build of its own would get both.
            os.environ["SAM2_BUILD_CUDA"] = "0"
            arguments = [
                "--no-deps",
                "--no-build-isolation",
                "-r",
                str(libraryRoot() / "requirements-sam2.txt"),
            ]
            (packaging or slicer.util).pip_install(arguments)

    def _constraints(self):
        return _PinnedConstraints(_lines(self._constraintsFile))

    @staticmethod
    def _error(message: str, hint: str = "") -> SegmentationError:
        return SegmentationError(message, hint or _('Press "Segment organs" to try again.'), "packages")


class _RestartError(SegmentationError):
    """Slicer has to restart; until then the installation is remembered."""


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


def _slicerPackaging():
    """The module slicer.packaging; Slicer 5.10 has none."""
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


def _installed(requirement: str) -> bool:
    """Whether a requirement of the form "name" or "name>=version" is met."""
    name, _operator, least = requirement.partition(">=")
    version = _version(name.strip())
    return version is not None and (not least or _numbers(version) >= _numbers(least))


def _numbers(version: str) -> tuple[int, ...]:
    """The release part of a version, for comparing."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
