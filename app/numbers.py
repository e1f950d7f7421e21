"""Numbers of a data directory for `/metrics` and `/readyz`: what waits, the disk, the last backup."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time

from app.owner import count
from app.store.backlog import Backlog, backlog
from app.store.database import Database

BACKUP = "last-backup.json"  # in the data directory


@dataclass(frozen=True, slots=True)
class Backup:
    """The last backup that succeeded: seconds since 1970 (0 without one), what it took, how many pictures it holds."""

    at: float = 0.0
    seconds: float = 0.0
    pictures: int = 0


def told_of(database: Database) -> Backlog:
    """What waits now. Raises SightlineError where the database cannot be read."""
    return database.read(backlog)


def workers(data_dir: Path) -> int:
    """How many worker processes live."""
    return count(data_dir / "workers")


def disk(data_dir: Path) -> Iterator[tuple[str, str, float]]:
    """(name, meaning, value) of what is known of the disk; nothing where the system does not say."""
    with suppress(OSError):
        held = os.statvfs(data_dir)
        yield "disk_free_bytes", "Free bytes on the disk of the data directory", held.f_bavail * held.f_frsize
        yield "disk_bytes", "Size of that disk", held.f_blocks * held.f_frsize
        yield "disk_free_files", "Files that may still be made there", held.f_favail
        yield "disk_writable", "0 when that disk is mounted read-only", float(not held.f_flag & os.ST_RDONLY)
    for name, told, suffix in (
        ("database_bytes", "Size of sightline.db", ""),
        ("database_wal_bytes", "Size of its write-ahead log", "-wal"),
    ):
        size = 0
        with suppress(OSError):
            size = (data_dir / f"sightline.db{suffix}").stat().st_size
        yield name, told, size


def last_backup(data_dir: Path) -> Backup:
    """What `sightline backup` left here when it last succeeded."""
    try:
        return Backup(**json.loads((data_dir / BACKUP).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return Backup()


def backed_up(data_dir: Path, seconds: float, pictures: int) -> None:
    """Leave word of a backup that has just succeeded. Raises OSError where that cannot be written."""
    new = data_dir / f"{BACKUP}.new"
    new.write_text(json.dumps(asdict(Backup(time(), seconds, pictures))), "utf-8")
    new.replace(data_dir / BACKUP)
