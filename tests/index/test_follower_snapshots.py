"""Followers that save: when, what, and what becomes of it after a restart."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from index.factory import IndexConfig, open_index
from index.flat import FlatIndex
from index.protocol import OpenedIndex
from index.segmented import SegmentedIndex
from index.snapshot_scheduler import SnapshotPolicy
from tests.index.deadline import DEADLINE, wait_until
from tests.index.memory_log import Log, Open
from tests.index.oracle import assert_holds, unit

D = 8
NEVER = 3600.0


def config(folder: Path) -> IndexConfig:
    return IndexConfig("default/images", "space", D, folder)


def test_close_saves_and_the_next_start_reads_only_the_rest(log: Log, follow: Open, tmp_path: Path) -> None:
    opened = open_index(config(tmp_path))
    follower = follow(opened)
    for i in range(5):
        log.add(i, unit(6, D)[i])
    assert follower.wait_until_applied(5, DEADLINE)
    follower.close()
    assert (follower.saved_seq, follower.save_error) == (5, None)
    again = open_index(config(tmp_path), last_seq=log.last_seq())
    assert isinstance(again.index, SegmentedIndex)
    assert again.applied_seq == 5
    seq = log.add(5, unit(6, D)[5])
    assert follow(again).wait_until_applied(seq, DEADLINE)
    assert_holds(again.index, dict(enumerate(unit(6, D))))


def test_snapshots_are_taken_while_following(log: Log, follow: Open, tmp_path: Path) -> None:
    opened = open_index(config(tmp_path))
    policy = SnapshotPolicy(entries=20, idle=NEVER, share=0.999)
    follower = follow(opened, policy=policy)
    for i in range(200):
        log.add(i % 50, unit(200, D)[i])
    wait_until(lambda: follower.saved_seq >= 180)
    again = open_index(config(tmp_path))
    stored = {i % 50: unit(200, D)[i] for i in range(again.applied_seq)}
    assert isinstance(again.index, SegmentedIndex)
    assert_holds(again.index, stored)  # contents and applied_seq belong together


def test_quiet_log_is_saved_after_a_while(log: Log, follow: Open, tmp_path: Path) -> None:
    opened = open_index(config(tmp_path))
    follower = follow(opened, policy=SnapshotPolicy(idle=0.01))
    log.add(1, unit(1, D)[0])
    wait_until(lambda: follower.saved_seq == 1)


def test_failing_save_never_stops_the_log(log: Log, index: FlatIndex, follow: Open) -> None:
    def freeze(applied_seq: int, mark: str = "", /) -> Callable[[], None]:
        def write() -> None:
            raise OSError("disk full")

        return write

    policy = SnapshotPolicy(entries=1, retry=0.001, retry_last=0.002)
    follower = follow(OpenedIndex(index, freeze=freeze), policy=policy)
    for i in range(20):
        assert follower.wait_until_applied(log.add(i, unit(1, D)[0]), DEADLINE)
    wait_until(lambda: follower.save_error is not None)
    assert follower.error is None
    assert index.ntotal == 20
    follower.close()
    assert follower.saved_seq == 0


def test_damaged_snapshot_is_rebuilt_from_the_log(log: Log, follow: Open, tmp_path: Path) -> None:
    opened = open_index(config(tmp_path))
    for i in range(30):
        log.add(i, unit(30, D)[i])
    log.remove(3)
    follower = follow(opened)
    assert follower.wait_until_applied(31, DEADLINE)
    follower.close()
    (vectors,) = tmp_path.rglob("vectors.npy")
    text = bytearray(vectors.read_bytes())
    text[-5] ^= 1
    vectors.write_bytes(text)
    again = open_index(config(tmp_path), last_seq=log.last_seq())
    assert isinstance(again.index, SegmentedIndex)
    assert again.refused == "vectors.npy: hash differs"
    assert follow(again).wait_until_applied(31, DEADLINE)
    assert_holds(again.index, {i: v for i, v in enumerate(unit(30, D)) if i != 3})


def test_full_disk_is_outlived(small_disk: Path, log: Log, follow: Open) -> None:
    opened = open_index(config(small_disk / "index"))
    policy = SnapshotPolicy(entries=1, idle=0, share=0.999, retry=0.001, retry_last=0.01)
    follower = follow(opened, policy=policy)
    seq = log.add(1, unit(1, D)[0])
    wait_until(lambda: follower.saved_seq == seq)
    stat = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(stat.f_bavail * stat.f_frsize))
    late = log.add(2, unit(2, D)[1])
    wait_until(lambda: isinstance(follower.save_error, OSError))
    assert follower.wait_until_applied(late, DEADLINE)  # the log goes on
    assert open_index(config(small_disk / "index")).applied_seq == seq
    (small_disk / "filler").unlink()
    wait_until(lambda: follower.saved_seq == late)
    wait_until(lambda: follower.save_error is None)
