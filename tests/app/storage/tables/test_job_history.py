from __future__ import annotations

from app.storage.database import Database
from app.storage.sql import fetch_all, fetch_number
from app.storage.tables import collection_deletion, collections, job_control, jobs
from tests.support.makers import claim, finish, get_image, get_job, new_job

LONG_AGO, LATER = "2000-01-01", "2999-01-01"


def ended(database: Database, before: str = LATER) -> list[str]:
    return database.read(lambda c: job_control.list_ended(c, before, 10))


def forget(database: Database, id: str, limit: int = 100) -> bool:
    return database.write(lambda c: job_control.delete_ended(c, id, LATER, limit))


def test_jobs_that_ended_before_are_forgotten_in_steps_and_their_pictures_stay(database: Database) -> None:
    id = new_job(database, [1, 2, 3])
    images = [lease.image.id for lease in claim(database) if finish(database, lease)]
    assert (ended(database, LONG_AGO), ended(database)) == ([], [id])
    assert [forget(database, id, 2), forget(database, id, 2), forget(database, id, 2)] == [True, False, False]
    assert database.read(lambda c: jobs.get(c, id)) is None
    assert database.read(lambda c: fetch_number(c, "SELECT count(*) FROM job_items")) == 0
    assert [get_image(database, image).job_id for image in images] == [id] * 3


def test_jobs_that_go_on_are_never_forgotten(database: Database) -> None:
    running, cancelled, again = new_job(database, [1]), new_job(database, [2]), new_job(database, [3])
    for id in (cancelled, again):
        database.write(lambda c, id=id: job_control.cancel(c, id))  # type: ignore[misc]
    assert ended(database) == []  # what they wait for is not dropped yet
    for id in (cancelled, again):
        database.write(lambda c, id=id: job_control.fail_waiting_items(c, id, 10))  # type: ignore[misc]
    assert ended(database) == [cancelled, again]
    database.write(lambda c: job_control.retry(c, again, 0, 10))
    assert forget(database, again) is False
    assert [get_job(database, id).total for id in (running, again)] == [1, 1]


def test_a_collection_that_was_dropped_is_forgotten_with_its_last_job(database: Database) -> None:
    database.write(lambda c: collections.create(c, "gone", ""))
    made = [database.write(lambda c: jobs.create(c, "gone", "bulk")) for _ in range(2)]
    label, _ = database.write(lambda c: collection_deletion.begin(c, "gone"))
    database.write(lambda c: collection_deletion.finish(c, label))

    def labels() -> list[str]:
        return [row[0] for row in database.read(lambda c: fetch_all(c, "SELECT label FROM collections"))]

    for id, left in zip(made, (["default", label], ["default"]), strict=True):
        assert forget(database, id) is False
        assert sorted(labels()) == sorted(left)
