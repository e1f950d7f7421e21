from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from app.core.errors import StartupError
from app.core.locks import (
    DataDirLock,
    LeaseOwner,
    StopRequested,
    count_live_owners,
    find_dead_owners,
    hold_lock,
    pause_unless_stopped,
    remove_dead_locks,
)

WAIT = 20.0

HOLD = """
import sys
from pathlib import Path
from app.core.locks import DataDirLock, LeaseOwner
held = {"lock": DataDirLock, "owner": LeaseOwner}[sys.argv[1]](Path(sys.argv[2]))
print(getattr(held, "id", ""), flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process that holds a lock until it is killed."""

    def __init__(self, what: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, what, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.id = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_second_server_is_refused_and_told_who_holds_the_directory(tmp_path: Path) -> None:
    holder = Holder("lock", tmp_path)
    try:
        with pytest.raises(StartupError, match=f"in use by process {holder.process.pid} on ") as refused:
            DataDirLock(tmp_path)
        assert "\n" not in refused.value.detail
    finally:
        holder.kill()


def test_the_directory_is_free_as_soon_as_its_server_is_killed(tmp_path: Path) -> None:
    Holder("lock", tmp_path).kill()
    lock = DataDirLock(tmp_path)
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    lock.close()


def test_the_directory_is_free_after_close(tmp_path: Path) -> None:
    DataDirLock(tmp_path).close()
    DataDirLock(tmp_path).close()


@pytest.mark.parametrize("content", ["", "not JSON", "[]", "{}"])
def test_a_holder_that_does_not_say_who_it_is_is_another_process(tmp_path: Path, content: str) -> None:
    with open(tmp_path / "lock", "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StartupError, match="in use by another process"):
            DataDirLock(tmp_path)


def test_an_owner_is_alive_until_it_closes(tmp_path: Path) -> None:
    one, two = LeaseOwner(tmp_path), LeaseOwner(tmp_path)
    assert one.id != two.id
    assert find_dead_owners(tmp_path, [one.id, two.id, "nobody"]) == {"nobody"}
    one.close()
    assert find_dead_owners(tmp_path, [one.id, two.id]) == {one.id}
    two.close()
    assert list(tmp_path.iterdir()) == []


def test_an_owner_is_dead_as_soon_as_its_process_is_killed(tmp_path: Path) -> None:
    holder = Holder("owner", tmp_path)
    assert find_dead_owners(tmp_path, [holder.id]) == set()
    holder.kill()
    assert find_dead_owners(tmp_path, [holder.id]) == {holder.id}


def test_clear_removes_the_lock_files_of_the_dead_alone(tmp_path: Path) -> None:
    Holder("owner", tmp_path).kill()
    alive = LeaseOwner(tmp_path)
    remove_dead_locks(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [alive.id]
    assert find_dead_owners(tmp_path, [alive.id]) == set()
    alive.close()
    remove_dead_locks(tmp_path / "nothing")


def test_an_owner_that_is_just_being_made_is_not_cleared_away(tmp_path: Path) -> None:
    unseen = tmp_path / ".half-made"  # created, but not locked yet
    unseen.touch()
    remove_dead_locks(tmp_path)
    assert unseen.exists()


def test_asking_often_never_makes_a_living_owner_look_dead(tmp_path: Path) -> None:
    owners = [LeaseOwner(tmp_path) for _ in range(20)]
    for _ in range(20):
        assert find_dead_owners(tmp_path, [owner.id for owner in owners]) == set()
        remove_dead_locks(tmp_path)
    for owner in owners:
        owner.close()


def test_live_owners_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "workers"
    assert count_live_owners(folder) == 0
    owner = LeaseOwner(folder)
    Holder("owner", folder).kill()
    (folder / f".{owner.id}.prom").touch()  # the metrics of a worker lie there as well
    assert count_live_owners(folder) == 1
    owner.close()
    assert count_live_owners(folder) == 0


def test_a_second_holder_waits_for_the_first(tmp_path: Path) -> None:
    waiting, order = threading.Event(), []

    def second() -> None:
        waiting.set()
        with hold_lock(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with hold_lock(tmp_path / "lock"):
        thread.start()
        assert waiting.wait(WAIT)
        pause_unless_stopped(None)
        order.append("first")
    thread.join(WAIT)
    assert order == ["first", "second"]


def test_a_wait_for_a_lock_ends_when_a_stop_is_requested(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with hold_lock(tmp_path / "lock", stop), pytest.raises(StopRequested), hold_lock(tmp_path / "lock", stop):
        pass
    with hold_lock(tmp_path / "lock", stop):
        pass  # free again


def test_a_folder_that_was_made_for_a_lock_can_be_removed_and_another_cannot(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    data.mkdir(parents=True)
    for made, left in ((None, True), (tmp_path / "new", False)):
        lock = DataDirLock(data, made)
        lock.remove_new()
        lock.close()
        assert (tmp_path / "new").exists() is left


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_not_taken_for_another_server(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StartupError, match=f"cannot be locked: {os.strerror(number)}"):
        DataDirLock(tmp_path)


def test_other_users_cannot_open_the_lock_of_an_old_directory(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "lock").chmod(0o644)
    with closing(DataDirLock(tmp_path)):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
