from __future__ import annotations

from typing import Any

from app.core.types import ItemError, JobState
from app.storage.database import Database
from app.storage.library import Library
from app.storage.tables import images, jobs, queue_depth, work_queue
from app.storage.tables.queue_depth import read_backlog
from tests.support.makers import add, claim, finish, insert, new, new_job
from tests.support.pictures import picture


def depth(database: Database) -> tuple[int, int]:
    now = database.read(queue_depth.read_depth)
    return now.items, now.bytes


def test_pictures_count_until_they_are_ready_failed_or_gone(database: Database) -> None:
    assert depth(database) == (0, 0)
    for n in range(4):
        insert(database, n, f"i{n}")  # of 10 + n bytes
    assert depth(database) == (4, 46)
    first, second, third, _ = claim(database)
    assert depth(database) == (4, 46)
    finish(database, first)
    database.write(lambda c: images.fail(c, second.image.key, ItemError("image_corrupt", "cut off")))
    assert depth(database) == (2, 25)
    database.write(lambda c: images.delete(c, third.image.key))
    assert depth(database) == (1, 13)
    database.write(lambda c: images.add(c, "default", new(20, "i3"), None, True))
    assert depth(database) == (1, 30)
    database.write(lambda c: images.requeue_all(c) and None)
    assert depth(database) == (3, 10 + 11 + 30)


def test_uploads_count_until_they_are_imported(database: Database) -> None:
    id = new_job(database)
    database.write(lambda c: work_queue.add_upload(c, id, 0, "folder", "", 10, size=1000))
    database.write(lambda c: work_queue.add_upload(c, id, 1, "archive", "a.zip", 0, size=500))
    assert depth(database) == (11, 1500)
    source = database.write(lambda c: work_queue.claim_upload(c, "a", 1e12))
    assert source is not None
    database.write(lambda c: work_queue.record_progress(c, source, 4, 6, 0))
    assert depth(database) == (7, 1100)
    database.write(lambda c: work_queue.finish_upload(c, source))
    assert depth(database) == (1, 500)


def test_pictures_uploads_and_jobs_are_counted_with_the_age_of_the_oldest(library: Library) -> None:
    database = library.database
    empty = database.read(read_backlog)
    assert empty.oldest_seconds == 0
    assert set(empty.images.values()) == {0}
    assert set(empty.jobs) == set(JobState)
    assert {"queued", "running"} <= set(empty.oldest_job_seconds)
    assert not {"succeeded", "failed", "cancelled"} & set(empty.oldest_job_seconds)
    add(library, picture("red"), id="ready")
    for lease in claim(database):
        finish(database, lease)
    add(library, picture("green"), id="old")
    add(library, picture("blue"), id="young")

    def work(c: Any) -> None:
        c.execute("UPDATE images SET created_at = '2020-01-01T00:00:00Z' WHERE id IN ('old', 'ready')")
        c.execute("UPDATE images SET attempts = 1 WHERE id = 'young'")
        old = jobs.create(c, "default", "bulk")
        work_queue.add_upload(c, old, 0, "archive", "a.zip", 0)
        c.execute("UPDATE jobs SET created_at = '2021-01-01T00:00:00Z'")

    database.write(work)
    now = database.read(read_backlog)
    assert (now.images["ready"], now.images["queued"], now.retrying, now.uploads) == (1, 2, 1, 1)
    assert now.depth == database.read(queue_depth.read_depth)
    assert now.depth.items == 3
    assert now.jobs["queued"] == 1
    assert now.oldest_seconds > 86_400 * 365 * 6
    assert 86_400 * 365 * 5 < now.oldest_job_seconds["queued"] < now.oldest_seconds
    assert now.oldest_job_seconds["running"] == 0
    database.write(lambda c: c.execute("UPDATE images SET status = 'failed' WHERE id = 'old'"))
    assert database.read(read_backlog).oldest_seconds < 3600
