"""Finds what the application would only print: swallowed exceptions, VTK errors, things left behind."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PySide6 import QtWidgets

from .host_class import state
from .pythonqt import stray_attributes


def child_processes(of: int | None = None) -> dict[int, str]:
    """The running descendants of a process, with their command lines; zombies excepted.

    Without a process: all that came from this one, those too whose parents have ended.
    """
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    marked: set[int] = set()
    mark = f"SLICER_HOST_FOLDER={os.environ.get('SLICER_HOST_FOLDER', '')}\0".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if status[0] != "Z":
            pid = int(entry.name)
            parents[pid], commands[pid] = int(status[1]), command
            marked |= {pid} if mark in environment else set()
    found = marked - {os.getpid()} if of is None else set()
    wanted = {os.getpid() if of is None else of}
    while wanted:
        wanted = {pid for pid, parent in parents.items() if parent in wanted and pid not in found}
        found |= wanted
    return {pid: commands[pid] for pid in found}


class Guard:
    """Watches while it is active; `problems` then says what went wrong."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.exceptions: list[str] = []
        self.vtk_errors: list[str] = []
        self.qt_messages: list[str] = []
        self._strays: list[str] = []

    def __enter__(self) -> Guard:
        import vtk

        self._hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
        sys.excepthook = self._exception
        sys.unraisablehook = lambda entry: self._exception(
            entry.exc_type, entry.exc_value, entry.exc_traceback
        )
        threading.excepthook = lambda entry: self._exception(
            entry.exc_type, entry.exc_value, entry.exc_traceback
        )

        def error(caller: Any, event: str, text: str) -> None:
            self.vtk_errors.append(text.strip())

        error.CallDataType = "string0"
        self._window = vtk.vtkOutputWindow.GetInstance()
        self._tag = self._window.AddObserver("ErrorEvent", error)
        self._outer_messages, self.host.qt_messages = self.host.qt_messages, self.qt_messages
        self._files = self._temporary_files()
        self._children = set(child_processes())
        self._threads = set(threading.enumerate())
        return self

    def __exit__(self, *_: object) -> None:
        sys.excepthook, sys.unraisablehook, threading.excepthook = self._hooks
        self._window.RemoveObserver(self._tag)
        self.host.qt_messages = self._outer_messages

    def _exception(self, kind: type, value: BaseException, trace: Any) -> None:
        self.exceptions.append("".join(traceback.format_exception(kind, value, trace)))

    def _temporary_files(self) -> set[Path]:
        files = set(Path(self.host.app.temporaryPath).rglob("*"))
        # PyTorch's folder for compiled code, one for each user of the computer, is meant to stay.
        return {f for f in files if not any(part.startswith("torchinductor_") for part in f.parts)}

    @contextmanager
    def expecting(self, *texts: str) -> Iterator[None]:
        """Within it, exceptions and errors that hold one of the texts are right, and each must happen.

        Raises:
            AssertionError: one of them did not happen.
        """
        lists = (self.exceptions, self.vtk_errors, self.qt_messages)
        starts = [len(entries) for entries in lists]
        yield
        new = [entry for entries, start in zip(lists, starts, strict=True) for entry in entries[start:]]
        for text in texts:
            assert any(text in entry for entry in new), f"Nothing said {text!r}."
        for entries, start in zip(lists, starts, strict=True):
            entries[start:] = [e for e in entries[start:] if not any(text in e for text in texts)]

    def look_for_strays(self, panel: Any) -> None:
        """Notes attributes of a panel's widgets that PythonQt refuses."""
        self._strays += stray_attributes(panel)

    def leftovers(self) -> list[str]:
        """Processes, threads, temporary files and application states that outlive what was watched."""
        children = {pid: command for pid, command in child_processes().items() if pid not in self._children}
        threads = [t for t in threading.enumerate() if t not in self._threads and t.is_alive()]
        found = [f"process {pid}: {command}" for pid, command in children.items()]
        found += [f"thread {t.name}" for t in threads]
        found += [f"file {path}" for path in sorted(self._temporary_files() - self._files)]
        if QtWidgets.QApplication.overrideCursor() is not None:
            found.append("the wait cursor")
        if state(self.host.app).__dict__.get("paused", 0):
            found.append("paused rendering")
        return found

    def wait_for_leftovers(self) -> None:
        """Gives what was told to end five seconds to do so."""
        end = time.monotonic() + 5
        while self.leftovers() and time.monotonic() < end:
            self.host.process_events(0.05)

    def problems(self) -> list[str]:
        found = [f"Exception that Slicer would only print:\n{e}" for e in self.exceptions]
        found += [f"VTK error: {e}" for e in self.vtk_errors]
        found += [f"Qt says: {e}" for e in self.qt_messages]
        found += [f"PythonQt has no such attribute: {name}" for name in self._strays]
        return found + [f"Left behind: {what}" for what in self.leftovers()]
