"""Operations on a whole job: pause, resume, cancel, retry, delete. Long ones go in steps, so that no commit is long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.core.clock import now_rfc3339
from app.core.types import ItemError, ItemStatus, SourceSpec
from app.storage.sql import Connection, fetch_all, fetch_number, fetch_one
from app.storage.tables import images, jobs, work_queue

CANCELLED = ItemError("cancelled", "the job was cancelled before this was processed; retry the job to take it up again")


def resume(c: Connection, id: str) -> None:
    """Let a paused job go on; another stays as it is."""
    if fetch_one(c, "SELECT 1 FROM jobs WHERE id = ? AND paused = 1", (id,)) is not None:
        work_queue.resume_job(c, id)


def cancel(c: Connection, id: str) -> list[int]:
    """End a job that has not ended, and forget its uploads that are not imported; returns their numbers.

    `fail_waiting_items` does the rest.
    """
    sql = "UPDATE jobs SET state = 'cancelled', finished_at = ? WHERE id = ? AND state IN ('queued', 'running')"
    c.execute(sql, (now_rfc3339(), id))
    if not c.changes():
        return []
    work_queue.resume_job(c, id)
    return work_queue.drop_uploads(c, id)


def fail_waiting_items(c: Connection, id: str, limit: int) -> int:
    """Fail up to `limit` waiting items of a cancelled job, and their pictures; returns how many there were.

    The pictures stay, with their bytes: another request may have been answered that they are duplicates. A picture that
    an item of another job waits for stays queued.
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


def list_unfinished_cancellations(c: Connection) -> list[str]:
    """The cancelled jobs that still have waiting items: a server was killed while it failed these."""
    rows = fetch_all(
        c,
        "SELECT id FROM jobs WHERE state = 'cancelled'"
        " AND EXISTS (SELECT 1 FROM job_items WHERE job_id = jobs.id AND status = 'queued')",
    )
    return [id for (id,) in rows]


def retry(c: Connection, id: str, after: int, limit: int) -> int | None:
    """Queue up to `limit` failed items numbered past `after` again; returns the last number, None when there is none.

    Only pictures whose bytes are stored; `take_lost` is for those whose bytes never came.
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
    c.execute("UPDATE jobs SET failed = failed - ? WHERE id = ?", (len(rows), id))
    _begin_again(c, id)
    return int(rows[-1][0])


@dataclass(frozen=True, slots=True)
class LostItem:
    """A failed item whose bytes never came: its number, its source, and its line of the manifest."""

    n: int
    spec: SourceSpec
    line: dict[str, Any]

    @classmethod
    def parse(cls, n: int, text: str) -> LostItem:
        saved = json.loads(text)
        return cls(n, SourceSpec(**saved["source"]), saved["line"])


def format_lost(spec: SourceSpec, line: dict[str, Any]) -> str:
    """What an item keeps, so that its source can bring it again."""
    return json.dumps({"source": asdict(spec), "line": line})


def list_lost(c: Connection, id: str, limit: int) -> list[LostItem]:
    """Up to `limit` failed items of a job whose bytes never came, if its collection still has its name."""
    rows = fetch_all(
        c,
        "SELECT i.n, i.retry FROM job_items i INDEXED BY job_items_lost JOIN jobs j ON j.id = i.job_id"
        " JOIN collections o ON o.label = j.collection AND o.name IS NOT NULL"
        " WHERE i.job_id = ? AND i.retry IS NOT NULL AND i.status = 'failed' ORDER BY i.n LIMIT ?",
        (id, limit),
    )
    return [LostItem.parse(n, text) for n, text in rows]


def take_lost(c: Connection, id: str, items: Sequence[LostItem]) -> bool:
    """Remove these items from a job, which goes on; False, and nothing is changed, if some are gone already."""
    numbers = json.dumps([item.n for item in items])
    where = " FROM job_items WHERE job_id = ? AND status = 'failed' AND n IN (SELECT value FROM json_each(?))"
    if fetch_number(c, "SELECT count(*)" + where, (id, numbers)) < len(items):
        return False
    c.execute("DELETE" + where, (id, numbers))
    c.execute("UPDATE jobs SET total = total - ?1, failed = failed - ?1 WHERE id = ?2", (len(items), id))
    _begin_again(c, id)
    return True


def _begin_again(c: Connection, id: str) -> None:
    c.execute(
        "UPDATE jobs SET state = iif(state = 'running', state, 'queued'), finished_at = NULL,"
        " started_at = iif(state = 'running', started_at, NULL) WHERE id = ?",
        (id,),
    )


def reopen(c: Connection, id: str) -> None:
    """Let a job that is complete go on with further uploads; another stays as it is."""
    c.execute("UPDATE jobs SET state = 'queued', finished_at = NULL WHERE id = ? AND state = 'succeeded'", (id,))


ENDED = (
    "state IN ('succeeded', 'failed', 'cancelled') AND finished_at < ?"
    " AND NOT EXISTS (SELECT 1 FROM job_items WHERE job_id = jobs.id AND status = 'queued')"
)


def list_ended(c: Connection, before: str, limit: int) -> list[str]:
    """Up to `limit` jobs that ended before a moment, the oldest first."""
    sql = "SELECT id FROM jobs WHERE finished_at IS NOT NULL AND " + ENDED + " ORDER BY finished_at LIMIT ?"
    return [id for (id,) in fetch_all(c, sql, (before, limit))]


def delete_ended(c: Connection, id: str, before: str, limit: int) -> bool:
    """Remove up to `limit` items of a job that ended before a moment, then the job; False when nothing is left of it.

    A job that was retried meanwhile stays.
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
