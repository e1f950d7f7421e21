from __future__ import annotations

from app.core.types import ItemError, ItemStatus, JobState, Status
from app.storage.database import Database
from app.storage.sql import fetch_all, fetch_number
from app.storage.tables import collection_deletion, collections, images, job_control, jobs
from tests.app.storage.tables.test_jobs import item
from tests.support.makers import add_upload, claim, claim_upload, finish, image_of, insert, job_of, new_job

BAD = ItemError("image_corrupt", "cut off")


def cancel(database: Database, id: str) -> list[int]:
    return database.write(lambda c: job_control.cancel(c, id))


def drop(database: Database, id: str, limit: int = 100) -> int:
    return database.write(lambda c: job_control.fail_waiting_items(c, id, limit))


def retry(database: Database, id: str, after: int = 0, limit: int = 100) -> int | None:
    return database.write(lambda c: job_control.retry(c, id, after, limit))


def statuses(database: Database, id: str) -> list[tuple[str, str | None]]:
    found = database.read(lambda c: jobs.list_items(c, id, None, 0, 100))
    return [(one.status.value, one.error.code if one.error else None) for _, one in found]


def counts(database: Database, id: str) -> tuple[int, int, int, int]:
    job = job_of(database, id)
    return job.total, job.done, job.failed, job.duplicates


def test_a_cancelled_job_ends_at_once_and_forgets_its_uploads(database: Database) -> None:
    id = new_job(database, [1])
    add_upload(database, id, 1, pending=70)
    add_upload(database, id, 2)
    assert cancel(database, id) == [1, 2]
    job = job_of(database, id)
    assert (job.state, job.total, job.finished_at is None) == (JobState.CANCELLED, 1, False)
    assert claim_upload(database) is None
    assert cancel(database, id) == []


def test_a_job_that_has_ended_is_not_cancelled(database: Database) -> None:
    id = new_job(database, [1])
    finish(database, claim(database)[0])
    before = job_of(database, id)
    assert before.state is JobState.SUCCEEDED
    assert cancel(database, id) == []
    assert job_of(database, id) == before


def test_cancelling_fails_waiting_pictures_and_keeps_ready_ones(database: Database) -> None:
    id = new_job(database, [1, 2, 3, 4])
    ready, leased = claim(database, limit=2)
    finish(database, ready)
    cancel(database, id)
    assert database.read(job_control.list_unfinished_cancellations) == [id]
    assert [drop(database, id, 2), drop(database, id, 2), drop(database, id, 2)] == [2, 1, 0]
    assert database.read(job_control.list_unfinished_cancellations) == []
    assert statuses(database, id) == [("done", None), *[("failed", "cancelled")] * 3]
    assert counts(database, id) == (4, 1, 3, 0)
    assert image_of(database, ready.image.id).status is Status.READY
    assert finish(database, leased) is None  # whoever was at it comes too late
    stopped = image_of(database, leased.image.id)
    assert (stopped.status, stopped.error) == (Status.FAILED, job_control.CANCELLED)
    assert claim(database) == []


def test_a_picture_that_another_job_waits_for_stays_queued(database: Database) -> None:
    first = new_job(database, [1])
    second = new_job(database)
    item(database, second, ItemStatus.QUEUED, image=insert(database, 1))
    cancel(database, first)
    drop(database, first)
    finish(database, claim(database)[0])
    assert (job_of(database, first).state, statuses(database, first)) == (
        JobState.CANCELLED,
        [("failed", "cancelled")],
    )
    assert (job_of(database, second).state, counts(database, second)) == (JobState.SUCCEEDED, (1, 1, 0, 0))


def test_a_retry_queues_failed_pictures_whose_bytes_are_stored(database: Database) -> None:
    id = new_job(database, [1, 2, 3])
    item(database, id, ItemStatus.FAILED, error=BAD)  # refused at the door
    good, bad, gone = claim(database)
    finish(database, good)
    for lease in (bad, gone):
        database.write(lambda c, key=lease.image.key: images.fail(c, key, BAD))  # type: ignore[misc]
        database.write(lambda c, key=lease.image.key: jobs.fail_items(c, key, BAD))  # type: ignore[misc]
    database.write(lambda c: images.delete(c, gone.image.key))
    assert (job_of(database, id).state, counts(database, id)) == (JobState.SUCCEEDED, (4, 1, 3, 0))
    assert retry(database, id) == 2
    job = job_of(database, id)
    assert (job.state, job.finished_at, counts(database, id)) == (JobState.QUEUED, None, (4, 1, 2, 0))
    assert statuses(database, id)[1] == ("queued", None)
    again = image_of(database, bad.image.id)
    assert (again.status, again.error) == (Status.QUEUED, None)
    finish(database, claim(database)[0])
    assert (job_of(database, id).state, counts(database, id)) == (JobState.SUCCEEDED, (4, 2, 2, 0))


