"""The follower with real threads: order, wake-up, failures, poison, the end."""

from __future__ import annotations

import gc
import sqlite3
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from index.errors import InvalidId, InvalidLog
from index.flat import FlatIndex
from index.follower import Follower, ReadLog
from index.types import Embeddings, Ids, LogEntry, Op
from tests.index.deadline import DEADLINE, until
from tests.index.memory_log import Log, Open
from tests.index.oracle import assert_holds, numbers, unit

D = 8
NEVER = 3600.0


def test_log_is_applied_and_search_sees_it(log: Log, index: FlatIndex, follow: Open) -> None:
    follower = follow()
    log.add(1, unit(2, D)[0])
    seq = log.add(2, unit(2, D)[1])
    assert follower.wait_for(seq, DEADLINE)
    assert (follower.applied_seq, follower.lag, follower.alive(), follower.error) == (2, 0, True, None)
    assert follower.wait_for(log.remove(1), DEADLINE)
    assert_holds(index, {2: unit(2, D)[1]})


def test_follower_goes_on_after_the_given_seq(log: Log, index: FlatIndex, follow: Open) -> None:
    for i in range(10):
        log.add(i, unit(10, D)[i])
    assert follow(applied_seq=7).wait_for(10, DEADLINE)
    assert_holds(index, {i: unit(10, D)[i] for i in (7, 8, 9)})


def test_gaps_in_the_log_are_fine(log: Log, index: FlatIndex, follow: Open) -> None:
    for seq in (3, 17, 2**40):
        log.append(LogEntry(seq, Op.ADD, seq, unit(1, D, seq % 99)[0]))
    assert follow(batch=1).wait_for(2**40, DEADLINE)
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
    assert follow(batch=batch).wait_for(500, DEADLINE)
    assert_holds(index, stored)


class Counting(FlatIndex):
    """Says how often it was changed."""

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
    assert follow(index=counting).wait_for(1000, DEADLINE)
    assert counting.calls == [5]


def test_commit_by_another_connection_is_noticed_by_polling(log: Log, follow: Open) -> None:
    follower = follow()
    until(lambda: log.looks > 3)
    reads = log.reads
    looks = log.looks
    until(lambda: log.looks > looks + 3)
    assert log.reads == reads  # a quiet database is not read
    seq = log.add(1, unit(1, D)[0])
    until(lambda: follower.applied_seq == seq)  # nobody called notify or wait_for


def test_without_changed_every_poll_reads(log: Log, follow: Open) -> None:
    follower = follow(changed=None)
    seq = log.add(1, unit(1, D)[0])
    until(lambda: follower.applied_seq == seq)


def test_notify_wakes_at_once_even_if_changed_sees_nothing(log: Log, follow: Open) -> None:
    follower = follow(poll=NEVER, poll_idle=NEVER, changed=lambda: 1)
    until(lambda: log.reads > 0)
    log.add(1, unit(1, D)[0])
    follower.notify()
    until(lambda: follower.applied_seq == 1)


def test_wait_for_wakes_the_follower(log: Log, follow: Open) -> None:
    follower = follow(poll=NEVER, poll_idle=NEVER)
    until(lambda: log.reads > 0)
    assert follower.wait_for(log.add(1, unit(1, D)[0]), DEADLINE)


def test_wait_for_what_does_not_come_times_out(log: Log, follow: Open) -> None:
    follower = follow()
    assert not follower.wait_for(1, 0.01)
    assert follower.wait_for(0, 0)


def test_many_waiters_are_all_woken(log: Log, follow: Open) -> None:
    follower = follow()
    answers: list[bool] = []
    waiters = [
        threading.Thread(target=lambda seq=seq: answers.append(follower.wait_for(seq, DEADLINE))) for seq in range(1, 9)
    ]
    for waiter in waiters:
        waiter.start()
    for i in range(8):
        log.add(i, unit(8, D)[i])
    for waiter in waiters:
        waiter.join()
    assert answers == [True] * 8


def test_lag_counts_what_is_missing(log: Log, index: FlatIndex) -> None:
    follower = Follower(index, log.read, head=log.head, applied_seq=0)
    log.add(1, unit(1, D)[0])
    log.add(2, unit(1, D)[0])
    assert follower.lag == 2
    assert not follower.alive()


@pytest.mark.parametrize("fault", [OSError("disk I/O error"), ValueError("bad row")])
def test_failing_read_is_shown_and_retried(log: Log, follow: Open, fault: Exception) -> None:
    follower = follow()
    assert follower.wait_for(log.add(1, unit(1, D)[0]), DEADLINE)
    log.fault = fault
    seq = log.add(2, unit(1, D)[0])
    until(lambda: follower.error is fault)
    assert follower.alive()
    assert not follower.wait_for(seq, 0)
    log.fault = None
    assert follower.wait_for(seq, DEADLINE)
    until(lambda: follower.error is None)


def test_entries_out_of_order_are_an_error_not_a_loop(log: Log, index: FlatIndex, follow: Open) -> None:
    entries = [LogEntry(2, Op.ADD, 1, unit(1, D)[0]), LogEntry(1, Op.ADD, 2, unit(1, D)[0])]
    follower = follow(read=lambda after_seq, limit: entries)
    until(lambda: isinstance(follower.error, InvalidLog))
    assert follower.applied_seq == 0
    assert index.ntotal == 0
    entries.sort(key=lambda entry: entry.seq)
    follower.notify()
    assert follower.wait_for(2, DEADLINE)
    log.version += 1
    until(lambda: isinstance(follower.error, InvalidLog))  # the same ones once more: a reader that ignores seq


