"""Training, for the panel and for scripts."""

from __future__ import annotations

import dataclasses

from slicer.i18n import tr as _

from .busy_logic import BusyLogic
from .errors import SegmentationError
from .training_export import TrainingCase, organCounts
from .training_run import LICENCE, TrainingListener, TrainingRun, TrainingSettings


class TrainingLogic(BusyLogic):
    """The part of the module's logic that trains; it uses its `process`."""

    _trainingRun: TrainingRun | None = None

    @property
    def training(self) -> bool:
        """Whether a prior is being trained."""
        return self._trainingRun is not None and not self._trainingRun.ended

    @property
    def finishingTraining(self) -> bool:
        """Whether a training was told to stop and to keep what it has learnt."""
        return self.training and self._trainingRun.finishing

    def train(
        self,
        cases: list[tuple],
        *,
        name: str,
        organs: list[str] | None = None,
        minutes: float = 30.0,
        iterations: int | None = None,
        licence: str = LICENCE,
        modality: str | None = None,
        start: str | None = None,
        device: str = "auto",
        seed: int = 0,
        unfinished: str = "refuse",
        replace: bool = False,
        wait: bool = True,
        listener: TrainingListener | None = None,
    ) -> str:
        """Trains a prior on labelled volumes of the scene.

        :param cases: pairs of a scalar volume node and its segmentation node
        :param name: of the new prior, as `segment` takes it
        :param organs: names of segments; None takes all that every segmentation has
        :param minutes: how long to train
        :param iterations: ends the training earlier
        :param licence: of the new prior
        :param modality: "CT" or "MR", of all volumes; None goes by DICOM, else by the values
        :param start: name of a prior to begin from; "none" begins anew, None takes the bundled one where it fits
        :param device: "auto", "cpu", "cuda", "cuda:N" or "mps"
        :param seed: of weights, sampling and noise
        :param unfinished: what to do with an unfinished run of that name: "refuse", "resume" or "restart"
        :param replace: whether a prior of that name may be replaced
        :param wait: returns when the prior can be used; otherwise at once
        :param listener: is told of progress and of the end
        :return: the name of the prior
        :raises SegmentationError: with a sentence on what is wrong and one on what to do
        """
        nodes = [TrainingCase(*case) for case in cases]
        if organs is None:
            organs = [organ for organ, count in organCounts(nodes).items() if count == len(nodes)]
        settings = TrainingSettings(
            name=name,
            organs=tuple(organs),
            licence=licence,
            minutes=minutes,
            iterations=iterations,
            modality=modality,
            start=start,
            device=device,
            seed=seed,
            unfinished=unfinished,
            replace=replace,
        )
        failures: list[SegmentationError] = []
        listener = listener or TrainingListener()
        if wait:
            listener = dataclasses.replace(listener, failed=failures.append)
        run = self.startTraining(nodes, settings, listener)
        if wait:
            self.waitFor(run)
            if failures:
                raise failures[0]
            if run.stopped:
                raise SegmentationError(_("The training was stopped."), code="stopped")
        return name

    def startTraining(
        self, cases: list[TrainingCase], settings: TrainingSettings, listener: TrainingListener
    ) -> TrainingRun:
        """As `train`, but returns at once.

        :raises SegmentationError: something else is running, or the cases, organs or name cannot be used
        """
        self.requireIdle()
        run = TrainingRun(self.process, cases, settings, listener)
        self._trainingRun = run
        try:
            run.start()
        except Exception:
            self._trainingRun = None
            raise
        return run

    def stopTraining(self, keep: bool = False) -> None:
        """Ends a training; with `keep` the prior is written first, and the listener is told when it is there."""
        if self.training:
            self._trainingRun.stop(keep)

    def takeTrainingEvent(self, event: dict) -> None:
        """Takes an event of the child process."""
        self._trainingRun.take(event)
        if not self.training:
            self._trainingRun = None  # it holds its nodes, which the scene may let go of
