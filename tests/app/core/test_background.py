from __future__ import annotations

import threading

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff


def test_backoff_doubles_up_to_its_last_pause_and_begins_anew_after_a_success() -> None:
    backoff = Backoff(1.0, 5.0)
    assert [backoff.next() for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    backoff.reset()
    assert backoff.next() == 1.0


def test_a_step_that_fails_is_repeated_and_its_fault_is_kept_until_it_succeeds() -> None:
    outcomes = iter([ValueError("no room"), OSError(28, "full"), None])
    faults: list[str | None] = []
    done = threading.Event()

    def step() -> float | None:
        faults.append(loop.fault)
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        done.set()
        return None

    loop = BackgroundLoop("test", step, "the work is not done", Backoff(0.001, 0.001))
    loop.start()
    assert done.wait(30)
    loop.wake()  # nothing is left: the iterator raises StopIteration, which ends no thread
    loop.close()
    assert faults[0] is None
    assert str(faults[1]).startswith("the work is not done: ")
    assert len(faults) >= 3


def test_wake_calls_a_step_that_waits_and_close_ends_it() -> None:
    calls = threading.Semaphore(0)

    def step() -> None:
        calls.release()

    loop = BackgroundLoop("test", step, "nothing")
    loop.start()
    for _ in range(3):
        assert calls.acquire(timeout=30)
        loop.wake()
    loop.close()
    assert not loop.is_alive()
    loop.close()


def test_a_loop_that_was_never_started_closes() -> None:
    loop = BackgroundLoop("test", lambda: None, "nothing")
    loop.close()
    assert loop.is_closing()


def test_close_interrupts_a_pause_within_a_step() -> None:
    paused = threading.Event()
    interrupted: list[bool] = []

    def step() -> None:
        paused.set()
        interrupted.append(loop.pause(600))

    loop = BackgroundLoop("test", step, "nothing")
    loop.start()
    assert paused.wait(30)
    loop.close()
    assert interrupted == [True]


def test_a_close_just_before_a_step_is_not_forgotten() -> None:
    class ClosedMeanwhile(threading.Event):
        def clear(self) -> None:
            loop._closing.set()
            self.set()
            super().clear()

    loop = BackgroundLoop("test", lambda: None, "nothing")
    loop._woken = ClosedMeanwhile()
    loop.start()
    loop._thread.join(30)
    assert not loop.is_alive()
