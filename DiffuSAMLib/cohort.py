"""A folder of images in, a folder of segmentations and one table out."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .cohort_cases import FORMATS, CaseFiles, CohortCase, findings, finished_report, list_cases
from .cohort_cluster import (
    Cluster,
    default_workers,
    existing_cluster,
    local_cluster,
    require_dask,
    run_tasks,
)
from .cohort_table import TABLE_CSV, TABLE_JSON, CaseRow, write_table
from .cohort_worker import CaseOutcome, CaseTask
from .content_hashes import sha256_of
from .devices import choose_device
from .errors import InputError, OutputError
from .file_locks import held
from .files import is_temporary_of, output_error, remove, require_writable, temporary_end
from .json_values import to_json_value
from .prior_files import PriorHeader, read_header
from .progress import Progress, ProgressEvent
from .segment_file import SegmentRequest, label_values
from .segmenter import SegmentOptions
from .volumes import parse_modality
from .weights import prior_path

# A table of thousands of rows is not written for each of them.
TABLE_SECONDS = 5.0
HASHING_THREADS = 4
# In the folder of the results.
LOCK = ".cohort.lock"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CohortRequest:
    """What to segment, where to write it, and with what.

    Attributes:
        images: Folder of NIfTI, NRRD and MetaImage files and DICOM folders.
        output: Folder of the results; made where it is missing.
        ending: Of the label maps, one of `FORMATS`.
        prior: Name in the catalogue, or path of a prior file.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        modality: "CT" or "MR"; None asks each image.
        series: For DICOM folders with several series: place in the list or part of the description.
        confidence, preview: Whether to write a confidence map and a picture of each case.
        options: How to segment.
        cluster: Address of a Dask scheduler; None starts workers on this computer.
        workers: How many to start; None decides by cores and memory.
        retries: How often a case is tried again when its worker dies or something else than the case is at fault.
    """

    images: Path
    output: Path
    ending: str = "nii.gz"
    prior: str = "abdomen"
    device: str = "auto"
    modality: str | None = None
    series: str | None = None
    confidence: bool = False
    preview: bool = False
    options: SegmentOptions = field(default_factory=SegmentOptions)
    cluster: str | None = None
    workers: int | None = None
    retries: int = 2


def segment_cohort(
    request: CohortRequest,
    *,
    progress: Progress | None = None,
    on_case: Callable[[CaseRow], None] | None = None,
) -> list[CaseRow]:
    """Segments every image of a folder; a case that fails does not keep the others from being done.

    Cases that an earlier run has finished with the same prior, options and image content are not done again.
    The table, `cohort.csv` and `cohort.json`, is kept up to date, an interrupt included.

    Args:
        request: What to do.
        progress: Told of the stage "cohort", in cases that are to be done.
        on_case: Called with each case as it ends, at first those that were finished before.

    Returns:
        One row per case, by name; "failed" ones say why.

    Raises:
        InputError: The folders or an option cannot be used, or another run segments into the same folder.
        WeightsError: The prior cannot be used.
        OutputError: The table cannot be written.
        ClusterError: The workers cannot be reached, or were lost.
    """
    require_dask()
    _require_possible(request)
    request = replace(request, images=request.images.resolve(), output=request.output.resolve())
    prior = prior_path(request.prior)
    header = read_header(prior)
    labels = _labels(header, request.options)
    if prior == Path(request.prior):
        # A path, not a name: workers may have another working folder.
        request = replace(request, prior=str(prior.resolve()))
    if request.output == request.images:
        raise InputError("The results would lie among the images.", hint="Give another folder with -o.")
    cases = list_cases(request.images, leave_out=request.output)
    run = _Run(request, cases, labels, sha256_of(prior), header.name)
    _make_folder(request.output)
    refusal = InputError(
        f"Another run is segmenting into {request.output}.",
        hint="Wait until it has ended, or give another folder with -o.",
    )
    # Each would remove what the other is writing.
    with held(request.output / LOCK, refusal=refusal):
        run.begin()
        try:
            run.keep_finished(on_case)
            tasks = run.tasks()
            if tasks:
                with _cluster(request, len(tasks)) as cluster:
                    run.do(cluster, tasks, progress, on_case)
        finally:
            run.end()
    return run.rows


def _require_possible(request: CohortRequest) -> None:
    if request.ending not in FORMATS:
        raise InputError(f'"{request.ending}" is not a format.', hint=f"Choose one of {', '.join(FORMATS)}.")
    if request.workers is not None and request.cluster is not None:
        raise InputError(
            "--workers cannot change the number of workers of a running cluster.",
            hint="Give --dask or --workers, not both.",
        )
    if request.workers is not None and request.workers < 1:
        raise InputError(f"The number of workers must be 1 or more, not {request.workers}.")
    if request.retries < 0:
        raise InputError(f"The number of retries must be 0 or more, not {request.retries}.")
    parse_modality(request.modality)
    if request.cluster is None:
        choose_device(request.device)


def _labels(header: PriorHeader, options: SegmentOptions) -> dict[str, int]:
    """The organs that will be looked for, and the values of their labels.

    Checks what would otherwise fail in every case, after the results of an earlier run were removed.

    Raises:
        InputError: An option is out of range.
    """
    labels = label_values(header, options.organs)
    options.check(training_steps=int(header.config.get("training_steps", 1000)))
    return labels


class _Run:
    """The rows of a run, and the files that follow from them."""

    def __init__(
        self,
        request: CohortRequest,
        cases: Sequence[CohortCase],
        labels: dict[str, int],
        sha256: str,
        prior: str,
    ) -> None:
        self.rows = [CaseRow(case.name, case.image) for case in cases]
        self._request = request
        self._cases = cases
        self._files = [CaseFiles.of(case, request.output, request.ending) for case in cases]
        self._organs = list(labels)
        self._record = {"prior": {"name": prior, "sha256": sha256}, "labels": labels}
        self._settings: dict[str, Any] = to_json_value(
            {
                "prior_sha256": sha256,
                "options": asdict(request.options),
                "modality": request.modality,
                "series": request.series,
                "format": request.ending,
            }
        )
        self._written = 0.0

    def begin(self) -> None:
        """Makes the folder ready, and its table, which marks it as one of results.

        Raises:
            InputError: The folder holds files that no earlier run has written and this one would replace.
            OutputError: The folder cannot be written to.
        """
        folder = self._request.output
        tables = [folder / TABLE_CSV, folder / TABLE_JSON]
        for table in tables:
            require_writable(table)
        if not _is_cohort_table(folder / TABLE_JSON):
            for path in (*tables, *self._results()):
                if path.exists():
                    raise InputError(
                        f"{folder} already holds {path.name}, which no cohort run has written.",
                        hint="Give another folder with -o, so that nothing is lost.",
                    )
        self._remove_leftovers()
        self._write_table()

    def _results(self) -> Iterator[Path]:
        """Every file that the cases may have."""
        return (path for files in self._files for path in files.all)

    def keep_finished(self, on_case: Callable[[CaseRow], None] | None) -> None:
        """Takes over the cases that an earlier run has finished."""
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            reports = list(pool.map(self._finished, range(len(self._cases))))
        for index, report in enumerate(reports):
            if report is None:
                continue
            self.rows[index] = replace(
                self.rows[index],
                status="done",
                reused=True,
                seconds=float(report["cohort"]["seconds"]),
                **vars(findings(report)),
            )
            if on_case is not None:
                on_case(self.rows[index])

    def _finished(self, index: int) -> dict[str, Any] | None:
        try:
            return finished_report(
                self._cases[index], self._files[index], self._settings, self._wanted(index)
            )
        except InputError:
            # The worker will say what is wrong with the image.
            return None

    def _wanted(self, index: int) -> list[Path]:
        files, request = self._files[index], self._request
        optional = ((request.confidence, files.confidence), (request.preview, files.preview))
        return [files.output, *(path for asked, path in optional if asked)]

    def tasks(self) -> dict[int, CaseTask]:
        """What is still to be done, by the number of the case."""
        request = self._request
        return {
            index: CaseTask(
                SegmentRequest(
                    image=case.image,
                    output=self._files[index].output,
                    prior=request.prior,
                    device=request.device,
                    modality=request.modality,
                    series=request.series if case.image.is_dir() else None,
                    confidence=self._files[index].confidence if request.confidence else None,
                    preview=self._files[index].preview if request.preview else None,
                    options=request.options,
                ),
                self._files[index],
                self._settings,
            )
            for index, case in enumerate(self._cases)
            if self.rows[index].status == "pending"
        }

    def do(
        self,
        cluster: Cluster,
        tasks: dict[int, CaseTask],
        progress: Progress | None,
        on_case: Callable[[CaseRow], None] | None,
    ) -> None:
        """Has the tasks done, and keeps the table."""
        if self._request.cluster is not None:
            cluster.require_usable([self._request.images, self._request.output])
        numbers = list(tasks)
        ended = 0

        def end(position: int, outcome: CaseOutcome, attempts: int) -> None:
            nonlocal ended
            index = numbers[position]
            if outcome.found is None:
                self._files[index].remove()
            self.rows[index] = replace(
                self.rows[index],
                status="failed" if outcome.found is None else "done",
                attempts=attempts,
                seconds=outcome.seconds,
                error=outcome.error,
                **({} if outcome.found is None else vars(outcome.found)),
            )
            ended += 1
            if time.monotonic() - self._written > TABLE_SECONDS:
                try:
                    self._write_table()
                except OutputError as error:
                    # A spreadsheet may hold it, which is no reason to lose the other cases.
                    logger.warning("%s It is written again later.", error.message)
                    self._written = time.monotonic()
            if on_case is not None:
                on_case(self.rows[index])
            if progress is not None:
                progress(ProgressEvent("cohort", ended, len(tasks)))

        if progress is not None:
            progress(ProgressEvent("cohort", 0, len(tasks)))
        run_tasks(cluster, list(tasks.values()), retries=self._request.retries, on_end=end)

    def end(self) -> None:
        """Writes the table as it stands, also when the run was interrupted."""
        self._remove_leftovers()
        self._write_table()

    def _write_table(self) -> None:
        write_table(
            self._request.output, self.rows, self._organs, {**self._record, "settings": self._settings}
        )
        self._written = time.monotonic()

    def _remove_leftovers(self) -> None:
        """Removes what workers that were killed while writing have left: files that `atomic_path` began."""
        ends = {temporary_end(path) for path in self._results()}
        for path in self._request.output.glob(".????????.*"):
            if is_temporary_of(path, ends):
                remove(path)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(
            f"{folder} is a file, where a folder is expected.", hint="Give another name with -o."
        ) from error
    except OSError as error:
        raise output_error(folder, error) from error


def _is_cohort_table(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "schema_version" in content and "cases" in content


@contextmanager
def _cluster(request: CohortRequest, tasks: int) -> Iterator[Cluster]:
    if request.cluster is not None:
        with existing_cluster(request.cluster) as cluster:
            yield cluster
    else:
        workers = request.workers or default_workers(tasks, choose_device(request.device))
        with local_cluster(min(workers, tasks)) as cluster:
            yield cluster
