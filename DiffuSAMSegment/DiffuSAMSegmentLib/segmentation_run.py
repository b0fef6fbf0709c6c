"""One volume through the child process into a segmentation node."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import qt
from slicer.i18n import tr as _

from .confidence_volume import readConfidence, showConfidence
from .errors import SegmentationError, hintOf, unforeseen, withNames
from .lib_location import addLibraryToPath
from .scene_nodes import exists, shape
from .segmentation_output import SegmentationOutput
from .temporary_folder import makeTemporaryFolder, removeTemporaryFolder
from .volume_export import exportVolume, hasVoxels
from .worker_process import WorkerProcess

REFRESH_MS = 150
# After these errors the process is as good as before.
KEEPS_PROCESS = ("input", "weights", "output")


@dataclass(frozen=True)
class RunSettings:
    """How to segment; organs None takes all that the prior knows, modality None guesses.

    :param confidence: whether a volume shows how sure the network is of each voxel
    """

    prior: str = "abdomen"
    organs: tuple[str, ...] | None = None
    modality: str | None = None
    device: str = "auto"
    samples: int = 1
    seed: int = 0
    confidence: bool = False


@dataclass
class RunListener:
    """Whom a run tells: of stages (name, done, total), of its end, and of its failure."""

    progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    finished: Callable[[object], None] = lambda node: None
    failed: Callable[[SegmentationError], None] = lambda error: None


@dataclass
class SegmentationRun:
    """Writes the volume, starts the job, shows slices as they appear, and ends in one of three ways.

    It finishes, it fails, or it is stopped; the temporary folder goes in every case.
    """

    process: WorkerProcess
    volumeNode: object
    segmentationNode: object
    settings: RunSettings
    listener: RunListener = field(default_factory=RunListener)
    ended: bool = field(default=False, init=False)
    stopped: bool = field(default=False, init=False)
    _boxes: list = field(default_factory=list, init=False)
    _labels: object = field(default=None, init=False)
    # None until there is something to undo.
    _folder: Path | None = field(default=None, init=False)
    _output: SegmentationOutput | None = field(default=None, init=False)
    _timer: object = field(default=None, init=False)

    def start(self) -> None:
        """Returns at once; the listener is told the rest.

        Whatever is raised, nothing is left behind.

        :raises SegmentationError: the volume or the output cannot be used
        """
        _requireVolume(self.volumeNode)
        reason = SegmentationOutput.whyNot(self.volumeNode, self.segmentationNode)
        if reason:
            raise SegmentationError(reason)
        organs = organsOf(self.settings.prior, self.settings.organs)
        self._shape = shape(self.volumeNode)
        try:
            self._export()
            self._showLive(organs)
            self.process.send(self._job())
        except Exception:
            self._end(keepPartial=False)
            raise

    def _export(self) -> None:
        """Writes the volume for the child process.

        :raises SegmentationError: it cannot be written
        """
        try:
            self._folder = makeTemporaryFolder()
            exportVolume(self.volumeNode, self._folder / "volume.nrrd")
        except (OSError, KeyError) as error:
            message = _("The volume cannot be written to the temporary folder ({reason}).").format(
                reason=error
            )
            raise SegmentationError(message, _("Check the free disk space."), "output") from error
        self._live = self._folder / "labels.raw"

    def _showLive(self, organs: list) -> None:
        """From now on slices are shown as they appear."""
        self._output = SegmentationOutput(self.volumeNode, self.segmentationNode, organs)
        self.segmentationNode = self._output.node
        self._output.begin()
        # Slices are drawn in bundles: each drawing costs the same, however much changed.
        self._timer = qt.QTimer()
        self._timer.setInterval(REFRESH_MS)
        self._timer.connect("timeout()", self._refreshOrFail)
        self._timer.start()

    def _job(self) -> dict:
        """As the child process reads it."""
        return {
            "job": "segment",
            "image": str(self._folder / "volume.nrrd"),
            "live": str(self._live),
            "prior": self.settings.prior,
            "organs": list(self.settings.organs) if self.settings.organs is not None else None,
            "modality": self.settings.modality,
            "device": self.settings.device,
            "samples": self.settings.samples,
            "seed": self.settings.seed,
            "confidence": str(self._confidencePath) if self.settings.confidence else None,
        }

    @property
    def _confidencePath(self) -> Path:
        return self._folder / "confidence.nrrd"

    def take(self, event: dict) -> None:
        """Takes an event of the child process."""
        if self.ended:
            return
        kind = event["event"]
        if not exists(self.volumeNode) or not exists(self.segmentationNode):
            message = _("The volume or the output segmentation was deleted while it was in use.")
            self.stop()
            hint = _("Choose a volume and an output, and start again.")
            self.listener.failed(SegmentationError(message, hint))
        elif kind == "progress":
            self.listener.progress(event["stage"], event["done"], event["total"])
        elif kind == "slice":
            self._boxes.append(event["box"])
        elif kind == "done":
            try:
                self._finish(event["report"])
            except Exception as error:  # nobody above would tell the user
                self._fail(unforeseen(error))
        elif kind == "error":
            if event["code"] not in KEEPS_PROCESS:
                # Memory is freed, and packages that are installed meanwhile are seen, by a new process only.
                self.process.end()
            message = withNames(event["message"], {self._job()["image"]: self.volumeNode.GetName()})
            hint = hintOf(event["code"], event["hint"])
            self._fail(SegmentationError(message, hint, event["code"]))

    def stop(self, keepPartial: bool = False) -> bool:
        """Ends the child process and puts the scene back, or keeps what was found so far.

        :return: whether anything was kept
        """
        if self.ended:
            return False
        self.stopped = True
        self.process.end()
        if keepPartial:
            self._refresh()
        return self._end(keepPartial)

    def _refreshOrFail(self) -> None:
        try:
            self._refresh()
        except Exception as error:  # a timer has nobody above it
            self.process.end()
            self._fail(unforeseen(error))

    def _refresh(self) -> None:
        if not self._boxes or not exists(self.segmentationNode):
            return
        boxes, self._boxes = self._boxes, []
        if self._labels is None:
            self._labels = _openLabels(self._live, self._shape)
        self._output.update(self._labels, boxes)

    def _finish(self, report: dict) -> None:
        self._stopRefreshing()
        report["inputs"][0]["path"] = self.volumeNode.GetName()
        # Before the organs: what cannot be read must not leave half a result.
        confidence = readConfidence(self._confidencePath) if self.settings.confidence else None
        self._output.finish(_openLabels(self._live, self._shape), json.dumps(report))
        if confidence is not None:
            showConfidence(confidence, self.volumeNode, self.segmentationNode)
        self.ended = True
        self._removeFolder()
        self.listener.progress("write", 1, 1)
        self.listener.finished(self.segmentationNode)

    def _fail(self, error: SegmentationError) -> None:
        self._end(keepPartial=False)
        self.listener.failed(error)

    def _end(self, keepPartial: bool) -> bool:
        """Puts the scene back; says whether anything was kept."""
        if self.ended:
            return False
        self.ended = True
        self._stopRefreshing()
        kept = self._output is not None and self._output.discard(self._labels if keepPartial else None)
        self._removeFolder()
        return kept

    def _stopRefreshing(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            # Qt would keep the run alive, and with it its nodes, where Python's garbage collector does not see it. The
            # timer itself stays: this may happen within its signal.
            self._timer.disconnect("timeout()", self._refreshOrFail)

    def _removeFolder(self) -> None:
        # Windows does not remove a file that is mapped.
        self._labels = None
        if self._folder is not None:
            removeTemporaryFolder(self._folder)


def organsOf(prior: str, wanted: tuple[str, ...] | None) -> list:
    """The segments that a prior makes, with colours and terminology.

    :raises SegmentationError: the prior is not here, or does not know an organ
    """
    addLibraryToPath()
    from DiffuSAMLib.catalogue import locate
    from DiffuSAMLib.errors import DiffuSAMError
    from DiffuSAMLib.organ_names import chosen_organs
    from DiffuSAMLib.prior_files import read_header
    from DiffuSAMLib.terminology import segment_for

    if wanted is not None and not wanted:
        raise SegmentationError(_("No organ is chosen."), _("Choose at least one."))
    try:
        labels = read_header(locate(prior)).labels
        chosen = chosen_organs([label.name for label in labels], wanted)
    except DiffuSAMError as error:
        raise SegmentationError(error.message, hintOf(error.code, error.hint), error.code) from error
    return [segment_for(label.name, label.value) for label in labels if label.name in chosen]


def _requireVolume(volumeNode) -> None:
    if not hasVoxels(volumeNode):
        raise SegmentationError(_("The input volume is empty."), _("Load a CT or MR volume."))
    if volumeNode.GetImageData().GetNumberOfScalarComponents() != 1:
        message = _("{volume} is a colour or vector volume.").format(volume=volumeNode.GetName())
        raise SegmentationError(message, _("Choose a greyscale CT or MR volume."))


def _openLabels(path: Path, size: tuple[int, int, int]):
    """The labels that the child process writes, read as it writes them."""
    import numpy as np

    return np.memmap(path, np.uint8, "r", shape=size)
