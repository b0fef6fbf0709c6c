"""slicer.packaging: what it says is real, what it would install is refused unless a test allows it."""

from __future__ import annotations

import importlib.metadata
import logging
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import slicer
from packaging.requirements import InvalidRequirement, Requirement

Requirements = str | Requirement | list[str | Requirement]
_allowed: list[Callable[[list[str], dict[str, Any]], None]] = []
_missing: list[set[str]] = []


class InstallRefused(RuntimeError):
    """The test host never changes the Python that the tests run in."""


@contextmanager
def allowing_install(install: Callable[[list[str], dict[str, Any]], None]) -> Iterator[None]:
    """Within it, `install(arguments of pip, options of pip_install)` stands for pip."""
    _allowed.append(install)
    try:
        yield
    finally:
        _allowed.remove(install)


@contextmanager
def pretending_missing(*names: str) -> Iterator[set[str]]:
    """Within it, `pip_check` does not find these packages; take a name out of the set when it is "installed"."""
    missing = {name.lower() for name in names}
    _missing.append(missing)
    try:
        yield missing
    finally:
        _missing.remove(missing)


def load_requirements(path: str | Path) -> list[Requirement]:
    lines = [line.strip() for line in Path(path).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def load_pyproject_dependencies(path: str | Path) -> list[Requirement]:
    import tomllib

    data = tomllib.loads(Path(path).read_text())
    if "project" not in data:
        raise KeyError(f"pyproject.toml has no [project] table: {path}")
    return [Requirement(text) for text in data["project"].get("dependencies", [])]


def _as_requirements(requirements: Requirements) -> list[Requirement]:
    if isinstance(requirements, Requirement):
        return [requirements]
    if isinstance(requirements, list):
        return [Requirement(r) if isinstance(r, str) else r for r in requirements]
    if not isinstance(requirements, str):
        raise TypeError(f"Expected str, Requirement, or list, got {type(requirements).__name__}")
    try:
        return [Requirement(requirements)]
    except InvalidRequirement:
        return [Requirement(part) for part in requirements.split()]


def _satisfied(requirement: Requirement, seen: set[tuple[str, frozenset[str]]]) -> bool:
    key = (requirement.name.lower(), frozenset(requirement.extras))
    if (requirement.marker and not requirement.marker.evaluate()) or key in seen:
        return True
    seen.add(key)
    if any(requirement.name.lower() in names for names in _missing):
        return False
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    if version not in requirement.specifier:
        return False
    for text in importlib.metadata.requires(requirement.name) or []:
        dependency = Requirement(text)
        for extra in requirement.extras:
            if dependency.marker and dependency.marker.evaluate({"extra": extra}):
                dependency.marker = None
                if not _satisfied(dependency, seen):
                    return False
                break
    return True


def pip_check(req: Requirements) -> bool:
    seen: set[tuple[str, frozenset[str]]] = set()
    return all(_satisfied(r, seen) for r in _as_requirements(req))


def isPipInstallInProgress() -> bool:
    return False


def _arguments(requirements: Requirements) -> list[str]:
    if isinstance(requirements, str):
        return requirements.split()
    return [str(r) for r in (requirements if isinstance(requirements, list) else [requirements])]


def pip_install(
    requirements: Requirements,
    constraints: str | Path | None = None,
    no_deps_requirements: Requirements | None = None,
    skip_packages: list[str] | None = None,
    blocking: bool = True,
    show_progress: bool = True,
    requester: str | None = None,
    parent: Any = None,
    logCallback: Callable[[str], None] | None = None,
    completedCallback: Callable[[int], None] | None = None,
) -> list[str] | None:
    """Raises InstallRefused, or hands over to what `allowing_install` was given."""
    wanted = _arguments(requirements)
    if no_deps_requirements:
        wanted += ["--no-deps", *_arguments(no_deps_requirements)]
    if constraints is not None:
        if not Path(constraints).is_file():
            raise FileNotFoundError(constraints)
        wanted += ["-c", str(constraints)]
    if not _allowed:
        raise InstallRefused(f"The test host does not install packages: {' '.join(wanted)}")
    code = 0
    try:
        _allowed[-1](wanted, {"skip_packages": skip_packages, "blocking": blocking, "requester": requester})
    except subprocess.CalledProcessError as error:
        code = error.returncode
        if blocking:
            raise
    if not blocking and completedCallback:
        from PySide6.QtCore import QTimer

        QTimer.singleShot(0, lambda: completedCallback(code))
    return [] if skip_packages is not None else None


def pip_uninstall(requirements: Requirements, **options: Any) -> None:
    raise InstallRefused(f"The test host does not uninstall packages: {requirements}")


def pip_ensure(
    requirements: Requirements,
    constraints: str | Path | None = None,
    skip_packages: list[str] | None = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> list[str] | None:
    """Checks, asks, installs.

    Raises:
        RuntimeError: the user declined.
        CalledProcessError: pip failed.
    """
    missing = [r for r in _as_requirements(requirements) if not pip_check(r)]
    if not missing:
        return None
    if skip_in_testing and slicer.app.testingEnabled():
        logging.info("Testing mode is enabled: not installing %s", [str(r) for r in missing])
        return None
    if prompt_install and not slicer.app.testingEnabled():
        text = f"{requester or 'This module'} needs to install: {', '.join(str(r) for r in missing)}"
        if not slicer.util.confirmOkCancelDisplay(text):
            raise RuntimeError("User declined the installation of Python packages.")
    return pip_install(
        [str(r) for r in missing], constraints, skip_packages=skip_packages, requester=requester
    )
