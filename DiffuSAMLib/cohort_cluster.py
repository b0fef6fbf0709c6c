"""Spreading the cases of a cohort over the workers of a Dask cluster."""

from __future__ import annotations

import logging
import os
import queue
import signal
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from . import __version__
from .cohort_worker import CaseOutcome, CaseTask, host_of, segment_case
from .errors import DiffuSAMError, WeightsError

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

logger = logging.getLogger(__name__)

# A worker holds an image, its features and logits; a scan of 500 slices takes about this much.
WORKER_BYTES = 4 << 30
CONNECT_SECONDS = 20
# How long a cluster may be without any worker before the run is given up.
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 1.0
# Starting a worker imports PyTorch, which takes its time on a busy computer.
START_SECONDS = "180s"
# Ctrl-C in a terminal reaches every process; it is this one that ends the others.
_IGNORE_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


class ClusterError(DiffuSAMError):
    """A cluster that cannot be reached or used, or was lost."""

    code = "cluster"


@dataclass(frozen=True)
class Cluster:
    """A connection to a scheduler.

    Attributes:
        client: Dask's.
        threads: PyTorch's threads in each worker; 0 divides the cores of each worker's host.
    """

    client: Client
    threads: int = 0

    def addresses(self) -> list[str]:
        """The workers there are now.

        Raises:
            ClusterError: The connection was lost.
        """
        try:
            return list(self.client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, ValueError, RuntimeError) as error:
            raise _lost() from error

    def require_usable(self, folders: Sequence[Path]) -> None:
        """Checks that every worker has this version of the package and sees the folders.

        Raises:
            ClusterError: One does not, or there is no worker.
        """
        texts, wanted = [str(folder) for folder in folders], __version__

        # Inside another function, so that Dask sends its code: a worker without the package can answer too.
        def look() -> str:
            import os

            try:
                import DiffuSAMLib
            except ImportError:
                return "does not have the package diffusam-segment"
            if DiffuSAMLib.__version__ != wanted:
                return f"has version {DiffuSAMLib.__version__} of diffusam-segment, not {wanted}"
            missing = [text for text in texts if not os.path.isdir(text)]  # noqa: PTH112
            return f"does not see the folder {missing[0]}" if missing else ""

        answers: dict[str, Any] = self.client.run(look, on_error="return")
        if not answers:
            raise ClusterError(
                "The Dask cluster has no workers.", hint="Start some with dask worker ADDRESS."
            )
        for address, answer in answers.items():
            if answer:
                raise ClusterError(
                    f"The worker {address} {answer}.",
                    hint="Workers need the same package and a file system shared with this computer.",
                )


def require_dask() -> None:
    """Checks that Dask is installed.

    Raises:
        ClusterError: It is not.
    """
    for name in ("distributed", "cryptography"):
        if find_spec(name) is None:
            raise ClusterError(
                f"A cohort needs the Python package {name}, which is not installed.",
                hint="Run: pip install distributed cryptography",
            )


