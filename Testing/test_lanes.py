from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from DiffuSAMLib.lanes import MOST_LANES, Lanes, deal, even_parts, for_each_part

THREADS = 4
CPU = torch.device("cpu")
# Far longer than any of the runs takes.
PATIENCE_S = 30


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    """PyTorch has some to share out, whatever the computer has."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def lanes_of(count: int) -> Lanes[Any]:
    lanes: Lanes[Any] = Lanes(CPU)
    lanes.count = count
    return lanes


def raised_by(
    lanes: Lanes[Any], jobs: Iterable[Iterable[Any]], take: Callable[[Any], None]
) -> BaseException | None:
    """What a run raises; in a thread of its own, since a run that cannot stop its lanes waits for them for ever."""
    raised: list[BaseException | None] = []

    def work() -> None:
        try:
            lanes.run(jobs, take)
        except BaseException as error:
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the run does not come to its end"
    return raised[0]


def lanes_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lane ")]


def threads_elsewhere() -> int:
    """The number that a thread gets which PyTorch has not met yet."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def numbered(job: int, results: int, *, pause: float = 0.0) -> Iterator[tuple[int, int]]:
    for number in range(results):
        time.sleep(pause)
        yield job, number


def too_long(ended: list[str]) -> Iterator[str]:
    """Has a result at once, and then computes for longer than a test should take."""
    yield "first"
    for _ in range(500):
        time.sleep(0.01)
    ended.append("too long")


# Runs that come to their end.


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_of_a_job_come_in_their_order_and_none_is_lost(count: int) -> None:
    taken: list[tuple[int, int]] = []

    def take(result: tuple[int, int]) -> None:
        time.sleep(0.001)  # so that results wait
        taken.append(result)

    sizes = [40, 10, 0, 10, 1]
    # The first job is quicker than the others, so that several of its results wait at once.
    jobs = [numbered(job, size, pause=0.005 * (job > 0)) for job, size in enumerate(sizes)]
    assert raised_by(lanes_of(count), jobs, take) is None
    for job, size in enumerate(sizes):
        assert [number for of, number in taken if of == job] == list(range(size))
    assert len(taken) == sum(sizes)


def test_jobs_go_side_by_side_and_are_taken_in_the_thread_that_runs_them() -> None:
    together = threading.Barrier(3)

    def job() -> Iterator[int]:
        together.wait(PATIENCE_S)
        yield threading.get_ident()

    lanes: set[int] = set()
    takers: set[int] = set()

    def take(lane: int) -> None:
        lanes.add(lane)
        takers.add(threading.get_ident())

    lanes_of(3).run([job() for _ in range(3)], take)
    assert len(lanes) == 3
    assert takers == {threading.get_ident()}


def test_results_do_not_pile_up_where_they_are_taken_slowly() -> None:
    made = taken = most = 0

    def job() -> Iterator[int]:
        nonlocal made
        for number in range(50):
            made += 1
            yield number

    def take(_result: int) -> None:
        nonlocal taken, most
        time.sleep(0.005)
        most = max(most, made - taken)
        taken += 1

    lanes_of(2).run([job(), job()], take)
    # A place for each lane, and what each has in hand.
    assert most <= 4


@pytest.mark.parametrize("gradients", [False, True])
def test_every_lane_has_its_share_of_the_threads_and_the_gradient_mode(gradients: bool) -> None:
    seen: list[tuple[int, bool]] = []

    def job() -> Iterator[tuple[int, bool]]:
        yield torch.get_num_threads(), torch.is_grad_enabled()

    with torch.set_grad_enabled(gradients):
        lanes_of(2).run([job() for _ in range(4)], seen.append)
    assert seen == [(THREADS // 2, gradients)] * 4


def test_a_run_leaves_no_thread_and_the_number_of_threads_as_it_was() -> None:
    lanes_of(2).run([numbered(job, 5) for job in range(4)], lambda _: None)
    assert lanes_left() == []
    assert torch.get_num_threads() == threads_elsewhere() == THREADS


def test_any_other_device_has_one_lane_and_the_processor_a_few() -> None:
    assert Lanes(torch.device("cuda")).count == 1
    assert Lanes(CPU).count == THREADS
    torch.set_num_threads(MOST_LANES + 2)
    assert Lanes(CPU).count == MOST_LANES


# Errors.


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["job", "take"])
def test_an_error_stops_the_other_lanes_and_is_raised(where: str, kind: type[BaseException]) -> None:
    error = kind("on purpose")
    ended: list[str] = []

    def failing() -> Iterator[str]:
        time.sleep(0.1)  # the others are at work by then
        if where == "job":
            raise error
        yield "last"

    def take(result: str) -> None:
        if result == "last":
            raise error

    assert raised_by(lanes_of(3), [too_long(ended), failing(), too_long(ended)], take) is error
    assert ended == []
    assert lanes_left() == []
    assert threads_elsewhere() == THREADS


def test_a_lane_that_waits_until_its_result_is_taken_is_stopped_too() -> None:
    def take(_result: tuple[int, int]) -> None:
        time.sleep(0.1)  # by then both lanes wait
        raise ValueError("on purpose")

    error = raised_by(lanes_of(2), [numbered(0, 100), numbered(1, 100)], take)
    assert isinstance(error, ValueError)
    assert lanes_left() == []


# How work is shared out.


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
@pytest.mark.parametrize("most", [1, 4, 8])
@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_even_parts_cover_everything_once(count: int, most: int, lanes: int) -> None:
    parts = even_parts(count, most=most, lanes=lanes)
    assert [number for part in parts for number in part] == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes, default=0) <= most
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert len(parts) % lanes == 0 or len(parts) == count


def test_each_part_is_worked_on_once() -> None:
    done = np.zeros(100, int)

    def work(part: slice) -> None:
        assert len(done[part]) <= 8
        done[part] += 1

    for_each_part(len(done), work, most=8)
    assert done.tolist() == [1] * 100


def test_what_goes_wrong_in_a_part_is_raised() -> None:
    def work(part: slice) -> None:
        if part.start == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        for_each_part(5, work, most=1)


@pytest.mark.parametrize(
    "weights",
    [[], [5.0], [1.0, 1.0], [0.0, 0.0, 0.0], [9.0, 1.0, 1.0, 1.0], [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]],
    ids=len,
)
@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_hands_are_of_about_equal_weight_and_none_is_empty(weights: list[float], lanes: int) -> None:
    hands = deal(range(len(weights)), weights, lanes=lanes)
    assert all(hands)
    assert len(hands) <= lanes
    assert sorted(item for hand in hands for item in hand) == list(range(len(weights)))
    loads = [sum(weights[item] for item in hand) for hand in hands]
    assert max(loads, default=0) - min(loads, default=0) <= max(weights, default=0)


def test_the_heaviest_items_are_dealt_first() -> None:
    assert deal("abcde", [1.0, 1.0, 1.0, 1.0, 4.0], lanes=2) == [["e"], ["a", "b", "c", "d"]]
