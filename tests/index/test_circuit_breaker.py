"""The breaker: after failures in a row calls fail at once, one tries now and then, a success ends it."""

from __future__ import annotations

import pytest

from index.circuit_breaker import FAILURES, PAUSE_FIRST, PAUSE_LAST, CircuitBreaker
from index.errors import RemoteUnavailable


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("the engine", clock)


def open_breaker(breaker: CircuitBreaker) -> None:
    for _ in range(FAILURES):
        breaker.allow_call()
        breaker.record_failure()


def test_a_single_failure_stops_no_one(breaker: CircuitBreaker) -> None:
    assert not breaker.record_failure()
    breaker.allow_call()
    assert not breaker.is_open


def test_successes_between_failures_keep_it_closed(breaker: CircuitBreaker) -> None:
    for _ in range(10):
        breaker.record_failure()
        breaker.record_success()
    breaker.allow_call()


def test_failures_in_a_row_make_calls_fail_at_once(breaker: CircuitBreaker) -> None:
    open_breaker(breaker)
    assert breaker.is_open
    with pytest.raises(RemoteUnavailable, match=r"the engine does not answer; the next try is in 0\.5 s"):
        breaker.allow_call()


def test_after_the_pause_one_caller_tries_and_the_others_do_not_wait_for_it(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    open_breaker(breaker)
    clock.now += PAUSE_FIRST
    breaker.allow_call()
    with pytest.raises(RemoteUnavailable):
        breaker.allow_call()


def test_a_success_closes_it(breaker: CircuitBreaker, clock: Clock) -> None:
    open_breaker(breaker)
    clock.now += PAUSE_FIRST
    breaker.allow_call()
    breaker.record_success()
    for _ in range(3):
        breaker.allow_call()


def test_each_vain_try_doubles_the_pause_up_to_a_bound(breaker: CircuitBreaker, clock: Clock) -> None:
    open_breaker(breaker)
    pauses = []
    for _ in range(8):
        waited = 0.0
        while True:
            try:
                breaker.allow_call()
                break
            except RemoteUnavailable:
                clock.now += 0.25
                waited += 0.25
        pauses.append(waited)
        breaker.record_failure()
    assert pauses == [0.5, 1, 2, 4, 8, PAUSE_LAST, PAUSE_LAST, PAUSE_LAST]


def test_one_that_tried_and_never_came_back_is_not_waited_for(breaker: CircuitBreaker, clock: Clock) -> None:
    open_breaker(breaker)
    clock.now += PAUSE_FIRST
    breaker.allow_call()
    clock.now += PAUSE_FIRST
    breaker.allow_call()
