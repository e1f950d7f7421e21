from __future__ import annotations

import random
from typing import Any

from app.core.types import ItemError, ItemStatus, JobState
from app.storage.database import Database
from app.storage.tables import images, jobs, work_queue
from tests.support.makers import add_upload, claim, claim_upload, finish, insert, job_of, new, new_job

ERROR = ItemError("image_corrupt", "cut off")


def item(database: Database, job: str, status: ItemStatus, image: Any = None, error: ItemError | None = None) -> None:
    pair = (image.key, image.id) if image else None
    database.write(lambda c: jobs.add_item(c, job, f"{status}.png", status, image=pair, error=error))


def test_a_new_job_is_empty_and_queued(database: Database) -> None:
    job = job_of(database, new_job(database))
    assert (job.state, job.total, job.done, job.failed, job.duplicates) == (JobState.QUEUED, 0, 0, 0, 0)
    assert (job.started_at, job.finished_at, job.rate, job.eta_s) == (None, None, None, None)
    assert database.read(lambda c: jobs.get(c, "unknown")) is None


def test_items_are_numbered_counted_and_listed_by_status(database: Database) -> None:
    id = new_job(database, [1, 2])
    item(database, id, ItemStatus.FAILED, error=ERROR)
    item(database, id, ItemStatus.DUPLICATE, image=insert(database, 1))
    job = job_of(database, id)
    assert (job.total, job.failed, job.duplicates, job.done) == (4, 1, 1, 0)

    def items(status: ItemStatus | None, after: int = 0, limit: int = 10) -> list[tuple[int, str]]:
        found = database.read(lambda c: jobs.list_items(c, id, status, after, limit))
        return [(n, one.status.value) for n, one in found]

    assert items(None) == [(1, "queued"), (2, "queued"), (3, "failed"), (4, "duplicate")]
    assert items(None, after=1, limit=2) == [(2, "queued"), (3, "failed")]
    assert items(ItemStatus.FAILED) == [(3, "failed")]
    assert items(ItemStatus.QUEUED, after=1) == [(2, "queued")]
    ((_, failed),) = database.read(lambda c: jobs.list_items(c, id, ItemStatus.FAILED, 0, 10))
    assert (failed.name, failed.error, failed.image_id) == ("failed.png", ERROR, None)


def test_a_job_ends_when_its_last_picture_does_and_remembers_the_last_log_number(database: Database) -> None:
    id = new_job(database, [1, 2])
    first, second = claim(database)
    finish(database, first)
    assert job_of(database, id).state is JobState.RUNNING
    seq = finish(database, second)
    job = job_of(database, id)
    assert (job.state, job.done, job.total, job.last_seq) == (JobState.SUCCEEDED, 2, 2, seq)
    assert job.finished_at is not None


def test_a_job_does_not_end_before_its_uploads_are_imported(database: Database) -> None:
    id = new_job(database, [1])
    add_upload(database, id)
    finish(database, claim(database)[0])
    assert job_of(database, id).state is JobState.RUNNING
    taken = claim_upload(database)
    assert taken is not None
    database.write(lambda c: work_queue.finish_upload(c, taken))
    assert job_of(database, id).state is JobState.SUCCEEDED


def test_an_item_is_counted_in_every_job_that_waits_for_its_picture(database: Database) -> None:
    first = new_job(database, [1])
    second = new_job(database)
    item(database, second, ItemStatus.QUEUED, image=insert(database, 1))
    finish(database, claim(database)[0])
    assert [job_of(database, id).state for id in (first, second)] == [JobState.SUCCEEDED] * 2


def test_the_total_of_a_folder_is_known_at_once_and_that_of_an_archive_when_it_is_expanded(database: Database) -> None:
    id = new_job(database)
    add_upload(database, id, 0, "folder", pending=5)
    add_upload(database, id, 1, "archive")
    assert job_of(database, id).total == 5
    claim_upload(database, "a")
    taken = claim_upload(database, "b")
    assert taken is not None
    assert taken.kind == "archive"

    def chunk(c: Any) -> None:
        for _ in range(2):
            jobs.add_item(c, id, "x", ItemStatus.FAILED, error=ERROR)
        work_queue.record_progress(c, taken, 2, 8, 0)

    database.write(chunk)
    assert job_of(database, id).total == 5 + 2 + 8
    database.write(lambda c: work_queue.record_progress(c, taken, 10, 0, 0))
    assert job_of(database, id).total == 5 + 2


