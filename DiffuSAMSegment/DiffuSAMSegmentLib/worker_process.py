"""The child process that computes; it stays warm between runs and never outlives the module."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from .lib_location import libRoot, workerPython
from .worker_environment import workerEnvironment

KILL_AFTER_MS = 800
KILL_SAVING_AFTER_MS = 1500
IDLE_END_MS = 5 * 60 * 1000


class WorkerProcess:
    """Sends jobs to DiffuSAMLib.worker and passes its events on.

    :param onEvent: called with each event (a dictionary) of the present job
    :param onLog: called with each line of the human log
    """

    def __init__(self, onEvent: Callable[[dict], None], onLog: Callable[[str], None]) -> None:
        self._onEvent = onEvent
        self._onLog = onLog
        self._process = None
        # The one before: it may be in the middle of telling its end, and must not vanish meanwhile.
        self._ended = None
        self._pid = 0
        self._rest = b""
        self._busy = False
        self._idleTimer = qt.QTimer()
        self._idleTimer.setSingleShot(True)
        self._idleTimer.setInterval(IDLE_END_MS)

    @property
    def running(self) -> bool:
        """Whether there is a process, busy or warm."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of the process that computes, 0 until it is there."""
        return self._pid

    def send(self, job: dict) -> None:
        """Starts a job; the process too, unless it is warm.

        :raises SegmentationError: the library is gone
        :raises OSError: there is no temporary folder
        """
        self._idleTimer.stop()
        self._busy = True
        if self._process is None:
            try:
                self._start()
            except Exception:
                self._busy = False
                raise
        if self._process is None:
            return  # it could not be started, and that was told
        self._process.write(qt.QByteArray(json.dumps(job).encode("ascii") + b"\n"))

    def end(self, *, saving: bool = False) -> None:
        """Ends the process and waits until it is gone, at most two seconds; nothing is passed on any more.

        :param saving: lets it save its work first
        """
        if self._process is None:
            return
        process = self._release()
        self._busy = False
        # On Slicer's own Python the process is a launcher, and the worker its child. The worker ends when its input
        # closes, or by the signal if it is busy; the launcher ends after it. To end the launcher alone would leave
        # the worker behind.
        process.closeWriteChannel()
        if not saving:
            # Not needed for a training, which ends when its input closes: on Windows the signal would kill it, and
            # elsewhere arrive while it saves.
            self._signal(signal.SIGTERM)
        if not process.waitForFinished(KILL_SAVING_AFTER_MS if saving else KILL_AFTER_MS):
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
            process.kill()
            process.waitForFinished(500)
        self._pid = 0

    def _start(self) -> None:
        # What can fail comes first: a process that never started must not be taken for a warm one.
        worker = libRoot() / "DiffuSAMLib" / "worker.py"
        environment = workerEnvironment()
        process = qt.QProcess()
        process.setProcessEnvironment(environment)
        process.connect("readyReadStandardOutput()", self._readEvents)
        process.connect("readyReadStandardError()", self._readLog)
        process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)
        self._idleTimer.connect("timeout()", self.end)
        self._rest = b""
        self._pid = 0
        self._process = process
        process.start(workerPython(), ["-u", str(worker)])

    def _release(self):
        """The process tells nothing any more, and nothing of Qt keeps this object alive.

        What is connected to a signal is held by Qt, where Python's garbage collector does not see it.

        :return: the process
        """
        process = self._process
        self._process, self._ended = None, process
        process.disconnect("readyReadStandardOutput()", self._readEvents)
        process.disconnect("readyReadStandardError()", self._readLog)
        process.disconnect("finished(int,QProcess::ExitStatus)", self._onFinished)
        process.disconnect("errorOccurred(QProcess::ProcessError)", self._onProcessError)
        self._idleTimer.stop()
        self._idleTimer.disconnect("timeout()", self.end)
        return process

    def _signal(self, number: int) -> None:
        if self._pid:
            with contextlib.suppress(OSError):  # it may have gone already
                os.kill(self._pid, number)

    def _readEvents(self) -> None:
        *lines, self._rest = (self._rest + bytes(self._process.readAllStandardOutput().data())).split(b"\n")
        process = self._process
        for line in lines:
            self._take(line)
            if self._process is not process:
                return  # a listener ended the process

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            logging.warning("DiffuSAM: not an event: %r", line[:200])
            return
        if event["event"] == "ready":
            self._pid = event["pid"]
            return
        if event["event"] in ("done", "error"):
            self._busy = False
            self._idleTimer.start()
        self._onEvent(event)

    def _readLog(self) -> None:
        text = bytes(self._process.readAllStandardError().data()).decode("utf-8", "replace")
        for line in text.splitlines():
            self._onLog(line)

    def _onFinished(self, *_arguments: object) -> None:
        """The process ended by itself: it crashed, was killed from outside, or ran out of memory."""
        self._readEvents()
        self._lose(_("The computing process ended unexpectedly."))

    def _onProcessError(self, error: object) -> None:
        if error == qt.QProcess.FailedToStart:
            self._lose(
                _("The computing process cannot be started ({program}).").format(program=workerPython())
            )

    def _lose(self, message: str) -> None:
        if self._process is None:
            return
        self._readLog()
        self._release()
        self._pid = 0
        if self._busy:
            self._busy = False
            hint = _("Look at the log; with large volumes, close other programs or choose the device CPU.")
            self._onEvent({"event": "error", "code": "crashed", "message": message, "hint": hint})
