from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from DiffuSAMLib.interrupts import Terminated, terminated_as_interrupt, uninterrupted


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """Whoever started the tests in the background had them ignore interrupts."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_sigterm_is_an_interrupt_within_the_block_only() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), terminated_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_handler_that_is_not_pythons_own_ends_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    install = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: install(number, handler) and None)
    with terminated_as_interrupt():
        pass


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_what_must_not_be_interrupted_is_ended_first(number: int, error: type[BaseException]) -> None:
    done: list[str] = []
    with terminated_as_interrupt():
        with pytest.raises(error), uninterrupted():
            done.append(str(signal.raise_signal(number)))
        assert done == ["None"]
        # As before again.
        with pytest.raises(error):
            signal.raise_signal(number)


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_an_error_within_the_block_is_told() -> None:
    with pytest.raises(ValueError, match="inside"), uninterrupted():
        int(f"inside {signal.raise_signal(signal.SIGINT)}")
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_another_thread_changes_no_handler() -> None:
    seen: list[object] = []

    def work() -> None:
        with uninterrupted(), terminated_as_interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
