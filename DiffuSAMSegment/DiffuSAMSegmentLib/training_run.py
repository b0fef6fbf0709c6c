"""Labelled volumes through the child process into a prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from slicer.i18n import tr as _

from .errors import SegmentationError, hintOf, withNames
from .lib_location import addLibraryToPath
from .segmentation_run import KEEPS_PROCESS
from .temporary_folder import makeTemporaryFolder, removeTemporaryFolder
from .training_export import TrainingCase, exportCase, whyNotTrain
from .worker_process import WorkerProcess

BACKBONE = "compact"
LICENCE = "As the training data"


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    :param name: of the new prior: letters, digits, dots, dashes and underscores
    :param organs: names of segments
    :param modality: of all volumes; None goes by DICOM, else by the values
    :param start: name of a prior to begin from; "none" begins anew, None takes the bundled one where it fits
    :param iterations: ends the training if it is reached before the minutes; None sets no such limit
    :param unfinished: what to do with an unfinished run of the same name: "refuse", "resume" or "restart"
    :param replace: whether a prior of the same name is replaced once the new one is complete
    """

    name: str
    organs: tuple[str, ...]
    licence: str = LICENCE
    minutes: float = 30.0
    iterations: int | None = None
    modality: str | None = None
    start: str | None = None
    device: str = "auto"
    seed: int = 0
    unfinished: str = "refuse"
    replace: bool = False

    def job(self, cases: list[dict]) -> dict:
        """As the child process reads it."""
        chosen = {
            "organs": list(self.organs),
            "name": self.name,
            "licence": self.licence,
            "backbone": BACKBONE,
            "minutes": self.minutes,
            "iterations": self.iterations,
            "modality": self.modality,
            "start": self.start,
            "device": self.device,
            "seed": self.seed,
            "unfinished": self.unfinished,
            "replace": self.replace or None,
        }
        stated = {name: value for name, value in chosen.items() if value is not None}
        return {"job": "train", "cases": cases, **stated}


@dataclass
class TrainingListener:
    """Whom a training tells of stages (name, done, total), of findings in the data (level, sentence), of its
    losses and validations (the events of the child process), of its end (the last event), and of its failure.
    """

    progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    checked: Callable[[str, str], None] = lambda level, sentence: None
    losses: Callable[[dict], None] = lambda event: None
    validated: Callable[[dict], None] = lambda event: None
    finished: Callable[[dict], None] = lambda event: None
    failed: Callable[[SegmentationError], None] = lambda error: None


