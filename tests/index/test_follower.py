"""The follower on a loop with a real thread: order, wake-up, failures, invalid entries, the end."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from index.errors import InvalidId, InvalidLog, LogReplaced
from index.flat import FlatIndex
from index.follower import BATCHES_PER_STEP, MAINTAIN_SECONDS, RETRY_FIRST, WATCH_SECONDS, Follower
from index.protocol import LogReader, OpenedIndex
from index.types import Embeddings, Ids, LogEntry, Op
from tests.index.deadline import DEADLINE, wait_until
from tests.index.memory_log import Log, Open
from tests.index.oracle import assert_holds, unit

D = 8
NEVER = 3600.0


def test_log_is_applied_and_search_sees_it(log: Log, index: FlatIndex, follow: Open) -> None:
    follower = follow()
    log.add(1, unit(2, D)[0])
    seq = log.add(2, unit(2, D)[1])
    assert follower.wait_until_applied(seq, DEADLINE)
    assert (follower.applied_seq, follower.lag, follower.error) == (2, 0, None)
    assert follower.wait_until_applied(log.remove(1), DEADLINE)
    assert_holds(index, {2: unit(2, D)[1]})


def test_follower_goes_on_after_the_given_seq(log: Log, index: FlatIndex, follow: Open) -> None:
    for i in range(10):
        log.add(i, unit(10, D)[i])
    assert follow(OpenedIndex(index, 7)).wait_until_applied(10, DEADLINE)
    assert_holds(index, {i: unit(10, D)[i] for i in (7, 8, 9)})


def test_gaps_in_the_log_are_fine(log: Log, index: FlatIndex, follow: Open) -> None:
    for seq in (3, 17, 2**40):
        log.append(LogEntry(seq, Op.ADD, seq, unit(1, D, seq % 99)[0]))
    assert follow(batch=1).wait_until_applied(2**40, DEADLINE)
    assert index.ntotal == 3


@pytest.mark.parametrize("batch", [1, 7, 64, 4096])
def test_any_batch_gives_the_state_of_the_log(log: Log, index: FlatIndex, follow: Open, batch: int) -> None:
    dice, vectors = np.random.default_rng(5), unit(500, D)
    stored: dict[int, Embeddings] = {}
    for i in range(500):
        id = int(dice.integers(40))
        if dice.random() < 0.3:
            log.remove(id)
            stored.pop(id, None)
        else:
            log.add(id, vectors[i])
            stored[id] = vectors[i]
    assert follow(batch=batch).wait_until_applied(500, DEADLINE)
    assert_holds(index, stored)


class Counting(FlatIndex):
    """Records the size of each addition."""

    def __init__(self, d: int) -> None:
        super().__init__(d)
        self.calls: list[int] = []

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        self.calls.append(len(ids))
        super().add(ids, vectors)


def test_batch_is_folded_to_the_last_entry_of_each_id(log: Log, follow: Open) -> None:
    counting = Counting(D)
    for i in range(1000):
        log.add(i % 5, unit(1, D, i)[0])
    assert follow(OpenedIndex(counting)).wait_until_applied(1000, DEADLINE)
    assert counting.calls == [5]


def test_waiting_for_an_entry_that_does_not_come_times_out(log: Log, follow: Open) -> None:
    follower = follow()
    assert not follower.wait_until_applied(1, 0.01)
    assert follower.wait_until_applied(0, 0)


def test_each_of_many_waiters_wakes_up(log: Log, follow: Open) -> None:
    follower = follow()
    answers: list[bool] = []
    waiters = [
        threading.Thread(target=lambda seq=seq: answers.append(follower.wait_until_applied(seq, DEADLINE)))
        for seq in range(1, 9)
    ]
    for waiter in waiters:
        waiter.start()
    for i in range(8):
        log.add(i, unit(8, D)[i])
    for waiter in waiters:
        waiter.join()
    assert answers == [True] * 8


@pytest.mark.parametrize("fault", [OSError("disk I/O error"), ValueError("bad row")])
def test_failing_read_is_shown_and_retried(log: Log, follow: Open, fault: Exception) -> None:
    follower = follow()
    assert follower.wait_until_applied(log.add(1, unit(1, D)[0]), DEADLINE)
    log.fault = fault
    seq = log.add(2, unit(1, D)[0])
    wait_until(lambda: follower.error is fault)
    assert not follower.wait_until_applied(seq, 0)
    log.fault = None
    assert follower.wait_until_applied(seq, DEADLINE)
    wait_until(lambda: follower.error is None)


class Flaky(FlatIndex):
    """An index that fails for a while, and then refuses one id."""

    failures = 3

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the index is away")
        if 13 in ids:
            raise InvalidId("13 is refused")
        super().add(ids, vectors)


def test_a_failing_index_is_retried_and_refused_entries_are_skipped(log: Log, follow: Open) -> None:
    flaky = Flaky(D)
    for i in range(10, 20):
        log.add(i, unit(20, D)[i])
    follower = follow(OpenedIndex(flaky))
    wait_until(lambda: follower.applied_seq == 10)
    assert (flaky.ntotal, follower.skipped) == (9, 1)


def invalid_entries() -> dict[str, LogEntry]:
    nan, zero = unit(1, D)[0], np.zeros(D, np.float32)
    nan[3] = np.nan
    return {
        "another width": LogEntry(1, Op.ADD, 1, unit(1, D + 1)[0]),
        "two rows": LogEntry(1, Op.ADD, 1, unit(1, D)),
        "not a number": LogEntry(1, Op.ADD, 1, nan),
        "zero": LogEntry(1, Op.ADD, 1, zero),
        "not unit": LogEntry(1, Op.ADD, 1, unit(1, D)[0] * np.float32(3)),
        "no vector": LogEntry(1, Op.ADD, 1, None),
        "raw bytes": LogEntry(1, Op.ADD, 1, b"\0" * 4 * D),  # type: ignore[arg-type]
        "doubles": LogEntry(1, Op.ADD, 1, unit(1, D)[0].astype(np.float64)),
        "negative id": LogEntry(1, Op.ADD, -1, unit(1, D)[0]),
        "id past int64": LogEntry(1, Op.REMOVE, 2**63),
        "removal with a vector": LogEntry(1, Op.REMOVE, 1, unit(1, D)[0]),
        "unknown op": LogEntry(1, "upsert", 1, unit(1, D)[0]),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("name", sorted(invalid_entries()))
def test_an_invalid_entry_is_skipped_counted_and_logged(
    log: Log, index: FlatIndex, follow: Open, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = invalid_entries()[name]
    log.add(1, unit(2, D)[0])
    log.append(LogEntry(2, bad.op, bad.id, bad.vector))
    log.add(2, unit(2, D)[1])
    follower = follow()
    assert follower.wait_until_applied(3, DEADLINE)
    assert (follower.skipped, follower.error) == (1, None)
    assert "skipped, seq [2]" in caplog.text
    assert_holds(index, dict(zip([1, 2], unit(2, D), strict=True)))  # the id keeps what it had before


def test_a_batch_of_invalid_entries_alone_is_passed(log: Log, index: FlatIndex, follow: Open) -> None:
    for _ in range(5):
        log.add(1, None)
    follower = follow(batch=2)
    assert follower.wait_until_applied(5, DEADLINE)
    assert (follower.skipped, index.ntotal) == (5, 0)


@pytest.fixture
def manual_follower(log: Log, index: FlatIndex) -> Follower:
    """A follower that only the test steps."""
    return Follower(OpenedIndex(index), log, "test")


def test_lag_counts_what_is_missing(log: Log, manual_follower: Follower) -> None:
    log.add(1, unit(1, D)[0])
    log.add(2, unit(1, D)[0])
    assert manual_follower.lag == 2
    manual_follower.step()
    assert manual_follower.lag == 0


def test_entries_out_of_order_are_an_error(log: Log, index: FlatIndex, manual_follower: Follower) -> None:
    log.append(LogEntry(2, Op.ADD, 1, unit(1, D)[0]), LogEntry(1, Op.ADD, 2, unit(1, D)[0]))
    manual_follower.step()
    assert isinstance(manual_follower.error, InvalidLog)
    assert (manual_follower.applied_seq, index.ntotal) == (0, 0)
    log.entries.sort(key=lambda entry: entry.seq)
    manual_follower.step()
    assert manual_follower.error is None
    assert manual_follower.applied_seq == 2
    log.read = lambda after_seq, limit: log.entries  # it ignores seq
    manual_follower.step()
    assert isinstance(manual_follower.error, InvalidLog)


def test_a_step_says_when_to_come_again(log: Log, index: FlatIndex) -> None:
    follower = Follower(OpenedIndex(index), log, "test", batch=2)
    assert follower.step() is None
    for i in range(2 * BATCHES_PER_STEP + 1):
        log.add(i, unit(1, D)[0])
    assert (follower.step(), follower.applied_seq) == (0.0, 2 * BATCHES_PER_STEP)
    assert (follower.step(), follower.lag) == (None, 0)
    log.fault = OSError("gone")
    pauses = [follower.step() for _ in range(8)]
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    log.fault = None
    assert (follower.step(), follower.error) == (None, None)


def test_close_wakes_waiters_and_may_be_repeated(index: FlatIndex, manual_follower: Follower) -> None:
    answers: list[bool] = []
    waiter = threading.Thread(target=lambda: answers.append(manual_follower.wait_until_applied(1, NEVER)))
    waiter.start()
    manual_follower.close()
    waiter.join(DEADLINE)
    manual_follower.close()
    assert answers == [False]
    assert index.ntotal == 0  # the index is still open


def test_maintenance_follows_each_step_and_is_repeated_when_it_fails(log: Log, index: FlatIndex) -> None:
    steps: list[int] = []

    def maintain(entries: LogReader, applied_seq: int) -> bool:
        steps.append(applied_seq)
        if len(steps) == 3:
            raise OSError("away")
        return len(steps) < 5

    follower = Follower(OpenedIndex(index, maintain=maintain), log, "test")
    seq = log.add(1, unit(1, D)[0])
    assert [follower.step() for _ in range(5)] == [0.0, 0.0, RETRY_FIRST, 0.0, MAINTAIN_SECONDS]
    assert steps == [seq] * 5
    assert follower.error is None


def test_a_follower_that_may_not_write_takes_over_how_far_another_is(log: Log, index: FlatIndex) -> None:
    log.add(1, unit(2, D)[0])
    far, may_write = 0, False
    follower = Follower(OpenedIndex(index, watch=lambda: far), log, "x", may_write=lambda: may_write)
    assert follower.step() == WATCH_SECONDS
    assert (follower.applied_seq, index.ntotal) == (0, 0)
    far = 1
    follower.step()
    assert (follower.applied_seq, index.ntotal) == (1, 0)
    log.add(2, unit(2, D)[1])
    may_write = True  # the other one has died
    follower.step()
    assert (follower.applied_seq, index.ntotal) == (2, 1)


@pytest.mark.parametrize("reused", [0, 1, 5])
def test_a_follower_stops_where_its_log_has_lost_its_end(log: Log, index: FlatIndex, follow: Open, reused: int) -> None:
    """Whether the log is still shorter, or has given the same numbers again."""
    vectors = unit(9, D)
    stopped, saved = threading.Event(), []

    def freeze(seq: int, mark: str = "", /) -> None:
        saved.append(seq)

    follower = follow(OpenedIndex(index, freeze=freeze), on_outdated=stopped.set)
    for id in range(3):
        seq = log.add(id, vectors[id])
    assert follower.wait_until_applied(seq, DEADLINE)
    log.lose(1)
    for id in range(3, 3 + reused):
        log.add(id, vectors[id])
    follower.notify()
    assert stopped.wait(DEADLINE)
    assert (follower.is_outdated, follower.applied_seq) == (True, 3)
    assert isinstance(follower.error, LogReplaced)
    assert not follower.wait_until_applied(2, 0.01)
    assert follower.step() is None
    assert_holds(index, dict(enumerate(vectors[:3])))  # nothing of the other log came in
    follower.close()
    assert saved == []


def test_a_snapshot_goes_on_with_its_mark_alone(log: Log, index: FlatIndex, follow: Open) -> None:
    log.add(1, unit(1, D)[0])
    mark = log.marks[-1]
    log.lose(0)
    log.add(2, unit(2, D)[1])
    assert follow(OpenedIndex(index, 1, mark=log.marks[-1])).wait_until_applied(1, DEADLINE)
    outdated = follow(OpenedIndex(FlatIndex(D), 1, mark=mark))
    wait_until(lambda: outdated.is_outdated)
