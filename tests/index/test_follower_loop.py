"""One thread that steps many followers: who is stepped, when, and what a fault of one does to the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from index.flat import FlatIndex
from index.follower import Follower
from index.follower_loop import BATCHES_PER_STEP, FollowerLoop
from index.types import Embeddings
from tests.index.deadline import DEADLINE, until
from tests.index.memory_log import Log
from tests.index.oracle import assert_holds, unit

D = 8
SLOW = 3600.0


class Many:
    """Logs under numbers, and a driver that follows those that are attached."""

    def __init__(self, count: int) -> None:
        self.logs = [Log() for _ in range(count)]
        self.indexes = [FlatIndex(D) for _ in range(count)]
        self.grown: set[int] = set()
        self.version = 0
        self.fault: Exception | None = None
        self.driver: FollowerLoop[int] = FollowerLoop(lambda: self.version, self.news)
        self.followers = [self.follower(n) for n in range(count)]
        self.driver.start()

    def follower(self, n: int) -> Follower:
        log = self.logs[n]
        return Follower(
            self.indexes[n], log.read, head=log.head, name=str(n), batch=4, wake=lambda: self.driver.wake(n)
        )

    def news(self) -> list[int]:
        if self.fault:
            raise self.fault
        grown, self.grown = self.grown, set()
        return sorted(grown)

    def attach(self, *numbers: int) -> None:
        for n in numbers:
            self.driver.attach(n, self.followers[n])

    def add(self, n: int, id: int, vector: Embeddings) -> int:
        """One more entry, told by the version of the database alone."""
        seq = self.logs[n].add(id, vector)
        self.grown.add(n)
        self.version += 1
        return seq


@pytest.fixture
def many() -> Iterator[Many]:
    many = Many(50)
    yield many
    many.driver.close()
    for follower in many.followers:
        follower.close()


def test_one_thread_follows_all_logs(many: Many) -> None:
    before = threading.active_count()
    many.attach(*range(50))
    for n in range(50):
        many.add(n, n, unit(1, D)[0])
    until(lambda: all(follower.applied_seq == 1 for follower in many.followers))
    for n in range(50):
        assert_holds(many.indexes[n], {n: unit(1, D)[0]})
    assert threading.active_count() == before
    assert many.driver.alive()


def test_what_was_there_before_it_was_attached_is_applied(many: Many) -> None:
    seq = many.logs[3].add(1, unit(1, D)[0])
    many.attach(3)
    assert many.followers[3].wait_for(seq, DEADLINE)


def test_only_logs_that_have_grown_are_read(many: Many) -> None:
    many.attach(0, 1)
    until(lambda: all(log.reads for log in many.logs[:2]))
    reads = many.logs[1].reads
    many.add(0, 1, unit(1, D)[0])
    until(lambda: many.followers[0].applied_seq == 1)
    assert many.logs[1].reads == reads


def test_waiting_for_an_entry_wakes_it_before_the_news_come(many: Many) -> None:
    many.attach(0)
    until(lambda: many.logs[0].reads > 0)
    seq = many.logs[0].add(1, unit(1, D)[0])  # the version does not tell
    assert many.followers[0].wait_for(seq, DEADLINE)


def test_a_detached_one_is_not_stepped_any_more(many: Many) -> None:
    many.attach(0)
    until(lambda: many.logs[0].reads > 0)
    many.driver.detach(0)
    many.driver.detach(0)
    reads = many.logs[0].reads
    many.add(0, 1, unit(1, D)[0])
    many.driver.wake(0)
    many.attach(1)
    seq = many.add(1, 1, unit(1, D)[0])
    assert many.followers[1].wait_for(seq, DEADLINE)
    assert many.logs[0].reads == reads


def test_a_log_that_fails_is_tried_again_and_holds_up_nobody(many: Many) -> None:
    many.logs[0].fault = RuntimeError("the disk is away")
    many.attach(0, 1)
    until(lambda: many.followers[0].error is not None)
    assert many.followers[1].wait_for(many.add(1, 1, unit(1, D)[0]), DEADLINE)
    assert many.followers[0].alive()
    many.logs[0].fault = None
    assert many.followers[0].wait_for(many.add(0, 1, unit(1, D)[0]), DEADLINE)
    assert many.followers[0].error is None


def test_news_that_fail_are_asked_for_again(many: Many) -> None:
    many.attach(0)
    until(lambda: many.logs[0].reads > 0)
    many.fault = RuntimeError("the disk is away")
    many.add(0, 1, unit(1, D)[0])
    many.driver.attach(1, many.followers[1])  # is stepped all the same
    until(lambda: many.logs[1].reads > 0)
    many.fault = None
    until(lambda: many.followers[0].applied_seq == 1)


def test_a_long_log_is_applied_in_turns_to_its_end(many: Many) -> None:
    for id in range(BATCHES_PER_STEP * 4 * 5):
        many.logs[0].add(id, unit(1, D)[0])
    many.attach(0, 1)
    assert many.followers[0].wait_for(many.logs[0].head(), DEADLINE)
    assert many.indexes[0].ntotal == BATCHES_PER_STEP * 4 * 5


def test_a_driven_follower_that_is_closed_has_ended(many: Many) -> None:
    many.attach(0)
    many.driver.detach(0)
    many.followers[0].close()
    assert not many.followers[0].alive()
    assert not many.followers[0].wait_for(1, SLOW)


def test_a_step_dies_of_what_is_no_exception_and_the_driver_says_so(
    many: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    many.logs[0].fault = SystemExit()
    many.attach(0)
    until(lambda: not many.driver.alive())
    many.driver.detach(0)  # nobody waits for it for ever
