"""All frames of a sequence, one run after another, into a sequence of segmentations beside it."""

from __future__ import annotations

import dataclasses

import slicer
from slicer.i18n import tr as _

from .errors import SegmentationError, unforeseen
from .scene_nodes import exists, removeNode
from .segmentation_run import RunListener, RunSettings, SegmentationRun
from .segmentation_snapshot import SegmentationSnapshot
from .sequence_frame import browserOf
from .worker_process import WorkerProcess


class SequenceRun:
    """As SegmentationRun, for every frame; the browser then shows each frame's organs, and keeps edits of them.

    :param segmentationNode: None makes a new one, and so does one that shows the frames of a sequence already: it
        belongs to what an earlier run found
    :param onFrame: called with (frame, number of frames) as each begins
    """

    def __init__(
        self,
        process: WorkerProcess,
        volumeNode,
        segmentationNode,
        settings: RunSettings,
        listener: RunListener,
        onFrame,
    ) -> None:
        self._process = process
        self._volumeNode = volumeNode
        # One volume beside all frames could show that of one of them only.
        self._settings = dataclasses.replace(settings, confidence=False)
        self._listener = listener
        self._onFrame = onFrame
        self._browser = browserOf(volumeNode)
        self.segmentationNode = segmentationNode if browserOf(segmentationNode) is None else None
        # Each frame replaces what an earlier one left in the node; to be undone, all of it is needed.
        self._before = (
            SegmentationSnapshot(self.segmentationNode) if self.segmentationNode is not None else None
        )
        self._run: SegmentationRun | None = None
        self.ended = False
        self.stopped = False

    def start(self) -> None:
        """Begins with the first frame.

        :raises SegmentationError: the volume belongs to no sequence, or it or the output cannot be used
        """
        if self._browser is None:
            raise SegmentationError(
                _("The volume is not a frame of a sequence."), _("Choose the current frame only.")
            )
        self._shown = self._browser.GetSelectedItemNumber()
        self._frame = 0
        master = self._browser.GetMasterSequenceNode()
        self._values = [master.GetNthIndexValue(n) for n in range(self._browser.GetNumberOfItems())]
        self._sequence = slicer.vtkMRMLSequenceNode()
        self._sequence.SetName(
            slicer.mrmlScene.GenerateUniqueName(_("{volume} organs").format(volume=master.GetName()))
        )
        self._sequence.SetIndexName(master.GetIndexName())
        self._sequence.SetIndexUnit(master.GetIndexUnit())
        self._sequence.SetIndexType(master.GetIndexType())
        slicer.mrmlScene.AddNode(self._sequence)
        try:
            self._startFrame()
        except Exception:
            self._discard()
            raise

    def take(self, event: dict) -> None:
        """Takes an event of the child process."""
        if self.ended or self._run is None:
            return
        if not exists(self._browser):
            self._run.stop()
            message = _("The sequence was deleted while it was in use.")
            self._failed(SegmentationError(message, _("Choose a volume and an output, and start again.")))
            return
        self._run.take(event)

    def stop(self, keepPartial: bool = False) -> bool:
        """Ends the present frame; the frames that are complete stay only if the user wants that.

        :return: whether any was kept
        """
        if self.ended:
            return False
        self.stopped = True
        self._run.stop()
        kept = keepPartial and self._frame > 0 and exists(self._browser)
        if kept:
            self._finish()
        else:
            self._discard()
        return kept

    def _startFrame(self) -> None:
        self._browser.SetSelectedItemNumber(self._frame)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self._browser)
        self._onFrame(self._frame, len(self._values))
        listener = RunListener(self._listener.progress, self._frameDone, self._failed)
        self._run = SegmentationRun(
            self._process, self._volumeNode, self.segmentationNode, self._settings, listener
        )
        self._run.start()
        self.segmentationNode = self._run.segmentationNode

    def _frameDone(self, segmentationNode) -> None:
        self._sequence.SetDataNodeAtValue(segmentationNode, self._values[self._frame])
        self._frame += 1
        if self._frame == len(self._values):
            self._finish()
            self._listener.finished(self.segmentationNode)
            return
        try:
            self._startFrame()
        except Exception as error:  # nobody above would tell the user
            self._failed(unforeseen(error))

    def _failed(self, error: SegmentationError) -> None:
        self._discard()
        self._listener.failed(error)

    def _finish(self) -> None:
        self.ended = True
        self._browser.AddSynchronizedSequenceNode(self._sequence)
        # After Stop some frames have no organs; by default the browser would give them those of the frame before.
        mode = slicer.vtkMRMLSequenceBrowserNode.MissingItemCreateFromDefault
        self._browser.SetMissingItemMode(self._sequence, mode)
        self._browser.AddProxyNode(self.segmentationNode, self._sequence, False)
        self._show()
        # Without it, the next frame would undo what was corrected in this one. Not earlier: what the node shows until
        # then may belong to another frame.
        self._browser.SetSaveChanges(self._sequence, True)

    def _discard(self) -> None:
        self.ended = True
        if exists(self._sequence):
            slicer.mrmlScene.RemoveNode(self._sequence)
        if self._before is not None:
            self._before.restore()
        elif exists(self.segmentationNode):
            removeNode(self.segmentationNode)
        self._show()

    def _show(self) -> None:
        if not exists(self._browser):
            return
        self._browser.SetSelectedItemNumber(self._shown)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self._browser)
