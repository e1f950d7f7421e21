"""The jobs of the past: what ended long ago is forgotten, a few rows at a time. Its pictures stay."""

from __future__ import annotations

import apsw

from app.store import jobs
from app.store.rows import fetch_all, fetch_one

ENDED = (
    "state IN ('succeeded', 'failed', 'cancelled') AND finished_at < ?"
    " AND NOT EXISTS (SELECT 1 FROM job_items WHERE job_id = jobs.id AND status = 'queued')"
)


def ended(c: apsw.Connection, before: str, limit: int) -> list[str]:
    """Up to `limit` jobs that ended before a moment, the oldest first."""
    sql = "SELECT id FROM jobs WHERE finished_at IS NOT NULL AND " + ENDED + " ORDER BY finished_at LIMIT ?"
    return [id for (id,) in fetch_all(c, sql, (before, limit))]


def forget(c: apsw.Connection, id: str, before: str, limit: int) -> bool:
    """Remove up to `limit` items of such a job, then the job; False when there is nothing left to remove.

    One that was taken up again meanwhile stays.
    """
    if fetch_one(c, "SELECT 1 FROM jobs WHERE id = ? AND " + ENDED, (id, before)) is None:
        return False
    if jobs.forget_items(c, id, limit) == limit:
        return True
    c.execute("DELETE FROM jobs WHERE id = ?", (id,))
    c.execute(
        "DELETE FROM collections WHERE name IS NULL AND swept = 1"
        " AND NOT EXISTS (SELECT 1 FROM jobs WHERE collection = collections.label)"
    )
    return False
