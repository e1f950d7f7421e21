"""What a person may do to a job: cancel it, and retry what failed. Both go in steps, so that no commit is long."""

from __future__ import annotations

import apsw

from app.core.clock import now_rfc3339
from app.core.types import ItemError, ItemStatus
from app.storage.sql import fetch_all, fetch_one
from app.storage.tables import fair_queue, images, jobs
from app.storage.tables.jobs import LEAST_TURN

OPEN = " AND state IN ('queued', 'running')"
CANCELLED = ItemError("cancelled", "the job was cancelled before this was processed; retry the job to take it up again")


def pause(c: apsw.Connection, id: str) -> None:
    """Give a job that has not ended no turn any more; what is leased of it is finished."""
    c.execute("UPDATE jobs SET paused = 1 WHERE id = ?" + OPEN, (id,))
    if c.changes():
        fair_queue.hold(c, id)


def resume(c: apsw.Connection, id: str) -> None:
    """Let a paused job go on, beginning where the others are."""
    c.execute("UPDATE jobs SET paused = 0, turn = " + LEAST_TURN + " WHERE id = ? AND paused = 1", (id,))
    if c.changes():
        fair_queue.free(c, id)


def cancel(c: apsw.Connection, id: str) -> list[int]:
    """End a job that has not ended, and forget its uploads that are not taken in; returns their numbers.

    Its waiting pictures are next, see `drop`.
    """
    c.execute(
        "UPDATE jobs SET state = 'cancelled', paused = 0, finished_at = ? WHERE id = ?" + OPEN,
        (now_rfc3339(), id),
    )
    if not c.changes():
        return []
    fair_queue.free(c, id)
    numbers = [n for (n,) in fetch_all(c, "SELECT n FROM sources WHERE job_id = ? ORDER BY n", (id,))]
    c.execute("DELETE FROM sources WHERE job_id = ?", (id,))
    return numbers


def fail_waiting_items(c: apsw.Connection, id: str, limit: int) -> int:
    """Fail up to `limit` waiting items of a cancelled job, and their pictures; returns how many there were.

    The pictures stay, with their bytes: somebody else may have been told that they are here already.
    """
    rows = fetch_all(
        c,
        "SELECT n, image_key FROM job_items INDEXED BY job_items_listed"
        " WHERE job_id = ? AND status = 'queued' ORDER BY n LIMIT ?",
        (id, limit),
    )
    for n, key in rows:
        other = fetch_one(
            c, "SELECT 1 FROM job_items WHERE image_key = ? AND status = 'queued' AND job_id <> ?", (key, id)
        )
        if other is None:
            images.fail(c, key, CANCELLED)
        jobs.set_item_status(c, id, n, ItemStatus.FAILED, CANCELLED)
    c.execute("UPDATE jobs SET failed = failed + ? WHERE id = ?", (len(rows), id))
    return len(rows)


def list_unfinished_cancellations(c: apsw.Connection) -> list[str]:
    """The cancelled jobs that still have waiting items: a server was killed while it dropped them."""
    rows = fetch_all(
        c,
        "SELECT id FROM jobs WHERE state = 'cancelled'"
        " AND EXISTS (SELECT 1 FROM job_items WHERE job_id = jobs.id AND status = 'queued')",
    )
    return [id for (id,) in rows]


def retry(c: apsw.Connection, id: str, after: int, limit: int) -> int | None:
    """Queue up to `limit` failed items numbered past `after` again; returns the last number, None when there is none.

    Only pictures whose bytes are here can be retried: what was refused at the door is not.
    """
    rows = fetch_all(
        c,
        "SELECT i.n, i.image_key FROM job_items i INDEXED BY job_items_listed JOIN images m ON m.key = i.image_key"
        " JOIN collections o ON o.label = m.collection AND o.name IS NOT NULL"
        " WHERE i.job_id = ? AND i.status = 'failed' AND i.n > ? AND m.status = 'failed' ORDER BY i.n LIMIT ?",
        (id, after, limit),
    )
    if not rows:
        return None
    for n, key in rows:
        images.requeue(c, key, id)
        jobs.set_item_status(c, id, n, ItemStatus.QUEUED, None)
    c.execute(
        "UPDATE jobs SET state = iif(state = 'running', state, 'queued'), failed = failed - ?, finished_at = NULL,"
        " started_at = iif(state = 'running', started_at, NULL) WHERE id = ?",
        (len(rows), id),
    )
    return int(rows[-1][0])


ENDED = (
    "state IN ('succeeded', 'failed', 'cancelled') AND finished_at < ?"
    " AND NOT EXISTS (SELECT 1 FROM job_items WHERE job_id = jobs.id AND status = 'queued')"
)


def list_ended(c: apsw.Connection, before: str, limit: int) -> list[str]:
    """Up to `limit` jobs that ended before a moment, the oldest first."""
    sql = "SELECT id FROM jobs WHERE finished_at IS NOT NULL AND " + ENDED + " ORDER BY finished_at LIMIT ?"
    return [id for (id,) in fetch_all(c, sql, (before, limit))]


def delete_ended(c: apsw.Connection, id: str, before: str, limit: int) -> bool:
    """Remove up to `limit` items of such a job, then the job; False when there is nothing left to remove.

    One that was taken up again meanwhile stays.
    """
    if fetch_one(c, "SELECT 1 FROM jobs WHERE id = ? AND " + ENDED, (id, before)) is None:
        return False
    if jobs.delete_items(c, id, limit) == limit:
        return True
    c.execute("DELETE FROM jobs WHERE id = ?", (id,))
    c.execute(
        "DELETE FROM collections WHERE name IS NULL AND swept = 1"
        " AND NOT EXISTS (SELECT 1 FROM jobs WHERE collection = collections.label)"
    )
    return False
