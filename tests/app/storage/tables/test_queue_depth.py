from __future__ import annotations

from typing import Any

from app.core.types import JobState
from app.storage.library import Library
from app.storage.tables import jobs
from app.storage.tables.queue_depth import read_backlog
from tests.support.makers import add_image, claim, finish
from tests.support.pictures import picture


def test_pictures_uploads_and_jobs_are_counted_with_the_age_of_the_oldest(library: Library) -> None:
    database = library.database
    empty = database.read(read_backlog)
    assert empty.oldest == 0
    assert set(empty.images.values()) == {0}
    assert set(empty.jobs) == set(JobState)
    assert {"queued", "running"} <= set(empty.jobs_oldest)
    assert not {"succeeded", "failed", "cancelled"} & set(empty.jobs_oldest)
    add_image(library, picture("red"), id="ready")
    for lease in claim(database):
        finish(database, lease)
    add_image(library, picture("green"), id="old")
    add_image(library, picture("blue"), id="young")

    def work(c: Any) -> None:
        c.execute("UPDATE images SET created_at = '2020-01-01T00:00:00Z' WHERE id IN ('old', 'ready')")
        c.execute("UPDATE images SET attempts = 1 WHERE id = 'young'")
        old = jobs.create(c, "default", "bulk")
        jobs.add_upload(c, old, 0, "archive", "a.zip", 0)
        c.execute("UPDATE jobs SET created_at = '2021-01-01T00:00:00Z'")

    database.write(work)
    now = database.read(read_backlog)
    assert (now.images["ready"], now.images["queued"], now.retrying, now.sources) == (1, 2, 1, 1)
    assert now.jobs["queued"] == 1
    assert now.oldest > 86_400 * 365 * 6
    assert 86_400 * 365 * 5 < now.jobs_oldest["queued"] < now.oldest
    assert now.jobs_oldest["running"] == 0
    database.write(lambda c: c.execute("UPDATE images SET status = 'failed' WHERE id = 'old'"))
    assert database.read(read_backlog).oldest < 3600
