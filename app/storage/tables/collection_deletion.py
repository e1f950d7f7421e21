"""Deletes a collection: one commit takes its name away, many small ones delete its rows.

After the first commit no request can name it, so nothing is added to it, and workers lose their leases on its
pictures. `list_pending` finds what a kill left in between.
"""

from __future__ import annotations

from collections.abc import Callable

from app.storage.sql import Connection, fetch_all, fetch_one
from app.storage.tables import (
    collections,
    heads,
    images,
    job_control,
    jobs,
    label_sets,
    saved_searches,
    videos,
    watches,
    work_queue,
)


def begin(c: Connection, name: str) -> tuple[str, list[tuple[str, int]]]:
    """Take the name away and cancel the jobs.

    Returns the label, and the uploads (job, number) whose files the caller removes. Raises NotFound.
    """
    collection = collections.require(c, name)
    c.execute("UPDATE collections SET name = NULL, space = NULL, head = NULL WHERE label = ?", (collection.label,))
    # No search finds what its jobs added, so nobody may wait until an index has it.
    c.execute("UPDATE jobs SET last_seq = 0 WHERE collection = ?", (collection.label,))
    running = fetch_all(
        c, "SELECT id FROM jobs WHERE collection = ? AND state IN ('queued', 'running')", (collection.label,)
    )
    uploads = [(id, n) for (id,) in running for n in job_control.cancel(c, id)]
    work_queue.hold_collection(c, collection.label)
    watches.delete_of_collection(c, collection.label)
    return collection.label, uploads


def list_pending(c: Connection) -> list[str]:
    """The labels whose rows are still to be deleted."""
    rows = fetch_all(c, "SELECT label FROM collections WHERE name IS NULL AND swept = 0 ORDER BY label")
    return [label for (label,) in rows]


def delete_batch(c: Connection, label: str, limit: int, unused: Callable[[str], None]) -> bool:
    """Delete up to `limit` rows of each kind; False when there were none.

    Calls `unused` inside the transaction with the digest of each file that no row uses any more.
    """
    removed = _delete_items(c, label, limit) + watches.delete_unused_files(c, limit)
    rows = fetch_all(c, "SELECT key, sha256 FROM images WHERE collection = ? ORDER BY key LIMIT ?", (label, limit))
    for key, _ in rows:
        c.execute("DELETE FROM embeddings WHERE target = 'images' AND key = ?", (key,))
        images.delete(c, key)
    files = videos.delete_of_collection(c, label, limit)
    for digest in {*(digest for _, digest in rows), *files}:
        if images.count_uses(c, digest) == 0:
            unused(digest)
    removed += len(rows) + len(files)
    c.execute("DELETE FROM texts WHERE key IN (SELECT key FROM texts WHERE collection = ? LIMIT ?)", (label, limit))
    removed += c.changes()
    c.execute(
        "DELETE FROM embeddings WHERE seq IN (SELECT seq FROM embeddings WHERE collection = ? LIMIT ?)", (label, limit)
    )
    return removed + c.changes() > 0


def finish(c: Connection, label: str) -> None:
    """Delete the row of a collection whose rows are all deleted; it stays while there are jobs with its label."""
    for table in (heads, label_sets, saved_searches):
        table.delete_of_collection(c, label)
    c.execute(
        "DELETE FROM collections WHERE label = ?1 AND name IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM jobs WHERE collection = ?1)",
        (label,),
    )
    c.execute("UPDATE collections SET swept = 1 WHERE label = ? AND name IS NULL", (label,))


def _delete_items(c: Connection, label: str, limit: int) -> int:
    """Delete items of one of its jobs. Items that still wait fail first, so that the counts of the job add up."""
    job = fetch_one(
        c,
        "SELECT id FROM jobs WHERE collection = ? AND EXISTS (SELECT 1 FROM job_items WHERE job_id = jobs.id) LIMIT 1",
        (label,),
    )
    if job is None:
        return 0
    job_control.fail_waiting_items(c, job[0], limit)
    return jobs.delete_items(c, job[0], limit)