@dataclass
class TrainingRun:
    """Writes the cases, starts the job and passes on what it tells.

    It finishes, by itself or because Stop and keep was pressed, it fails, or it is stopped; the temporary folder
    goes in every case. The nodes are not needed any more once `start` has returned.
    """

    process: WorkerProcess
    cases: list[TrainingCase]
    settings: TrainingSettings
    listener: TrainingListener = field(default_factory=TrainingListener)
    ended: bool = field(default=False, init=False)
    stopped: bool = field(default=False, init=False)
    finishing: bool = field(default=False, init=False)
    _folder: Path | None = field(default=None, init=False)
    # Of the nodes, by the files that were written of them.
    _names: dict[str, str] = field(default_factory=dict, init=False)

    def start(self) -> None:
        """Returns at once; the listener is told the rest.

        Whatever is raised, nothing is left behind.

        :raises SegmentationError: the cases, the organs or the name cannot be used
        """
        organs = list(self.settings.organs)
        problem = whyNotName(self.settings.name) or whyNotTrain(self.cases, organs)
        if problem:
            raise SegmentationError(problem)
        if ownPriorExists(self.settings.name) and not self.settings.replace:
            text = _("There is a prior called {name} already.").format(name=self.settings.name)
            raise SegmentationError(text, _("Choose another name, or replace it."), "weights")
        try:
            cases = self._export(organs)
            self.process.send(self.settings.job(_withOwnNames(cases)))
        except Exception:
            self._end()
            raise

    def _export(self, organs: list[str]) -> list[dict]:
        """Writes the volumes and their labels for the child process.

        :raises SegmentationError: they cannot be written, or a case shows none of the organs
        """
        try:
            self._folder = makeTemporaryFolder()
            cases = [
                exportCase(case, organs, self._folder, number, self.settings.modality)
                for number, case in enumerate(self.cases, start=1)
            ]
        except (OSError, KeyError) as error:
            text = _("The volumes cannot be written to the temporary folder ({reason}).").format(reason=error)
            raise SegmentationError(text, _("Check the free disk space."), "output") from error
        for case, written in zip(self.cases, cases):
            self._names[written["image"]] = case.volumeNode.GetName()
            self._names[written["labels"]] = case.segmentationNode.GetName()
        return cases

    def take(self, event: dict) -> None:
        """Takes an event of the child process."""
        if self.ended:
            return
        kind, listener = event["event"], self.listener
        if kind == "progress":
            listener.progress(event["stage"], event["done"], event["total"])
        elif kind == "check":
            case = f"{event['case']}: " if event["case"] else ""
            listener.checked(event["level"], case + withNames(event["message"], self._names))
        elif kind == "losses":
            listener.losses(event)
        elif kind == "validation":
            listener.validated(event)
        elif kind == "done":
            self._end()
            listener.finished(event)
        elif kind == "error":
            self._end()
            if event["code"] not in (*KEEPS_PROCESS, "unfinished", "interrupted"):
                # Memory is freed, and packages that are installed meanwhile are seen, by a new process only.
                self.process.end()
            message = withNames(event["message"], self._names)
            listener.failed(SegmentationError(message, _hint(event["code"], event["hint"]), event["code"]))

    def stop(self, keep: bool = False) -> None:
        """Ends the training.

        :param keep: the prior is written as it is now, which takes a moment; the listener is told when it is there
        """
        if self.ended:
            return
        if keep:
            self.finishing = True
            self.process.send({"job": "stop", "keep": True})
            return
        self.stopped = True
        # The process saves the run before it goes, so that a later one may go on from there.
        self.process.end(saving=True)
        self._end()

    def _end(self) -> None:
        self.ended = True
        if self._folder is not None:
            removeTemporaryFolder(self._folder)


def whyNotName(name: str) -> str:
    """Why a new prior cannot have this name; empty if it can."""
    if not name:
        return _("Give the new prior a name.")
    addLibraryToPath()
    from DiffuSAMLib.prior_names import LONGEST_PRIOR_NAME, is_prior_name

    if not is_prior_name(name):
        return _(
            "The name may have letters, digits, dots, dashes and underscores only, at most {most}, such as my-organs."
        ).format(most=LONGEST_PRIOR_NAME)
    if any(_sameName(weights, name) and not _isOwn(weights) for weights in _listed()):
        return _("{name} is the name of weights that come with the program; choose another.").format(
            name=name
        )
    return ""


def ownPriorExists(name: str) -> bool:
    """Whether the user has a prior of that name, trained here or imported."""
    return any(_sameName(weights, name) and _isOwn(weights) for weights in _listed())


def unfinishedTrainingExists(name: str) -> bool:
    """Whether a training of that name was saved before its end."""
    addLibraryToPath()
    from DiffuSAMLib.training_paths import checkpoint_path
    from DiffuSAMLib.weights_folders import prior_folder

    return checkpoint_path(prior_folder() / f"{name}.safetensors").exists()


def _listed():
    addLibraryToPath()
    from DiffuSAMLib.catalogue import list_weights

    return list_weights()


def _sameName(weights, name: str) -> bool:
    # Some file systems do not tell upper from lower case.
    return weights.entry.name.casefold() == name.casefold()


def _isOwn(weights) -> bool:
    # What can be downloaded has an address, what is bundled says so.
    return not weights.entry.bundled and weights.entry.url is None


def _withOwnNames(cases: list[dict]) -> list[dict]:
    """The cases with names that differ, as nodes may be called the same."""
    seen: dict[str, int] = {}
    for case in cases:
        name = case["name"]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            case["name"] = f"{name} ({seen[name]})"
    return cases


def _hint(code: str, hint: str) -> str:
    """What to do about an error, in terms of the panel instead of the command line."""
    if code == "packages":
        return _('Press "Train" again to install what is missing.')
    if code == "unfinished" or (code == "input" and "--device" not in hint):
        # What to do about an unfinished training is asked; other hints speak of files, where the user has nodes.
        return ""
    return hintOf(code, hint)
