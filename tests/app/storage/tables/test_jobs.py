from __future__ import annotations

import random
from typing import Any

from app.core.types import ItemError, ItemStatus, JobState
from app.storage.database import Database
from app.storage.tables import images, jobs, leases
from tests.support.makers import claim, finish, get_job, insert, new_image, new_job

ERROR = ItemError("image_corrupt", "cut off")


def item(database: Database, job: str, status: ItemStatus, image: Any = None, error: ItemError | None = None) -> None:
    pair = (image.key, image.id) if image else None
    database.write(lambda c: jobs.add_item(c, job, f"{status}.png", status, image=pair, error=error))


def source(database: Database, job: str, n: int = 1, kind: str = "archive", pending: int = 0) -> None:
    database.write(lambda c: jobs.add_upload(c, job, n, kind, f"{n}.zip", pending))


def take(database: Database, owner: str = "a") -> jobs.Upload | None:
    return database.write(lambda c: jobs.claim_upload(c, owner, 1e12))


def test_a_new_job_is_empty_and_queued(database: Database) -> None:
    job = get_job(database, new_job(database))
    assert (job.state, job.total, job.done, job.failed, job.duplicates) == (JobState.QUEUED, 0, 0, 0, 0)
    assert (job.started_at, job.finished_at, job.rate, job.eta_s) == (None, None, None, None)
    assert database.read(lambda c: jobs.get(c, "unknown")) is None


def test_items_are_numbered_counted_and_listed_by_status(database: Database) -> None:
    id = new_job(database, [1, 2])
    item(database, id, ItemStatus.FAILED, error=ERROR)
    item(database, id, ItemStatus.DUPLICATE, image=insert(database, 1))
    job = get_job(database, id)
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
    assert get_job(database, id).state is JobState.RUNNING
    seq = finish(database, second)
    job = get_job(database, id)
    assert (job.state, job.done, job.total, job.last_seq) == (JobState.SUCCEEDED, 2, 2, seq)
    assert job.finished_at is not None


def test_a_job_does_not_end_before_its_uploads_are_taken_in(database: Database) -> None:
    id = new_job(database, [1])
    source(database, id)
    finish(database, claim(database)[0])
    assert get_job(database, id).state is JobState.RUNNING
    taken = take(database)
    assert taken is not None
    database.write(lambda c: jobs.finish_upload(c, taken))
    assert get_job(database, id).state is JobState.SUCCEEDED


def test_an_item_is_counted_in_every_job_that_waits_for_its_picture(database: Database) -> None:
    first = new_job(database, [1])
    second = new_job(database)
    item(database, second, ItemStatus.QUEUED, image=insert(database, 1))
    finish(database, claim(database)[0])
    assert [get_job(database, id).state for id in (first, second)] == [JobState.SUCCEEDED] * 2


def test_the_total_of_a_folder_is_known_at_once_and_that_of_an_archive_when_it_is_expanded(database: Database) -> None:
    id = new_job(database)
    source(database, id, 0, "folder", pending=5)
    source(database, id, 1, "archive")
    assert get_job(database, id).total == 5
    take(database, "a")
    taken = take(database, "b")
    assert taken is not None
    assert taken.kind == "archive"

    def chunk(c: Any) -> None:
        for _ in range(2):
            jobs.add_item(c, id, "x", ItemStatus.FAILED, error=ERROR)
        jobs.record_progress(c, taken, 2, 8, 0)

    database.write(chunk)
    assert get_job(database, id).total == 5 + 2 + 8
    database.write(lambda c: jobs.record_progress(c, taken, 10, 0, 0))
    assert get_job(database, id).total == 5 + 2