def test_recent_jobs_come_newest_first(database: Database) -> None:
    made = [new_job(database) for _ in range(5)]
    # The clock was set back between two of them, and stood still between others.
    rows = [(f"2026-01-01T0{hour}:00:00.000Z", id) for id, hour in zip(made, (9, 9, 7, 7, 8), strict=True)]
    database.write(lambda c: c.executemany("UPDATE jobs SET created_at = ? WHERE id = ?", rows) and None)
    found = [job.id for job in database.read(lambda c: jobs.list_recent(c, 3))]
    assert found == made[:1:-1]
    assert [job.id for job in database.read(lambda c: jobs.list_recent(c, 3, ["default", "none"]))] == found
    assert database.read(lambda c: jobs.list_recent(c, 3, ["none"])) == []


NOTHING = ("{}", "[]", 0, None, 0, None, None)  # left out, no warnings, no name, no task


def test_rate_and_time_left_come_from_the_items_that_ended(database: Database) -> None:
    row = ["id", "default", "bulk", "running", 100, 30, 10, 10, "2026-01-01T00:00:00.000Z"]
    ended = jobs.job_from_row([*row, "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:10.000Z", 7, 4, *NOTHING])
    assert (ended.rate, ended.eta_s, ended.last_seq) == (5.0, None, 7)
    running = jobs.job_from_row([*row, "2026-01-01T00:00:00.000Z", None, 7, 4, *NOTHING])
    assert running.rate is not None
    assert running.rate < 5
    assert jobs.job_from_row([*row[:5], 0, 0, 0, row[8], "2026-01-01T00:00:00.000Z", None, 0, 4, *NOTHING]).rate is None
    assert jobs.job_from_row([*row, None, None, 0, 4, *NOTHING]).rate is None


def test_the_counters_always_add_up(database: Database) -> None:
    """Random steps of uploads, claims, deaths, failures, deletions and duplicates, checked after each."""
    dice = random.Random(7)
    made = [new_job(database) for _ in range(3)]
    number = 0

    def check() -> None:
        for id in made:
            job = job_of(database, id)
            listed = [one.status for _, one in database.read(lambda c, id=id: jobs.list_items(c, id, None, 0, 10_000))]  # type: ignore[misc]
            assert job.total == len(listed)
            assert job.done == listed.count(ItemStatus.DONE)
            assert job.failed == listed.count(ItemStatus.FAILED)
            assert job.duplicates == listed.count(ItemStatus.DUPLICATE)
            if job.finished_at:
                assert job.state is JobState.SUCCEEDED

    def upload(n: int) -> None:
        id = dice.choice(made)

        def work(c: Any) -> None:
            added = images.add(c, "default", new(n), id, False)
            status = ItemStatus.DUPLICATE if added.duplicate else ItemStatus.QUEUED
            jobs.add_item(c, id, f"{n}", status, image=(added.image.key, added.image.id))

        database.write(work)

    def delete() -> None:
        for image in database.read(lambda c: images.list_page(c, "default", 1, None)):

            def work(c: Any, key: int = image.key) -> None:
                jobs.fail_items(c, key, ERROR)
                images.delete(c, key)

            database.write(work)

    for _ in range(150):
        step = dice.randrange(6)
        if step < 2:
            number += 1
            upload(dice.randrange(number))
        elif step == 2:
            delete()
        else:
            for lease in claim(database, "w", limit=2):
                outcome = dice.randrange(4)
                if outcome == 0:
                    database.write(lambda c, lease=lease: work_queue.fail_image(c, lease, ERROR))  # type: ignore[misc]
                elif outcome == 1:
                    database.write(lambda c: work_queue.expire_leases(c, {"w"}, 2))
                else:
                    finish(database, lease)
        check()
    while claimed := claim(database):
        for lease in claimed:
            finish(database, lease)
    check()
    for id in made:
        job = job_of(database, id)
        assert job.done + job.failed + job.duplicates == job.total > 0
        assert job.state is JobState.SUCCEEDED
