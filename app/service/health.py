"""What `/readyz` and `sightline status` check, each with what a person can do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import SightlineError
from app.core.locks import count_live_owners
from app.core.settings import Settings
from app.decode.sandbox import find_protections
from app.encoder.protocol import Encoder
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.membership import SINGLE_SERVER, Membership
from app.storage.tables.queue_depth import Backlog, read_backlog, read_depth

MIN_FREE_BYTES = 256 << 20  # bytes; below, a bulk or a new base may find no room
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One thing that must be right; searches need the `vital` ones. `detail` says how it is, and what to do."""

    name: str
    ok: bool
    detail: str
    vital: bool = False


def check_model(encoder: Encoder, alive: bool, faults: Sequence[str]) -> list[HealthCheck]:
    """Whether searches are answered: the model, the encoder's thread (`alive`), the indexes and their `faults`."""
    return [
        HealthCheck("model", True, f"{encoder.space.model} on {encoder.device}", vital=True),
        HealthCheck("encoder", alive, "" if alive else "it has stopped: restart the server", vital=True),
        HealthCheck("index", not faults, "; ".join(faults) or "follows the log", vital=True),
    ]


def check_ingest(
    database: Database,
    blobs: BlobStore,
    settings: Settings,
    faults: Sequence[str],
    membership: Membership = SINGLE_SERVER,
) -> list[HealthCheck]:
    """Whether uploads are accepted and embedded: background work, database, queue, disk, bucket, workers."""
    cache = settings.cache
    found = list(check_database(database, settings.max_queue, settings.max_queue_bytes))
    background = HealthCheck("background", not faults, "; ".join(faults) or "nothing fails")
    if blobs.is_remote:
        found.append(check_bucket(blobs, settings.media))
    workers = check_workers(settings.process_folder, settings.workers)
    if membership.is_cluster:
        workers = check_members(membership, workers)
    return [background, *found, check_disk(cache), workers, describe_sandbox()]


def check_members(membership: Membership, own: HealthCheck) -> HealthCheck:
    """Whether the cluster has workers; `own` is the check of those that this server keeps."""
    try:
        members = membership.list_members()
    except SightlineError as error:
        return HealthCheck("workers", False, f"who is alive is not known: {error.detail}")
    servers, workers = (sum(one.kind == kind for one in members) for kind in ("server", "worker"))
    detail = f"{workers} alive in the cluster, of {servers} servers"
    if not own.ok:
        return own
    return HealthCheck(
        "workers", workers > 0, detail if workers else f"{detail}: pictures wait for a `sightline worker`"
    )


def check_database(database: Database, max_queue: int, max_queue_bytes: int) -> Iterator[HealthCheck]:
    """Whether rows can be read and written, and whether the queue has room for another upload."""
    try:
        depth = database.read(read_depth)
    except SightlineError as error:
        yield HealthCheck("database", False, f"{error.detail}; see the log, and `sightline verify`")
        return
    fault = database.fault
    detail = "read and written" if fault is None else f"the last change was not written: {fault}"
    yield HealthCheck("database", fault is None, detail)
    why_full = depth.why_full(max_queue, max_queue_bytes)
    detail = f"{depth.items} pictures wait" if why_full is None else f"{why_full}; uploads are refused"
    yield HealthCheck("queue", why_full is None, detail)


def check_bucket(blobs: BlobStore, media: str) -> HealthCheck:
    """Whether the bucket of the pictures has answered the last request."""
    fault = blobs.fault
    return HealthCheck("bucket", fault is None, f"{media} answers" if fault is None else fault)


def check_disk(data_dir: Path) -> HealthCheck:
    """Whether the disk has room."""
    try:
        held = os.statvfs(data_dir)
    except OSError as error:
        return HealthCheck("disk", False, f"the data directory cannot be reached: {error.strerror}")
    if held.f_flag & os.ST_RDONLY:
        return HealthCheck("disk", False, "the disk is mounted read-only: uploads are refused; mount it for writing")
    free = held.f_bavail * held.f_frsize
    if free < MIN_FREE_BYTES:
        return HealthCheck("disk", False, f"{free // MIB} MiB are free: free some space, or uploads will be refused")
    if held.f_files and held.f_favail < 1000:
        return HealthCheck("disk", False, f"{held.f_favail} more files can be made (inodes): remove some")
    return HealthCheck("disk", True, f"{free // MIB} MiB are free")


def check_workers(data_dir: Path, wanted: int) -> HealthCheck:
    """Whether as many workers live as the settings want."""
    living = count_workers(data_dir)
    if not wanted and not living:
        return HealthCheck("workers", True, "none are wanted here: pictures wait for a `sightline worker`")
    if living < wanted:
        return HealthCheck("workers", False, f"{living} of {wanted} are alive: others still start, or the log says why")
    return HealthCheck("workers", True, f"{living} alive")


def describe_sandbox() -> HealthCheck:
    """Which protections against hostile files this machine offers; none of them must be there."""
    return HealthCheck("sandbox", True, find_protections().describe())


def measure_backlog(database: Database) -> Backlog:
    """Raises SightlineError where the database cannot be read."""
    return database.read(read_backlog)


def count_workers(data_dir: Path) -> int:
    return count_live_owners(data_dir / "workers")


def measure_disk(data_dir: Path) -> Iterator[tuple[str, str, float]]:
    """(name, help text, value) of each metric of the disk; nothing where the system does not say."""
    with suppress(OSError):
        held = os.statvfs(data_dir)
        yield "disk_free_bytes", "Free bytes on the disk of the data directory", held.f_bavail * held.f_frsize
        yield "disk_bytes", "Size of that disk", held.f_blocks * held.f_frsize
        yield "disk_free_files", "Files that may still be made there", held.f_favail
        yield "disk_writable", "0 when that disk is mounted read-only", float(not held.f_flag & os.ST_RDONLY)
    for name, help, suffix in (
        ("database_bytes", "Size of sightline.db", ""),
        ("database_wal_bytes", "Size of its write-ahead log", "-wal"),
    ):
        size = 0
        with suppress(OSError):
            size = (data_dir / f"sightline.db{suffix}").stat().st_size
        yield name, help, size
