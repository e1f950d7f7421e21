"""Jobs, their items and the uploads (sources) that still have to be taken in.

The counters of a job change in the transaction that changes the item, so they always add up.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw

from app.core.clock import now_rfc3339, seconds_between, seconds_since
from app.core.types import ItemError, ItemStatus, Job, JobItem, JobState, Priority
from app.storage.sql import fetch_all, fetch_number, fetch_one
from app.storage.tables.collections import IN_COLLECTION, LABEL_OF_NAME, name_from_label

COLUMNS = (
    "SELECT id, collection, kind, iif(paused = 1 AND state IN ('queued', 'running'), 'paused', state),"
    " total + (SELECT coalesce(sum(pending), 0) FROM sources WHERE job_id = jobs.id),"
    " done, failed, duplicates, created_at, started_at, finished_at, last_seq, step FROM jobs "
)
RECENT = " ORDER BY created_at DESC, rowid DESC LIMIT ?"
LEAST_TURN = "coalesce((SELECT min(turn) FROM jobs WHERE uploads > 0 AND paused = 0), 0)"  # where those at it are
ITEMS = "SELECT n, name, status, image_id, error_code, error_detail FROM job_items "
ALL = ITEMS + "WHERE job_id = ? AND n > ? ORDER BY n LIMIT ?"
# Without being told SQLite goes through all items of the job for those of a status.
SOME = ITEMS + "INDEXED BY job_items_listed WHERE job_id = ? AND status = ? AND n > ? ORDER BY n LIMIT ?"
# What a picture of a job costs its turn: of high priority there are four for one of normal, and sixteen for one of low.
COST_OF_PRIORITY = {Priority.HIGH: 1, Priority.NORMAL: 4, Priority.LOW: 16}
PRIORITY_OF_COST = {step: priority for priority, step in COST_OF_PRIORITY.items()}

SOURCE = (
    "SELECT s.job_id, s.n, s.kind, s.name, j.collection, s.imported, s.attempts, s.origin, s.options, s.position"
    " FROM jobs j JOIN sources s ON s.job_id = j.id "
)
HELD = SOURCE + "WHERE s.lease_owner = ? LIMIT 1"
FREE = SOURCE + "WHERE j.uploads > 0 AND j.paused = 0 AND s.lease_owner IS NULL ORDER BY j.turn, j.rowid, s.n LIMIT 1"
MAX_LEAD = 1024  # members that a job may have taken in more than another that has begun, too


@dataclass(frozen=True, slots=True)
class Upload:
    """A source of a job under its number `n`: an upload, archive or folder, or one that is named.

    Its first `imported` members are in, and `position` bytes of its manifest.
    """

    job_id: str
    n: int
    kind: str
    name: str
    collection: str
    imported: int
    attempts: int
    origin: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    position: int = 0


def job_from_row(row: Sequence[Any]) -> Job:
    """The record of one row of `COLUMNS`, with its rate (items a second) and time left."""
    (id, collection, kind, state, total, done, failed, duplicates, created, started, finished, seq, step) = row
    gone = done + failed + duplicates
    rate = eta = None
    if started is not None and gone:
        spent = seconds_between(started, finished) if finished else seconds_since(started)
        rate = round(gone / spent, 2) if spent > 0 else None
        if rate and finished is None and state != JobState.PAUSED:
            eta = round((total - gone) / rate, 1)
    counts = (total, done, failed, duplicates)
    priority = PRIORITY_OF_COST[step]
    named = (id, name_from_label(collection), kind, JobState(state))
    return Job(*named, *counts, created, started, finished, rate, eta, seq, priority)


def create(c: apsw.Connection, collection: str, kind: str, priority: Priority = Priority.NORMAL) -> str:
    """A new job with nothing in it; returns its id."""
    id = uuid.uuid4().hex
    c.execute(
        "INSERT INTO jobs (id, collection, kind, state, created_at, step, turn) VALUES (?, "
        + LABEL_OF_NAME
        + ", ?, 'queued', ?, ?, "
        + LEAST_TURN
        + ")",
        (id, collection, kind, now_rfc3339(), COST_OF_PRIORITY[priority]),
    )
    return id


def get(c: apsw.Connection, id: str) -> Job | None:
    """The job of this id, or None."""
    row = fetch_one(c, COLUMNS + "WHERE id = ?", (id,))
    return job_from_row(row) if row else None


def list_recent(c: apsw.Connection, limit: int, among: Iterable[str] | None = None) -> list[Job]:
    """The newest jobs first, of all collections or `among` these."""
    if among is None:
        return [job_from_row(row) for row in fetch_all(c, COLUMNS + RECENT, (limit,))]
    rows = [row for name in among for row in fetch_all(c, COLUMNS + "WHERE " + IN_COLLECTION + RECENT, (name, limit))]
    rows.sort(key=lambda row: str(row[8]), reverse=True)
    return [job_from_row(row) for row in rows[:limit]]


def list_items(
    c: apsw.Connection, job_id: str, status: ItemStatus | None, after: int, limit: int
) -> list[tuple[int, JobItem]]:
    """Up to `limit` items numbered past `after`, with their numbers."""
    if status is None:
        rows = fetch_all(c, ALL, (job_id, after, limit))
    else:
        rows = fetch_all(c, SOME, (job_id, status, after, limit))
    return [
        (n, JobItem(name, ItemStatus(state), image_id, ItemError(code, detail or "") if code else None))
        for n, name, state, image_id, code, detail in rows
    ]


def add_item(
    c: apsw.Connection,
    job_id: str,
    name: str,
    status: ItemStatus,
    *,
    image: tuple[int, str] | None = None,
    error: ItemError | None = None,
) -> None:
    """Append an item (`image` is its key and id) and count it."""
    n = 1 + fetch_number(c, "SELECT max(n) FROM job_items WHERE job_id = ?", (job_id,))
    key, id = image or (None, None)
    code, detail = (error.code, error.detail) if error else (None, None)
    c.execute(
        "INSERT INTO job_items (job_id, n, name, status, image_key, image_id, error_code, error_detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (job_id, n, name, status, key, id, code, detail),
    )
    c.execute(
        "UPDATE jobs SET total = total + 1, failed = failed + ?, duplicates = duplicates + ? WHERE id = ?",
        (status is ItemStatus.FAILED, status is ItemStatus.DUPLICATE, job_id),
    )


def complete_items(c: apsw.Connection, image_key: int, seq: int) -> None:
    """The picture is ready: so is every item that waits for it."""
    for job_id, n in _waiting(c, image_key):
        set_item_status(c, job_id, n, ItemStatus.DONE, None)
        c.execute("UPDATE jobs SET done = done + 1, last_seq = max(last_seq, ?) WHERE id = ?", (seq, job_id))
        finish_if_complete(c, job_id)


def fail_items(c: apsw.Connection, image_key: int, error: ItemError) -> None:
    """The picture has failed: so has every item that waits for it."""
    for job_id, n in _waiting(c, image_key):
        set_item_status(c, job_id, n, ItemStatus.FAILED, error)
        c.execute("UPDATE jobs SET failed = failed + 1 WHERE id = ?", (job_id,))
        finish_if_complete(c, job_id)


def set_item_status(c: apsw.Connection, id: str, n: int, status: ItemStatus, error: ItemError | None) -> None:
    """Say what became of one item. The caller counts."""
    code, detail = (error.code, error.detail) if error else (None, None)
    c.execute(
        "UPDATE job_items SET status = ?, error_code = ?, error_detail = ? WHERE job_id = ? AND n = ?",
        (status, code, detail, id, n),
    )


def delete_items(c: apsw.Connection, id: str, limit: int) -> int:
    """Remove up to `limit` items; the counts of the job stay. Returns how many there were."""
    c.execute(
        "DELETE FROM job_items WHERE job_id = ?1 AND n IN"
        " (SELECT n FROM job_items WHERE job_id = ?1 AND status <> 'queued' LIMIT ?2)",
        (id, limit),
    )
    return c.changes()


def mark_running(c: apsw.Connection, ids: Iterable[str]) -> None:
    """The first work on these jobs has begun."""
    for id in ids:
        c.execute(
            "UPDATE jobs SET state = 'running', started_at = coalesce(started_at, ?) WHERE id = ? AND state = 'queued'",
            (now_rfc3339(), id),
        )


def finish_if_complete(c: apsw.Connection, id: str) -> None:
    """End the job if nothing of it is left to do."""
    c.execute(
        "UPDATE jobs SET state = 'succeeded', started_at = coalesce(started_at, ?), finished_at = ?"
        " WHERE id = ? AND state IN ('queued', 'running') AND done + failed + duplicates = total"
        " AND NOT EXISTS (SELECT 1 FROM sources WHERE job_id = jobs.id)",
        (now_rfc3339(), now_rfc3339(), id),
    )


def add_upload(
    c: apsw.Connection,
    job_id: str,
    n: int,
    kind: str,
    name: str,
    pending: int,
    origin: str | None = None,
    options: Mapping[str, Any] | None = None,
    size: int = 0,
) -> None:
    """A source to be taken in, of `size` bytes; the job does not end before it is. `origin` is the kind of source that
    brings it."""
    c.execute(
        "INSERT INTO sources (job_id, n, kind, name, pending, origin, options, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (job_id, n, kind, name, pending, origin, json.dumps(dict(options or {})), size),
    )


def claim_upload(c: apsw.Connection, owner: str, until: float) -> Upload | None:
    """Lease an upload, counting an attempt: of the job that had least taken in, the oldest of them.

    An owner takes in one at a time: one that it holds already is one that it could not give back.
    """
    row = fetch_one(c, HELD, (owner,)) or fetch_one(c, FREE)
    if row is None:
        return None
    c.execute(
        "UPDATE sources SET lease_owner = ?, lease_until = ?, attempts = attempts + 1 WHERE job_id = ? AND n = ?",
        (owner, until, row[0], row[1]),
    )
    mark_running(c, [row[0]])
    (job_id, n, kind, name, collection, imported, attempts, origin, options, position) = row
    said = json.loads(options)
    return Upload(job_id, n, kind, name, name_from_label(collection), imported, attempts + 1, origin, said, position)


def holds_upload(c: apsw.Connection, owner: str, source: Upload) -> bool:
    """Whether the owner still has the lease."""
    sql = "SELECT 1 FROM sources WHERE job_id = ? AND n = ? AND lease_owner = ?"
    return fetch_one(c, sql, (source.job_id, source.n, owner)) is not None


def upload_exists(c: apsw.Connection, source: Upload) -> bool:
    """Whether the upload still waits, for whomever: it does not once its job was cancelled."""
    return fetch_one(c, "SELECT 1 FROM sources WHERE job_id = ? AND n = ?", (source.job_id, source.n)) is not None


def record_progress(
    c: apsw.Connection, source: Upload, imported: int, pending: int, position: int, *, careful: bool = False
) -> None:
    """Remember how far the manifest is taken in, so that a restart goes on from there; the attempt succeeded.

    Who is `careful` goes on as if it had failed once: should it fail again, it was at the very next member.
    """
    c.execute(
        "UPDATE jobs SET turn = turn + step * (?3 - (SELECT imported FROM sources WHERE job_id = ?1 AND n = ?2))"
        " WHERE id = ?1",
        (source.job_id, source.n, imported),
    )
    c.execute(
        "UPDATE sources SET imported = ?1, bytes = bytes * ?2 / max(?2 + ?1 - imported, 1), pending = ?2,"
        " position = ?3, attempts = ?4 WHERE job_id = ?5 AND n = ?6",
        (imported, pending, position, 2 if careful else 1, source.job_id, source.n),
    )


def must_yield(c: apsw.Connection, source: Upload) -> bool:
    """Whether another job is to have its uploads taken in first: one that is new, or has had much less. Or this is
    paused."""
    row = fetch_one(c, "SELECT paused, turn, step FROM jobs WHERE id = ?", (source.job_id,))
    if row is None or row[0]:
        return row is not None
    return (
        fetch_one(
            c,
            "SELECT 1 FROM jobs j WHERE uploads > 0 AND paused = 0 AND turn < ?1 AND id <> ?2"
            " AND (state = 'queued' OR turn < ?1 - ?3)"
            " AND EXISTS (SELECT 1 FROM sources WHERE job_id = j.id AND lease_owner IS NULL) LIMIT 1",
            (row[1], source.job_id, row[2] * MAX_LEAD),
        )
        is not None
    )


def release_upload(c: apsw.Connection, owner: str, source: Upload, *, counted: bool = False) -> None:
    """Give the upload back untouched; the attempt does not count, unless it is to be `counted`."""
    c.execute(
        "UPDATE sources SET lease_owner = NULL, attempts = attempts - ? WHERE job_id = ? AND n = ? AND lease_owner = ?",
        (not counted, source.job_id, source.n, owner),
    )


def finish_upload(c: apsw.Connection, source: Upload) -> None:
    """The upload is in; the job may end."""
    c.execute("DELETE FROM sources WHERE job_id = ? AND n = ?", (source.job_id, source.n))
    finish_if_complete(c, source.job_id)


def sources(c: apsw.Connection) -> set[tuple[str, int]]:
    """Every upload that still has to be taken in, as (job, number)."""
    return {(row[0], row[1]) for row in fetch_all(c, "SELECT job_id, n FROM sources")}


def _waiting(c: apsw.Connection, image_key: int) -> list[tuple[str, int]]:
    rows = fetch_all(c, "SELECT job_id, n FROM job_items WHERE image_key = ? AND status = 'queued'", (image_key,))
    return [(job_id, n) for job_id, n in rows]
