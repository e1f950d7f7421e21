"""When a snapshot is taken, and what a failing one does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from index.snapshot_scheduler import SnapshotPolicy, SnapshotScheduler
from tests.index.deadline import DEADLINE, wait_until

EAGER = SnapshotPolicy(entries=10, idle=3600, share=0.999, retry=0.01, retry_last=0.04)


class Disk:
    """Takes what is saved, or fails, or makes the scheduler wait."""

    def __init__(self) -> None:
        self.frozen: list[int] = []
        self.saved: list[int] = []
        self.failures = 0
        self.open = threading.Event()
        self.open.set()
        self.freezer_fails = False
        self.threads: set[str] = set()

    def freeze(self, applied_seq: int) -> Callable[[], None]:
        if self.freezer_fails:
            raise MemoryError("no room")
        self.frozen.append(applied_seq)

        def write() -> None:
            self.threads.add(threading.current_thread().name)
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
    scheduler = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    scheduler.offer(9, 0)
    assert disk.frozen == []
    scheduler.offer(10, 0)
    wait_until(lambda: scheduler.saved_seq == 10)
    assert disk.saved == [10]
    assert disk.threads == {"snapshot-x"}


def test_big_index_waits_for_a_fifth_of_it(disk: Disk) -> None:
    scheduler = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    scheduler.offer(199, 1000)
    assert disk.frozen == []
    scheduler.offer(200, 1000)
    wait_until(lambda: scheduler.saved_seq == 200)


def test_few_entries_are_saved_once_the_log_is_quiet(disk: Disk) -> None:
    scheduler = SnapshotScheduler(disk.freeze, SnapshotPolicy(idle=0.02, share=0.999), "x", 0)
    scheduler.offer(1, 1_000_000)
    assert disk.frozen == []

    def offer_and_check() -> bool:
        scheduler.offer(1, 1_000_000)
        return scheduler.saved_seq == 1

    wait_until(offer_and_check)
    assert disk.saved == [1]


def test_nothing_new_is_not_saved(disk: Disk) -> None:
    scheduler = SnapshotScheduler(disk.freeze, SnapshotPolicy(entries=1, idle=0), "x", 7)
    scheduler.offer(7, 5)
    scheduler.finish(7, save=True)
    assert disk.frozen == []
    assert scheduler.saved_seq == 7


def test_one_save_at_a_time_and_the_caller_never_waits(disk: Disk) -> None:
    scheduler = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    disk.open.clear()
    for seq in range(10, 200, 10):
        scheduler.offer(seq, 0)
    assert disk.frozen == [10]
    disk.open.set()
    scheduler.finish(190, save=True)
    assert disk.saved == [10, 190]


def test_slow_saves_are_kept_to_their_share_of_the_time(disk: Disk) -> None:
    scheduler = SnapshotScheduler(disk.freeze, SnapshotPolicy(entries=1, idle=0, share=1e-9), "x", 0)
    scheduler.offer(1, 0)
    wait_until(lambda: scheduler.saved_seq == 1)
    wait_until(lambda: scheduler._not_before > time.monotonic() + 60)
    scheduler.offer(2, 0)
    assert disk.frozen == [1]
    scheduler.finish(2, save=True)
    assert disk.saved == [1, 2]  # closing always saves


def test_failed_save_is_shown_and_tried_again_later(disk: Disk) -> None:
    scheduler = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    disk.failures = 3
    scheduler.offer(10, 0)
    wait_until(lambda: scheduler.error is not None)
    assert str(scheduler.error) == "disk full"
    assert scheduler.saved_seq == 0

    def offer_and_check() -> bool:
        scheduler.offer(10, 0)
        return scheduler.saved_seq == 10

    wait_until(offer_and_check)
    assert len(disk.frozen) == 4
    wait_until(lambda: scheduler.error is None)


def test_failing_freeze_is_a_failed_save(disk: Disk) -> None:
    scheduler = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    disk.freezer_fails = True
    scheduler.offer(10, 0)
    assert isinstance(scheduler.error, MemoryError)
    scheduler.finish(10, save=True)
    assert scheduler.saved_seq == 0


def test_failing_last_save_does_not_raise(disk: Disk) -> None:
    scheduler = SnapshotScheduler(disk.freeze, EAGER, "x", 0)
    disk.failures = 1
    scheduler.finish(3, save=True)
    assert scheduler.saved_seq == 0
    assert isinstance(scheduler.error, OSError)


def test_few_entries_are_not_saved_and_many_are() -> None:
    saved: list[int] = []
    scheduler = SnapshotScheduler(
        lambda seq: lambda: saved.append(seq), SnapshotPolicy(entries=1, idle=0.0, least=3), "x", 0
    )
    scheduler.count(2)
    scheduler.offer(20, 0)  # numbers of the log have gaps: they do not tell how many there are
    scheduler.finish(20, save=True)
    assert (saved, scheduler.wants(20)) == ([], False)
    scheduler.count(1)
    assert scheduler.wants(21)
    scheduler.finish(21, save=True)
    assert (saved, scheduler.wants(21)) == ([21], False)
    scheduler.count(2)
    scheduler.finish(23, save=True)
    assert saved == [21]
    scheduler.finish(23, save=False)
