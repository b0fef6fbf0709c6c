"""The pytest fixture `host`; `pytest_plugins = ["slicer_host.fixtures"]` makes it known to tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from . import missing_packages


@pytest.fixture(scope="session")
def started_host() -> Any:
    if missing := missing_packages():
        pytest.skip(f"The test host of the Slicer module needs: {missing}")
    from .host import boot

    return boot()


@pytest.fixture
def host(started_host: Any) -> Iterator[Any]:
    """The host with an empty scene, no settings and no scripted modules.

    The test fails on any exception that the application would swallow, any VTK error, and on processes, threads and
    temporary files that are left at its end. `host.guard.expecting("text")` allows what a test provokes.
    """
    from .guard import Guard
    from .host_class import state
    from .scripted_loading import qSlicerScriptedLoadableModule

    started_host.clean()
    with Guard(started_host) as guard:
        started_host.guard = guard
        yield started_host
        loaded = state(started_host.app.moduleManager()).loaded
        for name in [n for n, m in loaded.items() if isinstance(m, qSlicerScriptedLoadableModule)]:
            if state(loaded[name]).widget is not None:
                guard.look_for_strays(state(loaded[name]).widget)
            started_host.unload_module(name)
        started_host.process_events()
        guard.wait_for_leftovers()
    started_host.set_testing(True)
    started_host.clean()
    if problems := guard.problems():
        pytest.fail("\n\n".join(problems), pytrace=False)
