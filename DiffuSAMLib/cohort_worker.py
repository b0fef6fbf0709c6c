"""What a worker process of a cohort does: one case at a time, with a prior that stays loaded."""

from __future__ import annotations

import json
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

import torch

from .cohort_cases import CaseFiles, CaseFindings, findings
from .content_hashes import sha256_of
from .errors import DiffuSAMError, InputError, WeightsError
from .files import atomic_path
from .json_values import to_json_value
from .segment_file import FileSegmenter, SegmentRequest
from .weights import prior_path

# Workers with several threads share both: cases follow one another in a process, whatever its threads.
_lock = threading.Lock()
_segmenter = FileSegmenter()


@dataclass(frozen=True)
class CaseTask:
    """What a worker needs to know of a case.

    Attributes:
        request: Image, prior, options, and the files to write except the report.
        files: Where all files of the case lie.
        settings: What the report says of the cohort, compared by `finished_report`.
        workers_per_host: Worker processes by host, among which the cores of a host are divided.
        threads: PyTorch's threads; 0 divides the cores of the host.
    """

    request: SegmentRequest
    files: CaseFiles
    settings: dict[str, Any]
    workers_per_host: dict[str, int] = field(default_factory=dict)
    threads: int = 0


@dataclass(frozen=True)
class CaseOutcome:
    """How an attempt ended.

    Attributes:
        seconds: Wall time.
        found: For the table; None when it failed.
        error: One sentence when it failed.
        final: Whether another attempt would fail the same way.
        weights: Whether the weights are at fault, so that no case can be done.
        details: The traceback of a fault of the program; else empty.
    """

    seconds: float
    found: CaseFindings | None = None
    error: str = ""
    final: bool = False
    weights: bool = False
    details: str = ""

    @classmethod
    def of_fault(cls, error: BaseException, *, seconds: float = 0.0, details: str = "") -> CaseOutcome:
        """How an attempt ended in which the program itself failed; another one may do better."""
        sentence = f"The program failed ({type(error).__name__}: {error})."
        return cls(seconds, error=sentence, details=details)


def segment_case(task: CaseTask) -> CaseOutcome:
    """Segments one case in a worker; every failure is an outcome, so that the worker goes on."""
    with _lock:
        started = time.perf_counter()
        try:
            # Of the calling thread only, hence each time.
            torch.set_num_threads(task.threads or _share_of_cores(task.workers_per_host))
            found, seconds = _segment(task, started)
        except DiffuSAMError as error:
            return CaseOutcome(
                time.perf_counter() - started,
                error=str(error),
                final=isinstance(error, InputError),
                weights=isinstance(error, WeightsError),
            )
        except Exception as error:
            seconds = time.perf_counter() - started
            return CaseOutcome.of_fault(error, seconds=seconds, details=traceback.format_exc())
        return CaseOutcome(seconds, found)


def _segment(task: CaseTask, started: float) -> tuple[CaseFindings, float]:
    """What was found, and the seconds that the case's report says it took."""
    if sha256_of(prior_path(task.request.prior)) != task.settings["prior_sha256"]:
        raise WeightsError(
            f"The prior {task.request.prior} of a worker is not the one that this run began with.",
            hint="Give every worker the same file, and leave it alone during a run.",
        )
    # What an earlier run with other settings left must not be taken for this run's if this one ends half way.
    task.files.remove()
    report = _segmenter.segment(task.request).to_json()
    seconds = time.perf_counter() - started
    report["cohort"] = {"settings": task.settings, "seconds": seconds}
    with atomic_path(task.files.report) as temporary:
        text = json.dumps(to_json_value(report), indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="ascii")
    return findings(report), seconds


def _share_of_cores(workers_per_host: dict[str, int]) -> int:
    from dask.system import CPU_COUNT
    from distributed import get_worker

    return max(1, CPU_COUNT // workers_per_host.get(host_of(get_worker().address), 1))


def host_of(address: str) -> str:
    """The computer of a worker whose address is such as "tcp://host:1234"."""
    return address.rpartition(":")[0].rpartition("/")[2]