def test_uploads_are_claimed_oldest_first_each_by_one_owner(database: Database) -> None:
    first, second = new_job(database), new_job(database)
    source(database, second, 1)
    source(database, first, 2)
    source(database, first, 1)
    taken = [take(database, owner) for owner in "abcd"]
    got = [(one.job_id, one.n) for one in taken if one is not None]
    assert set(got[:2]) | set(got[2:]) == {(first, 1), (first, 2), (second, 1)}
    assert got.index((first, 1)) < got.index((first, 2))
    assert taken[3] is None
    assert database.read(jobs.sources) == {(first, 1), (first, 2), (second, 1)}
    assert get_job(database, first).state is JobState.RUNNING


def test_an_upload_remembers_how_far_it_is_and_progress_clears_its_attempts(database: Database) -> None:
    id = new_job(database)
    source(database, id)
    for death in (1, 2):
        taken = take(database)
        assert taken is not None
        assert taken.attempts == death
        database.write(lambda c: leases.expire_leases(c, {"a"}, 0.0, 3))
    taken = take(database)
    assert taken is not None
    database.write(lambda c: jobs.record_progress(c, taken, 64, 36, 0))
    database.write(lambda c: leases.expire_leases(c, {"a"}, 0.0, 3))
    again = take(database)
    assert again is not None
    assert (again.imported, again.attempts) == (64, 2)


def test_giving_an_upload_back_gives_back_the_attempt(database: Database) -> None:
    id = new_job(database)
    source(database, id)
    taken = take(database)
    assert taken is not None
    database.write(lambda c: jobs.release_upload(c, "b", taken))
    assert database.read(lambda c: jobs.holds_upload(c, "a", taken))
    database.write(lambda c: jobs.release_upload(c, "a", taken))
    assert not database.read(lambda c: jobs.holds_upload(c, "a", taken))
    again = take(database, "b")
    assert again is not None
    assert again.attempts == 1


def test_an_owner_gets_back_the_upload_that_it_could_not_give_back(database: Database) -> None:
    id = new_job(database)
    source(database, id)
    assert take(database, "a") is not None
    assert take(database, "b") is None
    assert take(database, "a") is not None


def test_recent_jobs_come_newest_first(database: Database) -> None:
    made = [new_job(database) for _ in range(5)]
    found = [job.id for job in database.read(lambda c: jobs.list_recent(c, 3))]
    assert found == made[:1:-1]


def test_rate_and_time_left_come_from_what_is_gone(database: Database) -> None:
    row = ["id", "default", "bulk", "running", 100, 30, 10, 10, "2026-01-01T00:00:00.000Z"]
    ended = jobs.job_from_row([*row, "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:10.000Z", 7, 4])
    assert (ended.rate, ended.eta_s, ended.last_seq) == (5.0, None, 7)
    running = jobs.job_from_row([*row, "2026-01-01T00:00:00.000Z", None, 7, 4])
    assert running.rate is not None
    assert running.rate < 5
    assert jobs.job_from_row([*row[:5], 0, 0, 0, row[8], "2026-01-01T00:00:00.000Z", None, 0, 4]).rate is None
    assert jobs.job_from_row([*row, None, None, 0, 4]).rate is None


def test_the_counters_always_add_up(database: Database) -> None:
    """Random steps of uploads, claims, deaths, failures, deletions and duplicates, checked after each."""
    dice = random.Random(7)
    made = [new_job(database) for _ in range(3)]
    number = 0

    def check() -> None:
        for id in made:
            job = get_job(database, id)
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
            added = images.add(c, "default", new_image(n), id, False)
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
                    database.write(lambda c, lease=lease: leases.fail_image(c, lease, ERROR))  # type: ignore[misc]
                elif outcome == 1:
                    database.write(lambda c: leases.expire_leases(c, {"w"}, 0.0, 2))
                else:
                    finish(database, lease)
        check()
    while claimed := claim(database):
        for lease in claimed:
            finish(database, lease)
    check()
    for id in made:
        job = get_job(database, id)
        assert job.done + job.failed + job.duplicates == job.total > 0
        assert job.state is JobState.SUCCEEDED
