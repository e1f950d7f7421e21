"""When a snapshot is taken, and what a failing one does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from index.snapshot_scheduler import SnapshotPolicy, SnapshotScheduler
from tests.index.deadline import DEADLINE, until

EAGER = SnapshotPolicy(entries=10, idle=3600, share=0.999, retry=0.01, retry_last=0.04)


class Disk:
    """Takes what is saved, or fails, or makes the saver wait."""

    def __init__(self) -> None:
        self.frozen: list[int] = []
        self.saved: list[int] = []
        self.failures = 0
        self.open = threading.Event()
        self.open.set()
        self.freezer_fails = False
        self.savers: set[str] = set()

    def freeze(self, applied_seq: int) -> Callable[[], None]:
        if self.freezer_fails:
            raise MemoryError("no room")
        self.frozen.append(applied_seq)

        def write() -> None:
            self.savers.add(threading.current_thread().name)
            assert self.open.wait(DEADLINE)
            if self.failures:
                self.failures -= 1
                raise OSError("disk full")
            self.saved.append(applied_seq)

        return write


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_enough_entries_are_saved_on_another_thread(disk: Disk) -> None:
    saver = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    saver.offer(9, 0)
    assert disk.frozen == []
    saver.offer(10, 0)
    until(lambda: saver.saved_seq == 10)
    assert disk.saved == [10]
    assert disk.savers == {"saver-x"}


def test_big_index_waits_for_a_fifth_of_it(disk: Disk) -> None:
    saver = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    saver.offer(199, 1000)
    assert disk.frozen == []
    saver.offer(200, 1000)
    until(lambda: saver.saved_seq == 200)


def test_few_entries_are_saved_once_the_log_is_quiet(disk: Disk) -> None:
    saver = SnapshotScheduler(disk.freeze, SnapshotPolicy(idle=0.02, share=0.999), "x", 0)
    saver.offer(1, 1_000_000)
    assert disk.frozen == []

    def offered() -> bool:
        saver.offer(1, 1_000_000)
        return saver.saved_seq == 1

    until(offered)
    assert disk.saved == [1]


def test_nothing_new_is_not_saved(disk: Disk) -> None:
    saver = SnapshotScheduler(disk.freeze, SnapshotPolicy(entries=1, idle=0), "x", 7)
    saver.offer(7, 5)
    saver.finish(7)
    assert disk.frozen == []
    assert saver.saved_seq == 7


def test_one_save_at_a_time_and_the_caller_never_waits(disk: Disk) -> None:
    saver = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    disk.open.clear()
    for seq in range(10, 200, 10):
        saver.offer(seq, 0)
    assert disk.frozen == [10]
    disk.open.set()
    saver.finish(190)
    assert disk.saved == [10, 190]


def test_slow_saves_are_kept_to_their_share_of_the_time(disk: Disk) -> None:
    saver = SnapshotScheduler(disk.freeze, SnapshotPolicy(entries=1, idle=0, share=1e-9), "x", 0)
    saver.offer(1, 0)
    until(lambda: saver.saved_seq == 1)
    until(lambda: saver._not_before > time.monotonic() + 60)
    saver.offer(2, 0)
    assert disk.frozen == [1]
    saver.finish(2)
    assert disk.saved == [1, 2]  # closing always saves


def test_failed_save_is_shown_and_tried_again_later(disk: Disk) -> None:
    saver = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    disk.failures = 3
    saver.offer(10, 0)
    until(lambda: saver.error is not None)
    assert str(saver.error) == "disk full"
    assert saver.saved_seq == 0

    def offered() -> bool:
        saver.offer(10, 0)
        return saver.saved_seq == 10

    until(offered)
    assert len(disk.frozen) == 4
    until(lambda: saver.error is None)


def test_failing_freeze_is_a_failed_save(disk: Disk) -> None:
    saver = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    disk.freezer_fails = True
    saver.offer(10, 0)
    assert isinstance(saver.error, MemoryError)
    saver.finish(10)
    assert saver.saved_seq == 0


def test_failing_last_save_does_not_raise(disk: Disk) -> None:
    saver = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    disk.failures = 1
    saver.finish(3)
    assert saver.saved_seq == 0
    assert isinstance(saver.error, OSError)


def test_few_entries_are_not_saved_and_many_are() -> None:
    saved: list[int] = []
    saver = SnapshotScheduler(
        lambda seq: lambda: saved.append(seq), SnapshotPolicy(entries=1, idle=0.0, least=3), "x", 0
    )
    saver.count(2)
    saver.offer(20, 0)  # numbers of the log have gaps: they do not tell how many there are
    saver.finish(20)
    assert (saved, saver.wants(20)) == ([], False)
    saver.count(1)
    assert saver.wants(21)
    saver.finish(21)
    assert (saved, saver.wants(21)) == ([21], False)
    saver.count(2)
    saver.finish(23)
    assert saved == [21]
    saver.abandon()
