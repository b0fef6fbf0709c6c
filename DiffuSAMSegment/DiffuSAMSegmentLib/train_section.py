"""The section Train of the panel: examples of the scene in, a prior in the list out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass

import qt
import slicer
from slicer.i18n import tr as _

from .errors import SegmentationError, unforeseen
from .licence_consent import acceptsLicence
from .organ_list import OrganList
from .panel_lock import Lock
from .priors import PriorCard
from .progress_text import stageText, timeText
from .training_cases import CaseTable
from .training_export import TrainingCase, organCounts, whyNotTrain
from .training_plot import TrainingPlot
from .training_run import (
    BACKBONE,
    TrainingListener,
    TrainingSettings,
    ownPriorExists,
    unfinishedTrainingExists,
    whyNotName,
)

PLOT_HEIGHT = 190
OVERLAY_WIDTH = 380


@dataclass(frozen=True)
class TrainSectionCalls:
    """What the section asks the panel.

    :param install: whether the packages are there, asking to install them if they are not
    :param installing: whether they are being installed at this moment
    :param log: shows a line of the log
    :param changed: a training began or ended
    :param finished: a prior of this name is in the catalogue now
    """

    install: Callable[[], bool]
    installing: Callable[[], bool]
    log: Callable[[str], None]
    changed: Callable[[], None]
    finished: Callable[[str], None]


class TrainSection:
    """Binds the widgets whose names begin with `train`.

    :param ui: of the panel
    :param logic: of the module
    """

    def __init__(self, ui, logic, calls: TrainSectionCalls) -> None:
        self._ui = ui
        self._logic = logic
        self._calls = calls
        self._parameters = None
        self._cards: list[PriorCard] = []
        self._plot: TrainingPlot | None = None
        self._plotViews: list = []
        self._findings: list[str] = []
        self._name = ""
        self._finished = False
        self._updating = False
        self._cases = CaseTable(ui.trainCasesTable, self._onCasesChanged)
        self._organs = OrganList(ui.trainOrganList, self._onOrgansChanged)
        self._lock = Lock([ui.trainChoices], _("Stop the training first."))
        ui.addCaseButton.connect("clicked(bool)", lambda _checked=False: self._cases.addCase())
        ui.removeCaseButton.connect("clicked(bool)", lambda _checked=False: self._cases.removeCase())
        ui.trainStartComboBox.connect("currentIndexChanged(int)", self._onStartChanged)
        ui.trainButton.connect("clicked(bool)", self.onTrainButton)
        ui.keepTrainingButton.connect("clicked(bool)", self.onKeepButton)
        ui.stopTrainingButton.connect("clicked(bool)", self.onStopButton)
        ui.trainCollapsibleButton.connect("contentsCollapsed(bool)", lambda _collapsed: self.update())

    def setParameterNode(self, node) -> None:
        """From now on the section shows and changes this parameter node; None while the panel is hidden."""
        self._parameters = node
        self.update()

    def setPriors(self, cards: list[PriorCard]) -> None:
        """Takes the priors that are installed, of which some can be begun from."""
        self._cards = [card for card in cards if card.backbone == BACKBONE and not card.problem]
        self._updating = True
        self._ui.trainStartComboBox.clear()
        self._ui.trainStartComboBox.addItem(_("Nothing"))
        for card in self._cards:
            self._ui.trainStartComboBox.addItem(card.title)
        self._updating = False
        self.update()

    def update(self) -> None:
        """Brings what is not bound by name in line with the parameter node."""
        if self._parameters is None or self._updating:
            return
        self._updating = True
        cases = self.cases()
        self._cases.show(cases)
        counts = organCounts(cases)
        unchecked = [name for name in counts if name not in self.organs()]
        self._organs.show(tuple(counts), unchecked)
        self._explainOrgans(counts, len(cases))
        names = [card.name for card in self._cards]
        start = self._parameters.trainingStart
        self._ui.trainStartComboBox.currentIndex = names.index(start) + 1 if start in names else 0
        self._updating = False
        self._checkCanTrain()

    def cases(self) -> list[TrainingCase]:
        """The examples that the user chose."""
        volumes, segmentations = self._parameters.trainingVolumes, self._parameters.trainingSegmentations
        return [TrainingCase(*pair) for pair in zip(volumes, segmentations)]

    def organs(self) -> list[str]:
        """The checked organs: by default those that every segmentation has."""
        cases, parameters = self.cases(), self._parameters
        return [
            name
            for name, count in organCounts(cases).items()
            if name in parameters.trainingWanted
            or (count == len(cases) and name not in parameters.trainingSkipped)
        ]

    def fail(self, error: SegmentationError) -> None:
        """Says why no training can begin."""
        self._showIdle(str(error))
        self._calls.log(f"{error.code}: {error}")
        if error.code != "unfinished":  # of that the user is asked
            logging.error("DiffuSAM Segment: %s", error)

    def close(self) -> None:
        """The panel or the scene goes: nothing is shown any more; a training has been ended before."""
        self._discard(keepCurves=self._finished)
        self._findings = []
        self._ui.trainFindingsLabel.visible = False
        self._showIdle("")

    def onTrainButton(self, _checked: bool = False) -> None:
        """Begins, after the user agreed to what that costs."""
        if not self._calls.install():
            return
        if self._parameters is None or self._whatIsMissing():
            return  # the panel was left, or a case went, while packages were installed
        # Whatever it begins with, it learns on the bundled backbone.
        bundled = next((card for card in self._cards if card.bundled), None)
        if bundled is not None and not acceptsLicence(bundled):
            self._showIdle(_("The licence of the bundled model was not accepted."))
            return
        parameters = self._parameters
        settings = TrainingSettings(
            name=parameters.trainingName.strip(),
            organs=tuple(self.organs()),
            licence=parameters.trainingLicence.strip() or _("not stated"),
            minutes=parameters.trainingMinutes,
            start=parameters.trainingStart or "none",
            device=parameters.device.value,
        )
        if ownPriorExists(settings.name):
            text = _("There is a prior called {name} already. Replace it once the new one is ready?")
            if not slicer.util.confirmOkCancelDisplay(text.format(name=settings.name), _("Train")):
                return
            settings = dataclasses.replace(settings, replace=True)
        self._begin(self.cases(), settings)

    def onKeepButton(self, _checked: bool = False) -> None:
        """The prior is written as it is now."""
        self._logic.stopTraining(keep=True)
        self._ui.keepTrainingButton.enabled = False
        self._ui.keepTrainingButton.toolTip = _("The prior is being written.")
        self._ui.trainStatusLabel.text = _("Stopping; the prior is being written.")
        self._calls.log(_("Stop and keep."))

    def onStopButton(self, _checked: bool = False) -> None:
        """Nothing is kept but the state of the run."""
        self._logic.stopTraining()
        text = _("Stopped.")
        if unfinishedTrainingExists(self._name):
            text = _("Stopped. A training of the same name may go on from here.")
        self._discard()
        self._showIdle(text)
        self._calls.log(text)

    def _begin(self, cases: list[TrainingCase], settings: TrainingSettings) -> None:
        self._name = settings.name
        self._finished = False
        self._findings = []
        self._ui.trainFindingsLabel.visible = False
        self._showPlot(settings.name)
        self._showRunning()
        self._calls.log(_("Training {name} began.").format(name=settings.name))
        listener = TrainingListener(
            self._onProgress,
            self._onChecked,
            self._onLosses,
            self._onValidated,
            self._onFinished,
            lambda error: self._onFailed(error, cases, settings),
        )
        try:
            self._logic.startTraining(cases, settings, listener)
        except Exception as error:  # whatever it is, the section must be usable again
            self._onFailed(unforeseen(error), cases, settings)
        self._calls.changed()

    def _onProgress(self, stage: str, done: int, total: int) -> None:
        if stage == "train":
            self._ui.trainProgressBar.value = int(100 * done / max(1, total))
            self._enableKeep()
        elif not self._logic.finishingTraining:
            self._ui.trainStatusLabel.text = (
                _("Reading the examples") if stage == "read" else stageText(stage)
            )

    def _onChecked(self, level: str, sentence: str) -> None:
        self._calls.log(f"{level}: {sentence}")
        if level != "info":
            self._findings.append(sentence)
            self._ui.trainFindingsLabel.text = "\n".join(self._findings)
            self._ui.trainFindingsLabel.visible = True

    def _onLosses(self, event: dict) -> None:
        self._plot.addLosses(event)
        self._plotViews[0].visible = True
        if not self._logic.finishingTraining:
            text = _("Iteration {iteration} of about {iterations}, {time} left.").format(
                iteration=event["iteration"],
                iterations=event["iterations"],
                time=timeText(event["seconds_left"]),
            )
            self._ui.trainStatusLabel.text = text

    def _onValidated(self, event: dict) -> None:
        self._plot.addValidation(event)
        self._plotViews[1].visible = True
        if event["mean_dice"] is not None:
            self._calls.log(
                _("Iteration {iteration}: Dice {dice} on held-out slices.").format(
                    iteration=event["iteration"], dice=f"{event['mean_dice']:.2f}"
                )
            )
        picture = qt.QPixmap(event["overlay"]) if event["overlay"] else None
        if picture is not None and not picture.isNull():
            width = min(OVERLAY_WIDTH, picture.width())
            self._ui.trainOverlayLabel.setPixmap(picture.scaledToWidth(width, qt.Qt.SmoothTransformation))
            self._ui.trainOverlayLabel.visible = True

    def _onFinished(self, event: dict) -> None:
        self._finished = True
        text = _("{name} is ready after {iterations} iterations in {time}.").format(
            name=event["name"], iterations=event["iterations"], time=timeText(60 * event["minutes"])
        )
        if event["mean_dice"] is not None:
            text += " " + _("Dice on held-out slices: {dice}.").format(dice=f"{event['mean_dice']:.2f}")
        self._showIdle(text)
        self._calls.log(text)
        self._calls.finished(event["name"])

    def _onFailed(
        self, error: SegmentationError, cases: list[TrainingCase], settings: TrainingSettings
    ) -> None:
        self._discard()
        self.fail(error)
        if error.code == "unfinished":
            # Not from within the reading of events, which a dialog would hold up.
            qt.QTimer.singleShot(0, lambda: self._askAboutUnfinished(cases, settings))

    def _askAboutUnfinished(self, cases: list[TrainingCase], settings: TrainingSettings) -> None:
        if self._parameters is None or self._logic.training or self._logic.running:
            return  # the panel or the scene went meanwhile
        text = _(
            "There is an unfinished training of {name}. Go on with it?\n\n"
            "Yes: go on from where it stopped.\nNo: begin anew; what it had learnt is lost."
        )
        answer = slicer.util.messageBox(
            text.format(name=settings.name),
            windowTitle=_("Train"),
            icon=qt.QMessageBox.Question,
            standardButtons=qt.QMessageBox.Yes | qt.QMessageBox.No | qt.QMessageBox.Cancel,
        )
        unfinished = {qt.QMessageBox.Yes: "resume", qt.QMessageBox.No: "restart"}.get(answer)
        if unfinished is not None and self._parameters is not None:
            self._begin(cases, dataclasses.replace(settings, unfinished=unfinished))

    def _showRunning(self) -> None:
        ui = self._ui
        self._lock.close()
        ui.trainButton.visible = False
        ui.keepTrainingButton.visible = True
        ui.keepTrainingButton.enabled = False
        ui.keepTrainingButton.toolTip = _("Nothing has been learnt yet.")
        ui.stopTrainingButton.visible = True
        ui.trainProgressBar.value = 0
        ui.trainProgressBar.visible = True
        ui.trainStatusLabel.text = _("Starting")

    def _enableKeep(self) -> None:
        if not self._ui.keepTrainingButton.enabled and not self._logic.finishingTraining:
            self._ui.keepTrainingButton.enabled = True
            self._ui.keepTrainingButton.toolTip = _(
                "End the training now, and keep what was learnt as a prior."
            )

    def _showIdle(self, text: str) -> None:
        ui = self._ui
        self._lock.open()
        ui.trainButton.visible = True
        ui.keepTrainingButton.visible = False
        ui.stopTrainingButton.visible = False
        ui.trainProgressBar.visible = False
        ui.trainStatusLabel.text = text
        self._checkCanTrain()
        self._calls.changed()

    def _checkCanTrain(self) -> None:
        if self._logic.training or self._parameters is None:
            return
        missing = self._whatIsMissing()
        self._ui.trainButton.enabled = not missing
        self._ui.trainButton.toolTip = missing or _("Train a prior of this name on the examples.")

    def _whatIsMissing(self) -> str:
        if self._calls.installing():
            return _("Python packages are being installed; wait for the end.")
        if self._logic.running:
            return _("A volume is being segmented; stop it, or wait for its end.")
        return whyNotTrain(self.cases(), self.organs()) or whyNotName(self._parameters.trainingName.strip())

    def _explainOrgans(self, counts: dict[str, int], cases: int) -> None:
        self._ui.trainOrganList.blockSignals(True)
        for row, count in enumerate(counts.values()):
            text = _("In all segmentations.")
            if count < cases:
                text = _("In {count} of {cases} segmentations only.").format(count=count, cases=cases)
            self._ui.trainOrganList.item(row).setToolTip(text)
        self._ui.trainOrganList.blockSignals(False)

    def _onCasesChanged(self, cases: list[TrainingCase]) -> None:
        if self._parameters is None or self._updating:
            return
        with slicer.util.NodeModify(self._parameters.parameterNode):
            self._parameters.trainingVolumes = [case.volumeNode for case in cases]
            self._parameters.trainingSegmentations = [case.segmentationNode for case in cases]

    def _onOrgansChanged(self, unchecked: list[str]) -> None:
        if self._parameters is None or self._updating:
            return
        cases = self.cases()
        counts = organCounts(cases)
        with slicer.util.NodeModify(self._parameters.parameterNode):
            self._parameters.trainingSkipped = [n for n in unchecked if counts.get(n) == len(cases)]
            self._parameters.trainingWanted = [
                n for n, count in counts.items() if n not in unchecked and count < len(cases)
            ]

    def _onStartChanged(self, row: int) -> None:
        if self._parameters is not None and not self._updating and 0 <= row <= len(self._cards):
            self._parameters.trainingStart = self._cards[row - 1].name if row else ""

    def _showPlot(self, name: str) -> None:
        self._releaseViews()
        self._plot = TrainingPlot(name, self._logic.getParameterNode().parameterNode)
        if not self._plotViews:
            for _number in self._plot.views:
                view = slicer.qMRMLPlotView()
                view.setMRMLScene(slicer.mrmlScene)
                view.setMinimumSize(0, PLOT_HEIGHT)
                view.setMaximumSize(16777215, PLOT_HEIGHT)
                self._ui.trainCurves.layout().addWidget(view)
                self._plotViews.append(view)
        for view, node in zip(self._plotViews, self._plot.views):
            view.setMRMLPlotViewNode(node)
            view.visible = False
        self._ui.trainCurves.visible = True
        self._ui.trainOverlayLabel.visible = False

    def _releaseViews(self) -> None:
        for view in self._plotViews:
            view.setMRMLPlotViewNode(None)
        if self._plot is not None:
            self._plot.discardViews()

    def _discard(self, keepCurves: bool = False) -> None:
        """Nothing of the training is shown, and nothing is left in the scene but curves that are to be kept."""
        self._releaseViews()
        if self._plot is not None and not keepCurves:
            self._plot.discard()
        self._plot = None
        self._ui.trainCurves.visible = False
        self._ui.trainOverlayLabel.visible = False
