"""What segmenting and training share: one child process, busy with one thing at a time."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from .errors import SegmentationError


class BusyLogic:
    """The part of the module's logic that asks whether it is `running` or `training`, and waits for an end."""

    def requireIdle(self) -> None:
        """Refuses where the child process is busy.

        :raises SegmentationError: says with what
        """
        if self.running:
            raise SegmentationError(
                _("Another volume is being segmented."), _("Stop it, or wait for its end.")
            )
        if self.training:
            raise SegmentationError(_("A prior is being trained."), _("Stop it, or wait for its end."))

    def waitFor(self, run) -> None:
        """Lets the application go on until a run has ended.

        It is stopped when the main window closes: Slicer could not quit before its end, and nobody would see why.
        """
        window = slicer.util.mainWindow()
        shown = window is not None and window.visible
        while not run.ended:
            slicer.app.processEvents()
            if shown and not window.visible:
                run.stop()
            qt.QThread.msleep(10)