@contextmanager
def existing_cluster(address: str) -> Iterator[Cluster]:
    """Connects to a scheduler, which stays when the block ends, as do its workers.

    Raises:
        ClusterError: There is none at this address.
    """
    from distributed import Client

    with _quiet_dask():
        try:
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(
                f"There is no Dask scheduler at {address}.", hint="Give its address, such as tcp://host:8786."
            ) from error
        try:
            yield Cluster(client)
        finally:
            client.close(timeout=CONNECT_SECONDS)


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Keeps Dask's log off the terminal: it would repeat at length what is told in a sentence."""
    loggers = [
        logging.getLogger(name)
        for name in logging.root.manager.loggerDict
        if name.partition(".")[0] in ("distributed", "tornado")
    ]
    levels = [(each, each.level) for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in levels:
            each.setLevel(level)


@contextmanager
def local_cluster(workers: int) -> Iterator[Cluster]:
    """Starts worker processes on this computer; they end with the block, or with this process.

    The scheduler and the workers listen on 127.0.0.1 only, and talk under a key that is made for the run and
    never written: else any user of this computer could have the scheduler run code.

    Raises:
        ClusterError: The processes do not start.
    """
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    settings = {
        # Whether a case is tried again is decided here, not by the scheduler.
        "distributed.scheduler.allowed-failures": 0,
        "distributed.comm.timeouts.connect": START_SECONDS,
        # A worker that reads a large image for long may be silent.
        "distributed.scheduler.worker-ttl": None,
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    with ExitStack() as stack:
        stack.enter_context(_quiet_dask())
        stack.enter_context(dask.config.set(settings))
        try:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                security=Security.temporary(),
                silence_logs=logging.CRITICAL,
                # The operating system decides what is too much: Dask would end workers for a large image.
                memory_limit=None,
                dashboard_address=None,
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                local_directory=stack.enter_context(TemporaryDirectory(prefix="diffusam-")),
                preload=[_IGNORE_INTERRUPTS],
            )
        except (OSError, RuntimeError) as error:
            raise ClusterError(f"The worker processes do not start ({error}).") from error
        try:
            with Client(cluster, set_as_default=False) as client:
                yield Cluster(client, max(1, free_cores() // workers))
        finally:
            _end_workers(cluster)
            cluster.close(timeout=CONNECT_SECONDS)


def _end_workers(cluster: LocalCluster) -> None:
    """Ends the processes at once: Dask would wait for a case that is being done, after an interrupt for example."""
    for nanny in list(cluster.workers.values()):
        nanny.auto_restart = False
        if nanny.pid is not None:
            # A process that has gone already is what is wanted.
            with suppress(OSError):
                os.kill(nanny.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def free_cores() -> int:
    """The cores that this process may use; `OMP_NUM_THREADS` can lower the number."""
    from dask.system import CPU_COUNT

    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(told), CPU_COUNT) if told.isdigit() and int(told) > 0 else int(CPU_COUNT)


def default_workers(cases: int, device: str) -> int:
    """How many local workers: one for every two cores and 4 GiB of memory; one for a GPU, which they would share."""
    from distributed.system import MEMORY_LIMIT

    if device != "cpu":
        return 1
    return max(1, min(cases, free_cores() // 2, int(MEMORY_LIMIT) // WORKER_BYTES))


def run_tasks(
    cluster: Cluster,
    tasks: Sequence[CaseTask],
    *,
    retries: int,
    on_end: Callable[[int, CaseOutcome, int], None],
) -> None:
    """Has every task done, at most one at a time by each worker.

    A task whose worker dies, or that fails for another reason than its input, is tried again on whichever worker
    is free. When the block is left early, tasks that no worker has begun are withdrawn.

    Args:
        cluster: Where.
        tasks: What.
        retries: How often a task is tried again.
        on_end: Called with (index of the task, its outcome, attempts) as tasks end.

    Raises:
        ClusterError: The scheduler, or all workers for two minutes, were lost.
        WeightsError: A worker cannot use the weights.
    """
    waiting = deque((index, 0) for index in range(len(tasks)))
    running: dict[Future, tuple[int, int]] = {}
    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    last_seen = time.monotonic()
    try:
        while waiting or running:
            addresses = cluster.addresses()
            if addresses:
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > PATIENCE_SECONDS:
                raise ClusterError("The Dask cluster has lost all its workers.", hint=_GO_ON)
            while waiting and len(running) < len(addresses):
                index, attempts = waiting.popleft()
                future = _submit(cluster, tasks[index], addresses)
                running[future] = index, attempts
                future.add_done_callback(ended.put)
            try:
                future = ended.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            index, attempts = running.pop(future)
            outcome, deaths = _outcome(future)
            attempts += deaths or 1
            if outcome.details:
                logger.info("%s\n%s", tasks[index].request.image, outcome.details)
            if outcome.weights:
                raise WeightsError(outcome.error)
            if outcome.found is not None or outcome.final or attempts > retries:
                on_end(index, outcome, attempts)
            else:
                logger.info("%s: %s Trying again.", tasks[index].request.image, outcome.error)
                waiting.append((index, attempts))
    finally:
        if running:
            try:
                cluster.client.cancel(list(running))
            except Exception:  # Dask raises many kinds, and the reason for leaving is under way already.
                logger.info("The tasks could not be withdrawn.", exc_info=True)


_GO_ON = "Run the same command again: finished cases are kept."


def _submit(cluster: Cluster, task: CaseTask, addresses: Sequence[str]) -> Future:
    hosts = Counter(map(host_of, addresses))
    task = replace(task, threads=cluster.threads, workers_per_host=dict(hosts))
    return cluster.client.submit(segment_case, task, key=f"diffusam-{uuid.uuid4().hex}", pure=False)


def _outcome(future: Future) -> tuple[CaseOutcome, int]:
    """What became of a task, and how many workers died of it."""
    from distributed import KilledWorker

    if future.status == "finished":
        return future.result(), 0
    if future.status != "error":
        raise _lost()
    error = future.exception()
    if isinstance(error, KilledWorker):
        deaths = error.allowed_failures + 1
        sentence = "The worker process died, perhaps for want of memory."
        return CaseOutcome(0.0, error=f"{sentence} Try fewer workers (--workers)."), deaths
    return CaseOutcome.of_fault(error), 0


def _lost() -> ClusterError:
    return ClusterError("The connection to the Dask scheduler was lost.", hint=_GO_ON)
