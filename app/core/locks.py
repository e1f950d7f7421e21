"""Locks by `flock`: the kernel frees a lock when its holder dies, whatever the clock says.

Decision 38 says why the library filelock does not serve here.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from app.core.clock import now_rfc3339
from app.core.errors import FULL, StartupError
from app.core.files import close_to_others

POLL_SECONDS = 0.1
ENRICHER_PREFIX = "enrich-"  # of the names of processes that hold no leases: those of second passes


class StopRequested(Exception):
    """The service is stopping; nobody needs the result of the wait any more."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds the lock of a data directory."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class DataDirLock:
    """Only one server may use a data directory. Raises StartupError, which names the holder, if another one does.

    `made` is the folder that was made for it, the data directory or one around it; None if it was there before. A
    server of a cluster locks its cache folder (`what`).
    """

    def __init__(self, data_dir: Path, made: Path | None = None, what: str = "data directory") -> None:
        self.made = made
        with ExitStack() as opened:
            try:
                self._file = opened.enter_context(open(data_dir / "lock", "ab+", buffering=0))
                close_to_others(data_dir, "lock")
                if not _try_lock(self._file):
                    self._file.seek(0)
                    holder = _parse_holder(self._file.read().decode("utf-8", "replace")) or "another process"
                    raise StartupError(f"the {what} {data_dir} is in use by {holder}")
                self._file.truncate(0)
                holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now_rfc3339()})
                _write_if_there_is_space(self._file, holder.encode())
            except OSError as error:
                raise StartupError(f"the {what} {data_dir} cannot be locked: {error.strerror}") from error
            opened.pop_all()

    def remove_new(self) -> None:
        """Remove the data directory if it was made for this lock, which keeps others out of it meanwhile."""
        if self.made is not None:
            shutil.rmtree(self.made, ignore_errors=True)

    def close(self) -> None:
        self._file.close()


def find_holder(data_dir: Path) -> Holder | None:
    """The server that uses a data directory; None if there is none, or it is not known."""
    path = data_dir / "lock"
    with suppress(OSError, UnicodeDecodeError):
        return _parse_holder(path.read_text("utf-8")) if _is_held(path) else None
    return None


class LeaseOwner:
    """The name under which a worker holds leases. The worker is alive while it holds the lock file of this name.

    Its threads may hold leases under names of their own, which begin with this one and a dot.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.id = prefix + uuid.uuid4().hex
        self._path = folder / self.id
        hidden = folder / f".{self.id}"  # until it is locked, so that nobody takes the file for that of a dead worker
        self._file = open(hidden, "w", encoding="utf-8")  # noqa: SIM115 (open until close())
        fcntl.flock(self._file, fcntl.LOCK_EX)
        hidden.rename(self._path)

    def close(self) -> None:
        """Give up the name; from now on its leases are those of a dead worker."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def find_dead_owners(folder: Path, owners: Iterable[str]) -> set[str]:
    """Those of `owners` whose process has ended."""
    return {owner for owner in owners if not _is_held(folder / owner.partition(".")[0])}


def count_live_owners(folder: Path) -> int:
    """How many workers of this folder are alive."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sum(_is_held(path) for path in paths if not path.name.startswith(ENRICHER_PREFIX))


def has_live_owner(folder: Path, prefix: str) -> bool:
    """Whether a process holds a lock file whose name begins so."""
    return any(map(_is_held, folder.glob(f"{prefix}*")))


def remove_dead_locks(folder: Path) -> None:
    """Remove the lock files of dead workers."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if not path.name.startswith(".") and not _is_held(path):
            path.unlink(missing_ok=True)


@contextmanager
def hold_lock(path: Path, stop: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock file `path`, which is made if it does not exist.

    Raises StopRequested once `stop` is set while another process holds it.
    """
    with open(path, "a") as file:
        while not _try_lock(file):
            pause_unless_stopped(stop)
        yield


def pause_unless_stopped(stop: threading.Event | None) -> None:
    """Wait POLL_SECONDS. Raises StopRequested if `stop` is set before or meanwhile."""
    if (stop or threading.Event()).wait(POLL_SECONDS):
        raise StopRequested


def _try_lock(file: IO[Any], mode: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file without waiting; False if another open file holds the lock."""
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock file `path`. Probes share the lock, so none takes another for the holder."""
    try:
        with open(path, encoding="utf-8") as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError:  # unknown: a worker that may be alive keeps its leases
        return True


def _write_if_there_is_space(file: IO[bytes], content: bytes) -> None:
    """Write what other processes read; a full disk does not keep a server from starting."""
    try:
        file.write(content)
    except OSError as error:
        if error.errno not in FULL:
            raise


def _parse_holder(content: str) -> Holder | None:
    try:
        said = json.loads(content)
        return Holder(int(said["pid"]), str(said["host"]), str(said["since"]))
    except (ValueError, KeyError, TypeError):
        return None