def test_a_retry_continues_behind_the_items_that_it_has_queued(database: Database) -> None:
    id = new_job(database, [1, 2, 3])
    cancel(database, id)
    drop(database, id)
    assert retry(database, id, 0, 2) == 2
    assert retry(database, id, 2, 2) == 3
    assert retry(database, id, 3, 2) is None
    assert counts(database, id) == (3, 0, 0, 0)


def test_a_retry_of_a_running_job_leaves_it_running(database: Database) -> None:
    id = new_job(database, [1, 2])
    bad = claim(database, limit=1)[0]
    database.write(lambda c: images.fail(c, bad.image.key, BAD))
    database.write(lambda c: jobs.fail_items(c, bad.image.key, BAD))
    before = job_of(database, id)
    retry(database, id)
    job = job_of(database, id)
    assert (job.state, job.started_at) == (JobState.RUNNING, before.started_at)


def test_a_retry_of_nothing_changes_nothing(database: Database) -> None:
    id = new_job(database, [1])
    finish(database, claim(database)[0])
    before = job_of(database, id)
    assert retry(database, id) is None
    assert job_of(database, id) == before


LONG_AGO, LATER = "2000-01-01", "2999-01-01"


def list_ended(database: Database, before: str = LATER) -> list[str]:
    return database.read(lambda c: job_control.list_ended(c, before, 10))


def forget(database: Database, id: str, limit: int = 100) -> bool:
    return database.write(lambda c: job_control.delete_ended(c, id, LATER, limit))


def test_ended_jobs_are_deleted_in_steps_and_their_pictures_stay(database: Database) -> None:
    id = new_job(database, [1, 2, 3])
    images = [lease.image.id for lease in claim(database) if finish(database, lease)]
    assert (list_ended(database, LONG_AGO), list_ended(database)) == ([], [id])
    assert [forget(database, id, 2), forget(database, id, 2), forget(database, id, 2)] == [True, False, False]
    assert database.read(lambda c: jobs.get(c, id)) is None
    assert database.read(lambda c: fetch_number(c, "SELECT count(*) FROM job_items")) == 0
    assert [image_of(database, image).job_id for image in images] == [id] * 3


def test_jobs_that_go_on_are_never_deleted(database: Database) -> None:
    running, cancelled, again = new_job(database, [1]), new_job(database, [2]), new_job(database, [3])
    for id in (cancelled, again):
        database.write(lambda c, id=id: job_control.cancel(c, id))  # type: ignore[misc]
    assert list_ended(database) == []  # what they wait for is not dropped yet
    for id in (cancelled, again):
        database.write(lambda c, id=id: job_control.fail_waiting_items(c, id, 10))  # type: ignore[misc]
    assert list_ended(database) == [cancelled, again]
    database.write(lambda c: job_control.retry(c, again, 0, 10))
    assert forget(database, again) is False
    assert [job_of(database, id).total for id in (running, again)] == [1, 1]


def test_the_label_of_a_deleted_collection_goes_with_its_last_job(database: Database) -> None:
    database.write(lambda c: collections.create(c, "gone", ""))
    made = [database.write(lambda c: jobs.create(c, "gone", "bulk")) for _ in range(2)]
    label, _ = database.write(lambda c: collection_deletion.begin(c, "gone"))
    database.write(lambda c: collection_deletion.finish(c, label))

    def labels() -> list[str]:
        return [row[0] for row in database.read(lambda c: fetch_all(c, "SELECT label FROM collections"))]

    for id, left in zip(made, (["default", label], ["default"]), strict=True):
        assert forget(database, id) is False
        assert sorted(labels()) == sorted(left)
