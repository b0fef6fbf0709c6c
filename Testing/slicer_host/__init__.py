"""A test host that runs a scripted module of 3D Slicer without the application.

Real MRML (slicer-core) and an imitation of Slicer's Qt layer on PySide6. See README.md beside this file.
"""

from __future__ import annotations

__all__ = ["boot", "missing_packages"]


def missing_packages() -> str:
    """What has to be installed before the host can start; empty if nothing is missing."""
    from importlib.util import find_spec

    needed = {
        "slicer_core": "slicer-core",
        "PySide6": "PySide6-Essentials",
        "vtkmodules": "vtk",
        "numpy": "numpy",
    }
    return ", ".join(package for module, package in needed.items() if find_spec(module) is None)


def __getattr__(name: str) -> object:
    # `from slicer_host import boot` gives the function; slicer_host.boot stays importable without the packages.
    if name == "boot":
        from .host import boot

        return boot
    raise AttributeError(name)
