"""Independent jobs side by side, each on its own share of the processor's cores."""

from __future__ import annotations

import ctypes
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")
Item = TypeVar("Item")

# Every lane holds a batch; more lanes than this would need too much memory at once.
MOST_LANES = 4


class _End:
    """A lane has no more to do."""


class _Failure:
    """What a lane raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Lanes(Generic[Result]):
    """Runs jobs on the threads of the processor, or one after another on any other device.

    PyTorch splits each single operation among its threads. The operations of a small network are too short for
    that; two threads with a batch of their own each are up to half as fast again as two that share one.

    Args:
        device: Where the jobs compute.
    """

    def __init__(self, device: torch.device) -> None:
        self.count = min(torch.get_num_threads(), MOST_LANES) if device.type == "cpu" else 1

    def run(self, jobs: Iterable[Iterable[Result]], take: Callable[[Result], None]) -> None:
        """Goes through all jobs and hands over what they yield.

        Args:
            jobs: Usually generators; each is gone through by one lane.
            take: Called in this thread, for the results of one job in their order, for those of different jobs as
                they come.

        Raises:
            BaseException: What a job or `take` raised; the other jobs are stopped where they are.
        """
        waiting = deque(jobs)
        lanes = min(self.count, len(waiting))
        if lanes < 2:
            for job in waiting:
                for result in job:
                    take(result)
            return
        # Only queues written in C: a lane that is stopped while it holds a lock of Python's would never release it.
        results: queue.SimpleQueue[Result | _Failure | _End] = queue.SimpleQueue()
        # A lane takes a place for each result, so that they do not pile up in memory where `take` is slow.
        places: queue.SimpleQueue[None] = queue.SimpleQueue()
        started: queue.SimpleQueue[None] = queue.SimpleQueue()
        total, gradients = torch.get_num_threads(), torch.is_grad_enabled()

        def work() -> None:
            try:
                # Each thread has its own number of PyTorch threads and its own gradient mode.
                torch.set_num_threads(max(1, total // lanes))
                # Makes it stay: a thread's first use of the number takes what any thread has set last.
                torch.get_num_threads()
                started.put(None)
                with torch.set_grad_enabled(gradients):
                    while waiting:
                        try:
                            job = waiting.popleft()
                        except IndexError:
                            break  # another lane was quicker
                        for result in job:
                            places.get()
                            results.put(result)
                results.put(_End())
            except SystemExit:
                return  # stopped from outside; where it comes later, a thread ends by it without a word, too
            except BaseException as error:
                results.put(_Failure(error))

        threads = [threading.Thread(target=work, name=f"lane {n}", daemon=True) for n in range(lanes)]
        try:
            for thread in threads:
                places.put(None)
                thread.start()
            for _ in threads:
                started.get()
            # What a lane has set is also what threads get that PyTorch meets later.
            torch.set_num_threads(total)
            running = lanes
            while running:
                found = results.get()
                if isinstance(found, _Failure):
                    raise found.error
                if isinstance(found, _End):
                    running -= 1
                else:
                    take(found)
                    places.put(None)
        except BaseException:
            waiting.clear()
            for thread in threads:
                _stop(thread)
                places.put(None)
            raise
        finally:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()


def _stop(thread: threading.Thread) -> None:
    """Lets a thread end as soon as the operation is over that it is at: batches of a large network take long."""
    if thread.is_alive() and thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def even_parts(count: int, *, most: int, lanes: int) -> list[range]:
    """0 to `count` in about equal ranges of at most `most`, as many for each lane if possible."""
    parts = -(-count // most)
    parts = min(count, -(-parts // lanes) * lanes)
    return [range(count * k // parts, count * (k + 1) // parts) for k in range(parts)]


def for_each_part(count: int, work: Callable[[slice], None], *, most: int) -> None:
    """Works on slices, organs or the like, some of them at a time, on all cores.

    Args:
        count: How many there are.
        work: Called with the numbers of some; what it finds, it keeps itself.
        most: At most so many at a time: bounds memory.

    Raises:
        BaseException: What `work` raised.
    """

    def done(numbers: range) -> Iterator[None]:
        work(slice(numbers.start, numbers.stop))
        yield None

    lanes: Lanes[None] = Lanes(torch.device("cpu"))
    parts = even_parts(count, most=most, lanes=lanes.count)
    lanes.run((done(numbers) for numbers in parts), lambda _: None)


def deal(items: Sequence[Item], weights: Sequence[float], *, lanes: int) -> list[list[Item]]:
    """Items in at most `lanes` hands of about equal weight, none of them empty."""
    hands: list[list[Item]] = [[] for _ in range(min(lanes, len(items)))]
    loads = [0.0] * len(hands)
    for index in sorted(range(len(items)), key=lambda k: -weights[k]):
        lightest = loads.index(min(loads))
        hands[lightest].append(items[index])
        loads[lightest] += weights[index]
    return [hand for hand in hands if hand]
