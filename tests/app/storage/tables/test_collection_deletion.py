from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import IdConflict, NotFound
from app.core.types import ItemStatus
from app.storage.database import Database
from app.storage.sql import fetch_number
from app.storage.tables import (
    collection_deletion,
    collections,
    embeddings,
    images,
    job_control,
    jobs,
    texts,
    work_queue,
)
from tests.support.makers import FINGERPRINT, SPACE, VECTOR, claim, finish, new, sha256

TABLES = {
    "images": "SELECT count(*) FROM images WHERE collection <> 'default'",
    "texts": "SELECT count(*) FROM texts WHERE collection <> 'default'",
    "embeddings": "SELECT count(*) FROM embeddings WHERE collection <> 'default'",
    "items": "SELECT count(*) FROM job_items",
    "sources": "SELECT count(*) FROM sources",
}


def count_leftovers(database: Database) -> dict[str, int]:
    """What is not of the default collection, by table; empty when there is nothing."""
    counts = database.read(lambda c: {name: fetch_number(c, sql) for name, sql in TABLES.items()})
    return {name: count for name, count in counts.items() if count}


def fill_collection(database: Database, name: str = "birds", pictures: int = 3) -> tuple[str, str]:
    """A collection with a job of pictures, an upload, and a text; returns its label and the job."""

    def work(c: Any) -> tuple[str, str]:
        embeddings.save_space(c, SPACE)
        label = collections.create(c, name, "").label
        job = jobs.create(c, name, "bulk")
        work_queue.add_upload(c, job, 1, "archive", "a.zip", 0)
        for n in range(pictures):
            image = images.add(c, name, new(n), job, False).image
            jobs.add_item(c, job, f"{n}.png", ItemStatus.QUEUED, image=(image.key, image.id))
        text = texts.put(c, name, "t", "words", {})
        embeddings.add(c, label, FINGERPRINT, "texts", text.key, VECTOR)
        collections.assign_space(c, label, FINGERPRINT)
        return label, job

    return database.write(work)


def sweep(database: Database, label: str, limit: int = 2) -> list[str]:
    """Everything away, a little at a time; the digests of files that nobody needs."""
    unused: list[str] = []
    while database.write(lambda c: collection_deletion.delete_batch(c, label, limit, unused.append)):
        pass
    database.write(lambda c: collection_deletion.finish(c, label))
    return unused


def test_a_marked_collection_is_gone_at_once_and_its_job_cancelled(database: Database) -> None:
    label, job = fill_collection(database)
    assert database.write(lambda c: collection_deletion.begin(c, "birds")) == (label, [(job, 1)])
    assert [one.name for one in database.read(collections.list_all)] == ["default"]
    assert database.read(lambda c: images.list_page(c, "birds", 10, None)) == []
    assert database.read(lambda c: texts.get(c, "birds", "t")) is None
    assert database.read(texts.list_all) == []
    assert sum(database.read(lambda c: images.count_by_status(c, "birds")).values()) == 0
    ended = database.read(lambda c: jobs.get(c, job))
    assert ended is not None
    assert (ended.state, ended.collection) == ("cancelled", "birds")
    assert database.read(collection_deletion.list_pending) == [label]
    with pytest.raises(NotFound):
        database.write(lambda c: collection_deletion.begin(c, "birds"))


def test_sweeping_leaves_nothing_but_the_job_with_numbers_that_add_up(database: Database) -> None:
    label, job = fill_collection(database)
    (lease, *_) = claim(database, limit=1)
    finish(database, lease)
    database.write(lambda c: collection_deletion.begin(c, "birds"))
    assert sorted(sweep(database, label)) == sorted(sha256(n) for n in range(3))
    assert count_leftovers(database) == {}
    assert database.read(collection_deletion.list_pending) == []
    ended = database.read(lambda c: jobs.get(c, job))
    assert ended is not None
    assert (ended.state, ended.total, ended.done, ended.failed, ended.last_seq) == ("cancelled", 3, 1, 2, 0)


def test_a_collection_without_jobs_leaves_no_row_of_its_own(database: Database) -> None:
    label = database.write(lambda c: collections.create(c, "birds", "")).label
    database.write(lambda c: collection_deletion.begin(c, "birds"))
    sweep(database, label)
    assert database.read(lambda c: fetch_number(c, "SELECT count(*) FROM collections")) == 1


def test_a_worker_loses_what_it_has_of_it_and_gets_nothing_more(database: Database) -> None:
    fill_collection(database)
    (lease, *_) = claim(database, limit=1)
    database.write(lambda c: collection_deletion.begin(c, "birds"))
    assert not database.read(lambda c: work_queue.holds_image(c, lease))
    assert finish(database, lease) is None
    assert claim(database) == []
    database.write(lambda c: work_queue.requeue_image(c, lease))
    assert claim(database, owner="b") == []


def test_a_worker_of_before_writes_nothing_into_a_collection_of_the_same_name(database: Database) -> None:
    fill_collection(database)
    (lease, *_) = claim(database, limit=1)
    label, _ = database.write(lambda c: collection_deletion.begin(c, "birds"))
    again = database.write(lambda c: collections.create(c, "birds", "new"))
    assert again.label != label
    finish(database, lease)
    same = database.write(lambda c: images.add(c, "birds", new(0), None, False))
    assert not same.duplicate
    sweep(database, label)
    (image,) = database.read(lambda c: images.list_page(c, "birds", 10, None))
    assert (image.key, image.status) == (same.image.key, "queued")
    born = database.read(lambda c: collections.get(c, "birds"))
    assert born is not None
    assert (born.space, born.description) == (None, "new")


def test_files_that_another_collection_needs_are_kept(database: Database) -> None:
    label, _ = fill_collection(database)
    database.write(lambda c: images.add(c, "default", new(1), None, False))
    database.write(lambda c: collection_deletion.begin(c, "birds"))
    assert sorted(sweep(database, label)) == sorted([sha256(0), sha256(2)])


def test_its_jobs_cannot_be_taken_up_again(database: Database) -> None:
    label, job = fill_collection(database)
    database.write(lambda c: collection_deletion.begin(c, "birds"))
    database.write(lambda c: job_control.fail_waiting_items(c, job, 100))
    assert database.write(lambda c: job_control.retry(c, job, 0, 100)) is None
    sweep(database, label)
    assert database.write(lambda c: job_control.retry(c, job, 0, 100)) is None
    ended = database.read(lambda c: jobs.get(c, job))
    assert ended is not None
    assert (ended.state, ended.failed) == ("cancelled", 3)


def test_other_collections_stay_as_they_are(database: Database) -> None:
    kept, _ = fill_collection(database, "cats")
    label, _ = fill_collection(database, "birds")
    before = count_leftovers(database)
    database.write(lambda c: collection_deletion.begin(c, "birds"))
    sweep(database, label)
    assert count_leftovers(database) == {name: count // 2 for name, count in before.items()}
    assert [one.label for one in database.read(collections.list_all)] == [kept, "default"]


def test_a_name_is_taken_while_it_is_there(database: Database) -> None:
    fill_collection(database)
    with pytest.raises(IdConflict, match="birds"):
        database.write(lambda c: collections.create(c, "birds", ""))
