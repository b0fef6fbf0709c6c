"""Segmenting, for the panel and for scripts."""

from __future__ import annotations

from slicer.i18n import tr as _

from .busy_logic import BusyLogic
from .errors import SegmentationError
from .segmentation_run import RunListener, RunSettings, SegmentationRun
from .sequence_run import SequenceRun
from .volume_export import hasVoxels
from .volume_modality import guessModality


class SegmentationLogic(BusyLogic):
    """The part of the module's logic that segments; it uses its `process` and `onRunning`."""

    _run: SegmentationRun | SequenceRun | None = None

    @property
    def running(self) -> bool:
        """Whether a volume is being segmented."""
        return self._run is not None and not self._run.ended

    def segment(
        self,
        volumeNode,
        organs: list[str] | None = None,
        *,
        segmentationNode=None,
        prior: str = "abdomen",
        modality: str | None = None,
        device: str = "auto",
        samples: int = 1,
        seed: int = 0,
        confidence: bool = False,
        allFrames: bool = False,
        wait: bool = True,
        listener: RunListener | None = None,
        onFrame=lambda frame, frames: None,
    ):
        """Segments a volume.

        :param volumeNode: scalar volume, CT or MR, on any grid and under any transform
        :param organs: names that the prior knows; None takes all
        :param segmentationNode: where to put the organs; None makes a new node
        :param prior: name in the catalogue of weights
        :param modality: "CT" or "MR"; None goes by DICOM, else by the values
        :param device: "auto", "cpu", "cuda", "cuda:N" or "mps"
        :param samples: how many results from different noise are averaged
        :param seed: of the noise
        :param confidence: also makes a volume of how sure the network is of each voxel's label, 0.5 to 1, to which
            the segmentation refers as "DiffuSAM.Confidence"; of all frames it makes none
        :param allFrames: every frame of the sequence whose present frame the volume is
        :param wait: returns when the segmentation is complete; otherwise at once, and the organs appear later
        :param listener: is told of progress and of the end, where wait is False
        :param onFrame: called with (frame, frames) as each begins
        :return: the segmentation node
        :raises SegmentationError: with a sentence on what is wrong and one on what to do
        """
        self.requireIdle()
        settings = RunSettings(
            prior=prior,
            organs=tuple(organs) if organs is not None else None,
            modality=modality or (guessModality(volumeNode) if hasVoxels(volumeNode) else None),
            device=device,
            samples=samples,
            seed=seed,
            confidence=confidence,
        )
        failures: list[SegmentationError] = []
        if wait:
            told = listener or RunListener()
            listener = RunListener(told.progress, told.finished, failures.append)
        listener = listener or RunListener()
        if allFrames:
            run = SequenceRun(self.process, volumeNode, segmentationNode, settings, listener, onFrame)
        else:
            run = SegmentationRun(self.process, volumeNode, segmentationNode, settings, listener)
        self._run = run
        try:
            run.start()
        except Exception:
            self._run = None
            raise
        self.onRunning()
        if wait:
            self.waitFor(run)
            if failures:
                raise failures[0]
            if run.stopped:
                raise SegmentationError(_("The segmentation was stopped."), code="stopped")
        return run.segmentationNode

    def stop(self, keepPartial: bool = False) -> bool:
        """Ends a run; the scene is as before, or holds what was found so far.

        :return: whether anything was kept
        """
        kept = self.running and self._run.stop(keepPartial)
        self._run = None
        self.onRunning()
        return kept

    def takeSegmentationEvent(self, event: dict) -> None:
        """Takes an event of the child process."""
        if self._run is not None:
            self._run.take(event)
        if not self.running:
            self._run = None  # it holds its nodes, which the scene may let go of
            self.onRunning()