class Flaky(FlatIndex):
    """An engine that is away for a while, and then strict about one id."""

    away = 3

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        if self.away:
            self.away -= 1
            raise ConnectionError("the engine is away")
        if 13 in ids:
            raise InvalidId("13 is not liked here")
        super().add(ids, vectors)


def test_index_that_fails_is_retried_and_what_it_refuses_is_skipped(log: Log, follow: Open) -> None:
    flaky = Flaky(D)
    for i in range(10, 20):
        log.add(i, unit(20, D)[i])
    follower = follow(index=flaky)
    until(lambda: follower.applied_seq == 10)
    assert (flaky.ntotal, follower.skipped, follower.alive()) == (9, 1, True)


def poison() -> dict[str, LogEntry]:
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


@pytest.mark.parametrize("name", sorted(poison()))
def test_poison_is_skipped_counted_and_logged(
    log: Log, index: FlatIndex, follow: Open, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = poison()[name]
    log.add(1, unit(2, D)[0])
    log.append(LogEntry(2, bad.op, bad.id, bad.vector))
    log.add(2, unit(2, D)[1])
    follower = follow()
    assert follower.wait_for(3, DEADLINE)
    assert (follower.skipped, follower.alive(), follower.error) == (1, True, None)
    assert "skipped, seq [2]" in caplog.text
    assert_holds(index, dict(zip([1, 2], unit(2, D), strict=True)))  # the id keeps what it had before


def test_batch_of_nothing_but_poison_is_passed(log: Log, index: FlatIndex, follow: Open) -> None:
    for _ in range(5):
        log.add(1, None)
    follower = follow(batch=2)
    assert follower.wait_for(5, DEADLINE)
    assert (follower.skipped, index.ntotal) == (5, 0)


def test_dead_thread_is_not_alive_and_keeps_its_error(log: Log, follow: Open) -> None:
    follower = follow()
    assert follower.wait_for(log.add(1, unit(1, D)[0]), DEADLINE)
    log.fault = SystemExit("pulled the plug")
    until(lambda: not follower.alive())
    assert follower.error is log.fault
    assert not follower.wait_for(99, NEVER)  # and nobody waits for it
    follower.close()


def test_close_is_quick_joins_and_may_be_repeated(log: Log, index: FlatIndex) -> None:
    follower = Follower(index, log.read, head=log.head, poll=NEVER, poll_idle=NEVER)
    follower.close()  # before start
    follower = Follower(index, log.read, head=log.head, poll=NEVER, poll_idle=NEVER)
    follower.start()
    closers = [threading.Thread(target=follower.close) for _ in range(3)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(DEADLINE)
        assert not closer.is_alive()
    follower.close()
    assert not follower.alive()
    assert follower.error is None
    assert index.ntotal == 0  # the index is still open


def test_close_does_not_wait_for_a_retry(log: Log, follow: Open) -> None:
    follower = follow()
    log.fault = OSError("gone")
    until(lambda: follower.error is log.fault)
    follower.close()
    assert not follower.alive()


def test_follower_is_freed_after_close(log: Log) -> None:
    index = FlatIndex(D)
    follower = Follower(index, log.read, head=log.head)
    follower.start()
    follower.close()
    gone = weakref.ref(follower)
    del follower
    gc.collect()
    assert gone() is None


def test_sqlite_log_written_by_another_connection_is_followed(tmp_path: Path, index: FlatIndex, follow: Open) -> None:
    path = tmp_path / "log.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY AUTOINCREMENT, op TEXT, id INT, vector BLOB)")
    reader = sqlite3.connect(path, check_same_thread=False)

    def read(after_seq: int, limit: int) -> list[LogEntry]:
        rows = reader.execute("SELECT * FROM log WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit))
        return [
            LogEntry(seq, Op(op), id, None if blob is None else np.frombuffer(blob, np.float32))
            for seq, op, id, blob in rows
        ]

    def changed() -> int:
        return int(reader.execute("PRAGMA data_version").fetchone()[0])

    follower = follow(read=read, changed=changed)
    for i in range(50):
        writer.execute("INSERT INTO log (op, id, vector) VALUES ('add', ?, ?)", (i, unit(50, D)[i].tobytes()))
    writer.execute("INSERT INTO log (op, id) VALUES ('remove', 7)")
    until(lambda: follower.applied_seq == 51)  # by polling alone
    assert_holds(index, {i: v for i, v in enumerate(unit(50, D)) if i != 7})
    index.remove(numbers(7))
    follower.close()
    reader.close()
    writer.close()


def test_upkeep_is_done_between_the_looks_and_tried_again_when_it_fails(log: Log, follow: Open) -> None:
    steps: list[int] = []

    def tend(read: ReadLog, applied_seq: int) -> bool:
        steps.append(applied_seq)
        if len(steps) == 3:
            raise OSError("away")
        return len(steps) < 10

    log.add(1, unit(1, 8)[0])
    follower = follow(tend=tend)
    until(lambda: len(steps) >= 10)
    seq = log.add(2, unit(1, 8)[0])
    assert follower.wait_for(seq, 10)
    until(lambda: steps[-1] == seq)
    assert follower.error is None
