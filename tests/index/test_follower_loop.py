"""One thread that steps many followers: which, when, and what a fault of one does to the others."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index.flat import FlatIndex
from index.follower import BATCHES_PER_STEP, Follower
from index.follower_loop import FollowerLoop
from index.protocol import OpenedIndex
from index.types import Embeddings, LogEntry, Op
from tests.index.deadline import DEADLINE, wait_until
from tests.index.memory_log import Log, Open
from tests.index.oracle import assert_holds, unit

D = 8
SLOW = 3600.0


class Many:
    """Logs under numbers, and a loop that follows those that are attached."""

    def __init__(self, count: int) -> None:
        self.logs = [Log() for _ in range(count)]
        self.indexes = [FlatIndex(D) for _ in range(count)]
        self.grown: set[int] = set()
        self.version = 0
        self.fault: Exception | None = None
        self.is_unknown = False  # which logs have grown
        self.loop: FollowerLoop[int] = FollowerLoop(lambda: self.version, self.find_grown)
        self.followers = [self.follower(n) for n in range(count)]
        self.loop.start()

    def follower(self, n: int) -> Follower:
        log = self.logs[n]
        return Follower(OpenedIndex(self.indexes[n]), log, str(n), batch=4)

    def find_grown(self) -> list[int] | None:
        if self.fault:
            raise self.fault
        if self.is_unknown:
            return None
        grown, self.grown = self.grown, set()
        return sorted(grown)

    def attach(self, *numbers: int) -> None:
        for n in numbers:
            self.loop.attach(n, self.followers[n])

    def add(self, n: int, id: int, vector: Embeddings) -> int:
        """Append an entry; only the version of the database tells."""
        seq = self.logs[n].add(id, vector)
        self.grown.add(n)
        self.version += 1
        return seq


@pytest.fixture
def many_followers() -> Iterator[Many]:
    many = Many(50)
    yield many
    many.loop.close()
    for follower in many.followers:
        follower.close()


def test_one_thread_follows_all_logs(many_followers: Many) -> None:
    before = threading.active_count()
    many_followers.attach(*range(50))
    for n in range(50):
        many_followers.add(n, n, unit(1, D)[0])
    wait_until(lambda: all(follower.applied_seq == 1 for follower in many_followers.followers))
    for n in range(50):
        assert_holds(many_followers.indexes[n], {n: unit(1, D)[0]})
    assert threading.active_count() == before
    assert many_followers.loop.is_alive()


def test_what_was_there_before_it_was_attached_is_applied(many_followers: Many) -> None:
    seq = many_followers.logs[3].add(1, unit(1, D)[0])
    many_followers.attach(3)
    assert many_followers.followers[3].wait_until_applied(seq, DEADLINE)


def test_only_logs_that_have_grown_are_read(many_followers: Many) -> None:
    many_followers.attach(0, 1)
    wait_until(lambda: all(log.reads for log in many_followers.logs[:2]))
    reads = many_followers.logs[1].reads
    many_followers.add(0, 1, unit(1, D)[0])
    wait_until(lambda: many_followers.followers[0].applied_seq == 1)
    assert many_followers.logs[1].reads == reads


def test_every_follower_is_stepped_where_any_log_may_have_changed(many_followers: Many) -> None:
    many_followers.attach(0, 1)
    wait_until(lambda: all(log.reads for log in many_followers.logs[:2]))
    many_followers.is_unknown = True
    many_followers.logs[1].add(1, unit(1, D)[0])
    many_followers.version += 1
    wait_until(lambda: many_followers.followers[1].applied_seq == 1)


def test_waiting_for_an_entry_steps_its_follower_at_once(many_followers: Many) -> None:
    many_followers.attach(0)
    wait_until(lambda: many_followers.logs[0].reads > 0)
    seq = many_followers.logs[0].add(1, unit(1, D)[0])  # the version does not move
    assert many_followers.followers[0].wait_until_applied(seq, DEADLINE)


def test_a_detached_follower_is_not_stepped_any_more(many_followers: Many) -> None:
    many_followers.attach(0)
    wait_until(lambda: many_followers.logs[0].reads > 0)
    many_followers.loop.detach(0)
    many_followers.loop.detach(0)
    reads = many_followers.logs[0].reads
    many_followers.add(0, 1, unit(1, D)[0])
    many_followers.followers[0].notify()
    many_followers.attach(1)
    seq = many_followers.add(1, 1, unit(1, D)[0])
    assert many_followers.followers[1].wait_until_applied(seq, DEADLINE)
    assert many_followers.logs[0].reads == reads


def test_a_failing_log_is_retried_and_delays_no_other(many_followers: Many) -> None:
    many_followers.logs[0].fault = RuntimeError("the disk is away")
    many_followers.attach(0, 1)
    wait_until(lambda: many_followers.followers[0].error is not None)
    assert many_followers.followers[1].wait_until_applied(many_followers.add(1, 1, unit(1, D)[0]), DEADLINE)
    many_followers.logs[0].fault = None
    assert many_followers.followers[0].wait_until_applied(many_followers.add(0, 1, unit(1, D)[0]), DEADLINE)
    assert many_followers.followers[0].error is None


def test_a_failing_question_for_grown_logs_is_repeated(many_followers: Many) -> None:
    many_followers.attach(0)
    wait_until(lambda: many_followers.logs[0].reads > 0)
    many_followers.fault = RuntimeError("the disk is away")
    many_followers.add(0, 1, unit(1, D)[0])
    many_followers.loop.attach(1, many_followers.followers[1])  # is stepped all the same
    wait_until(lambda: many_followers.logs[1].reads > 0)
    many_followers.fault = None
    wait_until(lambda: many_followers.followers[0].applied_seq == 1)


def test_a_long_log_is_applied_in_turns_to_its_end(many_followers: Many) -> None:
    for id in range(BATCHES_PER_STEP * 4 * 5):
        many_followers.logs[0].add(id, unit(1, D)[0])
    many_followers.attach(0, 1)
    assert many_followers.followers[0].wait_until_applied(many_followers.logs[0].last_seq(), DEADLINE)
    assert many_followers.indexes[0].ntotal == BATCHES_PER_STEP * 4 * 5


def test_no_one_waits_for_a_closed_follower(many_followers: Many) -> None:
    many_followers.attach(0)
    many_followers.loop.detach(0)
    many_followers.followers[0].close()
    assert not many_followers.followers[0].wait_until_applied(1, SLOW)


def test_a_loop_that_died_says_so(many_followers: Many, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    many_followers.logs[0].fault = SystemExit()
    many_followers.attach(0)
    wait_until(lambda: not many_followers.loop.is_alive())
    many_followers.loop.detach(0)  # does not wait for the dead thread


def test_a_quiet_database_is_not_read(log: Log, follow: Open) -> None:
    follower = follow()
    wait_until(lambda: log.looks > 3)
    reads, looks = log.reads, log.looks
    wait_until(lambda: log.looks > looks + 3)
    assert log.reads == reads
    seq = log.add(1, unit(1, D)[0])
    wait_until(lambda: follower.applied_seq == seq)  # the version alone tells


def test_notify_steps_at_once_between_two_looks(log: Log, follow: Open) -> None:
    follower = follow(poll=SLOW)
    wait_until(lambda: log.reads > 0)
    assert follower.wait_until_applied(log.add(1, unit(1, D)[0]), DEADLINE)


def test_a_log_in_sqlite_that_another_connection_writes_is_followed(
    tmp_path: Path, index: FlatIndex, follow: Open
) -> None:
    path = tmp_path / "log.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY AUTOINCREMENT, op TEXT, id INT, vector BLOB)")
    reader = sqlite3.connect(path, check_same_thread=False)

    class SqliteLog(Log):
        def read(self, after_seq: int, limit: int, /) -> list[LogEntry]:
            rows = reader.execute("SELECT * FROM log WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit))
            return [
                LogEntry(seq, Op(op), id, None if blob is None else np.frombuffer(blob, np.float32))
                for seq, op, id, blob in rows
            ]

    def data_version() -> int:
        return int(reader.execute("PRAGMA data_version").fetchone()[0])

    follower = follow(entries=SqliteLog(), data_version=data_version)
    for i in range(50):
        writer.execute("INSERT INTO log (op, id, vector) VALUES ('add', ?, ?)", (i, unit(50, D)[i].tobytes()))
    writer.execute("INSERT INTO log (op, id) VALUES ('remove', 7)")
    wait_until(lambda: follower.applied_seq == 51)  # by polling alone
    assert_holds(index, {i: v for i, v in enumerate(unit(50, D)) if i != 7})
