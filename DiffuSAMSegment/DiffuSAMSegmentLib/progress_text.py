"""What a run is doing, in words, and how long it will still take."""

from __future__ import annotations

import time

from slicer.i18n import tr as _

# Shares of a run on a CPU; only the time left depends on them.
_SHARES = {"read": 1, "load": 3, "encode": 34, "generate": 34, "propagate": 26, "write": 2}


def stageText(stage: str) -> str:
    """What a stage is called."""
    return {
        "read": _("Reading the volume"),
        "load": _("Loading the model"),
        "encode": _("Looking at the slices"),
        "generate": _("Generating memories"),
        "propagate": _("Segmenting"),
        "write": _("Finishing"),
        "download": _("Downloading"),
        "import": _("Checking the file"),
        "train": _("Training"),
    }.get(stage, stage)


def timeText(seconds: float) -> str:
    """A duration in words."""
    if seconds < 60:
        return _("{seconds} s").format(seconds=max(1, round(seconds)))
    return _("{minutes} min {seconds} s").format(minutes=int(seconds // 60), seconds=int(seconds % 60))


class RunProgress:
    """Turns the stages of a run into one percentage and the time left."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._stages = list(_SHARES)
        self._fraction = 0.0
        self._first: tuple[float, float] | None = None

    @property
    def percent(self) -> int:
        return int(100 * self._fraction)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    @property
    def secondsLeft(self) -> float | None:
        """None until there is something to judge by."""
        if self._first is None:
            return None
        began, at = self._first
        gained = self._fraction - at
        return (time.monotonic() - began) * (1 - self._fraction) / gained if gained > 0.02 else None

    def take(self, stage: str, done: int, total: int) -> None:
        """Takes a progress event."""
        if stage not in self._stages:
            return
        if stage == "generate" and "encode" in self._stages and self._fraction <= self._before("encode"):
            # The features were kept: there is nothing to encode in this run.
            self._stages.remove("encode")
        share = _SHARES[stage] / self._total * (done / total if total else 0)
        self._fraction = max(self._fraction, min(0.999, self._before(stage) + share))
        if stage in ("encode", "generate", "propagate") and self._first is None:
            # Reading and loading tell nothing about the speed of computing.
            self._first = (time.monotonic(), self._fraction)

    def text(self, stage: str) -> str:
        """Stage and time left, for the panel."""
        left = self.secondsLeft
        if left is None:
            return stageText(stage)
        return _("{stage}, about {time} left").format(stage=stageText(stage), time=timeText(left))

    @property
    def _total(self) -> int:
        return sum(_SHARES[stage] for stage in self._stages)

    def _before(self, stage: str) -> float:
        earlier = self._stages[: self._stages.index(stage)]
        return sum(_SHARES[name] for name in earlier) / self._total
