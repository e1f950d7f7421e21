"""Who holds what, by `flock`: the kernel lets go of a lock when its holder dies, whatever the clock says."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.clock import now_rfc3339
from app.core.errors import StartupError


class DataDirLock:
    """The one server of a data directory. Raises StartupError, saying who holds it, when there is one."""

    def __init__(self, data_dir: Path) -> None:
        self._file = open(data_dir / "lock", "a+", encoding="utf-8")  # noqa: SIM115 (held until close)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise StartupError(f"the data directory {data_dir} is in use by {_describe_holder(holder)}") from None
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now_rfc3339()}))
        self._file.flush()

    def close(self) -> None:
        """Let go."""
        self._file.close()


class LeaseOwner:
    """A worker's name in its leases, alive as long as its lock file is held."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.id = uuid.uuid4().hex
        self._path = folder / self.id
        unseen = folder / f".{self.id}"  # until it is locked, so that nobody takes it for a dead one's
        self._file = open(unseen, "w", encoding="utf-8")  # noqa: SIM115 (held until close)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        unseen.rename(self._path)

    def close(self) -> None:
        """Stop being alive."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def find_dead_owners(folder: Path, owners: Iterable[str]) -> set[str]:
    """Those of `owners` whose process is gone."""
    return {owner for owner in owners if not _is_held(folder / owner)}


def has_live_owner(folder: Path) -> bool:
    """Whether any worker of this folder lives."""
    return folder.is_dir() and any(_is_held(path) for path in folder.iterdir())


def count_live_owners(folder: Path) -> int:
    """How many workers of this folder live."""
    if not folder.is_dir():
        return 0
    return sum(_is_held(path) for path in folder.iterdir() if not path.name.startswith("."))


def remove_dead_locks(folder: Path) -> None:
    """Remove the lock files of the dead."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if not path.name.startswith(".") and not _is_held(path):
            path.unlink(missing_ok=True)


def _is_held(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _describe_holder(holder: str) -> str:
    try:
        told = json.loads(holder)
        return f"process {told['pid']} on {told['host']}, since {told['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


POLL_SECONDS = 0.1


class StopRequested(Exception):
    """The service is stopping: what was waited for is not needed any more."""


@contextmanager
def hold_lock(path: Path, stop: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock of this file, made if it is not there; the kernel frees it when its holder dies.

    Raises Stopped once `stop` is set while another process holds it.
    """
    with open(path, "a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pause_unless_stopped(stop)
        yield


def pause_unless_stopped(stop: threading.Event | None) -> None:
    """Wait for a moment. Raises Stopped when `stop` is set, before or meanwhile."""
    if (stop or threading.Event()).wait(POLL_SECONDS):
        raise StopRequested
