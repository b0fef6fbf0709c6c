"""The button that segments, and what the panel says while it does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from slicer.i18n import tr as _

from .errors import SegmentationError, unforeseen
from .licence_consent import acceptsLicence
from .modality_choice import ModalityChoice
from .panel_lock import Lock
from .parameter_node import Frames
from .priors import PriorCard
from .progress_text import RunProgress, timeText
from .segmentation_output import reportOf
from .segmentation_run import RunListener
from .sequence_frame import browserOf
from .volume_export import hasVoxels

# What to do on Stop can be chosen while something runs.
LOCKED = (
    *(f"{name}CollapsibleButton" for name in ("inputs", "organs", "outputs")),
    "deviceComboBox",
    "qualityComboBox",
    "confidenceCheckBox",
    "resetButton",
)


@dataclass(frozen=True)
class RunSectionCalls:
    """What the section asks the panel.

    :param install: whether the packages are there, asking to install them if they are not
    :param installing: whether they are being installed at this moment
    :param log: shows a line of the log
    :param card: of the chosen prior, or None
    :param changed: a run began or ended
    :param finished: there is a result to show
    """

    install: Callable[[], bool]
    installing: Callable[[], bool]
    log: Callable[[str], None]
    card: Callable[[], PriorCard | None]
    changed: Callable[[], None]
    finished: Callable[[], None]


class RunSection:
    """Binds *Segment organs* with the progress, the status and *Show 3D*.

    :param ui: of the panel
    :param logic: of the module
    :param modality: what the input volume is taken for
    """

    def __init__(self, ui, logic, modality: ModalityChoice, calls: RunSectionCalls) -> None:
        self._ui = ui
        self._logic = logic
        self._modality = modality
        self._calls = calls
        self._parameters = None
        self._lock = Lock([getattr(ui, name) for name in LOCKED], _("Stop the run first."))
        self.progress = RunProgress()
        self.frame = (0, 1)
        ui.segmentButton.connect("clicked(bool)", self.onSegmentButton)

    def setParameterNode(self, node) -> None:
        """From now on the section goes by this parameter node; None while the panel is hidden."""
        self._parameters = node

    def update(self) -> None:
        """Enables what can be pressed, and says of the rest what is missing."""
        self._checkCanShow3D()
        if self._logic.running:
            self._showStop()
            return
        self._ui.segmentButton.text = _("Segment organs")
        if self._parameters is None:
            return
        missing = self._whatIsMissing()
        self._ui.segmentButton.enabled = not missing
        self._ui.segmentButton.toolTip = missing or _("Find the checked organs in the volume.")

    def onSegmentButton(self, _checked: bool = False) -> None:
        """Segment organs, or Stop."""
        if self._logic.running:
            self._stop()
            return
        if not self._calls.install():
            return
        if self._parameters is None or self._whatIsMissing():
            return  # the panel was left, or the volume went, while packages were installed
        card = self._calls.card()
        if not acceptsLicence(card):
            self.showIdle(_("The licence of the prior was not accepted; choose another one, or train one."))
            return
        parameters = self._parameters
        organs = [name for name in card.organs if name not in parameters.skippedOrgans]
        self.progress = RunProgress()
        self.frame = (0, 1)
        self._showRunning()
        self._calls.log(_("Started on {volume}.").format(volume=parameters.inputVolume.GetName()))
        try:
            segmentationNode = self._logic.segment(
                parameters.inputVolume,
                organs=organs,
                segmentationNode=parameters.outputSegmentation,
                prior=parameters.prior,
                modality=self._modality.of(parameters),
                device=parameters.device.value,
                samples=parameters.quality.value,
                confidence=parameters.confidence,
                allFrames=parameters.frames is Frames.ALL and browserOf(parameters.inputVolume) is not None,
                wait=False,
                listener=RunListener(self._onProgress, self._onFinished, self.fail),
                onFrame=self._onFrame,
            )
            if self._logic.running:
                parameters.outputSegmentation = segmentationNode
                self.update()
        except Exception as error:  # whatever it is, the panel must be usable again
            self.fail(unforeseen(error))

    def fail(self, error: SegmentationError) -> None:
        """Says what went wrong."""
        self.showIdle(str(error))
        self._calls.log(f"{error.code}: {error}")
        logging.error("DiffuSAM Segment: %s", error)

    def showIdle(self, text: str) -> None:
        """Nothing runs; the text says how it ended."""
        self._ui.progressBar.visible = False
        self._ui.statusLabel.text = text
        self._lock.open()
        self.update()
        self._calls.changed()

    def showInstalling(self) -> None:
        """Packages are being installed: nothing can be started."""
        self._ui.statusLabel.text = _("Installing packages; this takes minutes.")
        self.update()
        self._calls.changed()

    def _showRunning(self) -> None:
        self._showStop()
        self._ui.progressBar.value = 0
        self._ui.progressBar.visible = True
        self._ui.statusLabel.text = _("Starting")
        self._lock.close()
        self._calls.changed()

    def _showStop(self) -> None:
        self._ui.segmentButton.text = _("Stop")
        self._ui.segmentButton.enabled = True
        self._ui.segmentButton.toolTip = _("End the computation; it takes a moment.")

    def _stop(self) -> None:
        kept = self._logic.stop(self._parameters.keepPartial)
        self.showIdle(_("Stopped; what was found so far was kept.") if kept else _("Stopped."))
        self._calls.log(_("Stopped."))

    def _onProgress(self, stage: str, done: int, total: int) -> None:
        self.progress.take(stage, done, total)
        frame, frames = self.frame
        self._ui.progressBar.value = int((100 * frame + self.progress.percent) / frames)
        text = self.progress.text(stage)
        if frames > 1:
            text = _("Frame {frame} of {frames}: {text}").format(frame=frame + 1, frames=frames, text=text)
        self._ui.statusLabel.text = text

    def _onFrame(self, frame: int, frames: int) -> None:
        self.frame = (frame, frames)
        self.progress = RunProgress()

    def _onFinished(self, segmentationNode) -> None:
        report = reportOf(segmentationNode)
        found = sum(organ["present"] for organ in report["organs"])
        text = _("{found} of {asked} organs found in {time}.").format(
            found=found, asked=len(report["organs"]), time=timeText(self.progress.elapsed)
        )
        self.showIdle(text)
        self._calls.log(text)
        self._calls.finished()

    def _checkCanShow3D(self) -> None:
        missing = ""
        if self._logic.running:
            # Surfaces of organs that still change would be made again with every slice.
            missing = _("Wait for the end of the run, or stop it.")
        elif self._parameters is None or self._parameters.outputSegmentation is None:
            missing = _("Segment organs first.")
        self._ui.show3DButton.setLocked(bool(missing))
        self._ui.show3DButton.toolTip = missing or _("Show the organs in the 3D view.")

    def _whatIsMissing(self) -> str:
        card = self._calls.card()
        if self._calls.installing():
            return _("Python packages are being installed; wait for the end.")
        if self._logic.training:
            return _("A prior is being trained; stop it, or wait for its end.")
        if not hasVoxels(self._parameters.inputVolume):
            return _("Choose an input volume.")
        if card is None:
            return _('Choose a prior; "Models..." lists what there is.')
        if card.problem:
            return card.problem
        if all(name in self._parameters.skippedOrgans for name in card.organs):
            return _("Check at least one organ.")
        return ""
