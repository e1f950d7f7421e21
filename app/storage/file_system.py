"""What a data directory asks of its file system, tried before anything is stored: exFAT, SMB, NFS or FUSE may lack a
part of it, and would fail in the middle of the work."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import apsw

from app.core.errors import FULL, StartupError
from app.core.files import fsync_dir

log = logging.getLogger(__name__)

MOUNTS = Path("/proc/self/mountinfo")
# Several machines can mount them at once, and SQLite's WAL works for processes of one machine alone.
OF_SEVERAL_MACHINES = re.compile(r"nfs.*|cifs|smb.*|afs|ceph|lustre|fuse\.(sshfs|rclone|glusterfs|s3fs)")
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
USE_ANOTHER = "keep the data on a local disk (ext4, XFS or Btrfs): --data-dir"


class _DiskFull(Exception):
    pass


def check_file_system(folder: Path) -> None:
    """Raise StartupError, one line with the file system, the operation and what to do, if the folder cannot hold the
    data."""
    probe = folder / f".probe.{uuid.uuid4().hex}"
    steps: tuple[tuple[str, Callable[[Path], None]], ...] = (
        ("make a folder in it", Path.mkdir),
        ("write a file durably (fsync)", _write_file),
        ("lock a file (flock)", _lock_file),
        ("rename a file over another", _replace_file),
        ("make a folder durable (fsync)", fsync_dir),
        ("share a database among processes (SQLite's WAL)", _open_database),
    )
    try:
        for what, step in steps:
            _try_step(folder, what, partial(step, probe))
    except _DiskFull:
        log.warning("the disk of %s is full: what its file system can do was not tried", folder)
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    if is_of_several_machines(folder):
        kind, _ = find_file_system(folder)
        log.warning("the data directory %s is on %s: only one machine may use it; %s", folder, kind, USE_ANOTHER)


def _try_step(folder: Path, what: str, step: Callable[[], None]) -> None:
    try:
        step()
    except (OSError, apsw.Error) as error:
        # no reason not to start: searches need no space
        if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in FULL):
            raise _DiskFull from error
        number = error.errno if isinstance(error, OSError) else 0
        reason = os.strerror(number) if number else str(error) or type(error).__name__
        raise unusable(folder, what, reason, number or 0) from error


def unusable(folder: Path, what: str, reason: str, number: int = 0) -> StartupError:
    """The error of a data directory that cannot `what`, for an errno."""
    kind, mounted_at = find_file_system(folder)
    where = f"{kind} (mounted at {mounted_at})" if kind else "a file system"
    if number == errno.EROFS:
        remedy = "mount it for writing, or name another with --data-dir"
    elif number in UNWRITABLE:
        remedy = f"let the user {os.geteuid()} write there, or name another with --data-dir"
    else:
        remedy = USE_ANOTHER
    return StartupError(
        f"the data directory {folder} cannot be used: it is on {where}, which cannot {what}: {reason}; {remedy}"
    )


def is_of_several_machines(folder: Path) -> bool:
    """Whether a folder is on a file system that several machines can mount at once."""
    return OF_SEVERAL_MACHINES.fullmatch(find_file_system(folder)[0]) is not None


def find_file_system(path: Path, mounts: Path = MOUNTS) -> tuple[str, str]:
    """The type of the file system that holds a path, and where it is mounted; empty where the system does not tell."""
    real = Path(os.path.realpath(path))
    found = ("", "")
    with suppress(OSError, ValueError, IndexError):
        for line in mounts.read_text("utf-8", "replace").splitlines():
            before, _, after = line.partition(" - ")
            mounted_at = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split()[4])
            if real.is_relative_to(mounted_at) and len(mounted_at) >= len(found[1]):
                found = after.split()[0], mounted_at
    return found


def _write_file(probe: Path) -> None:
    with open(probe / "file", "wb") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())


def _lock_file(probe: Path) -> None:
    with open(probe / "file", "rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _replace_file(probe: Path) -> None:
    (probe / "other").write_bytes(b"y")
    (probe / "other").replace(probe / "file")


def _open_database(probe: Path) -> None:
    writer = apsw.Connection(str(probe / "db"))
    try:
        if writer.pragma("journal_mode", "WAL") != "wal":
            raise apsw.IOError("there is no shared memory")
        writer.execute("CREATE TABLE t (n)")
        reader = apsw.Connection(str(probe / "db"), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            reader.execute("SELECT * FROM t").fetchall()
        finally:
            reader.close()
    finally:
        writer.close()
