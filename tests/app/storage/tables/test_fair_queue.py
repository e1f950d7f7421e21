from __future__ import annotations

from collections.abc import Sequence

import apsw
import pytest

from app.core.types import ItemStatus, Priority
from app.storage.database import Database
from app.storage.sql import fetch_all
from app.storage.tables import collection_deletion, collections, fair_queue, images, job_control, jobs, leases
from tests.support.makers import claim, finish, insert, new_image


def fill(database: Database, first: int, count: int, priority: Priority = Priority.NORMAL) -> str:
    """A job with so many pictures waiting."""

    def work(c: apsw.Connection) -> str:
        id = jobs.create(c, "default", "bulk", priority)
        for n in range(first, first + count):
            image = images.add(c, "default", new_image(n), id, False).image
            jobs.add_item(c, id, f"{n}.png", ItemStatus.QUEUED, image=(image.key, image.id))
        return id

    return database.write(work)


def order(database: Database, batches: int, limit: int) -> list[str]:
    """The jobs of the pictures that claims bring, in their order; '' for one that came by itself."""
    return [lease.image.job_id or "" for _ in range(batches) for lease in claim(database, limit=limit)]


def kept(database: Database) -> dict[str, int]:
    return dict(database.read(lambda c: fetch_all(c, "SELECT job_id, waiting FROM turns")))


def true(database: Database) -> dict[str, int]:
    sql = "SELECT coalesce(job_id, ''), count(*) FROM images WHERE status = 'queued' AND attempts = 0 GROUP BY job_id"
    return dict(database.read(lambda c: fetch_all(c, sql)))


def test_a_job_by_itself_gets_everything_oldest_first(database: Database) -> None:
    id = fill(database, 0, 30)
    got = claim(database, limit=25)
    assert [lease.image.key for lease in got] == list(range(1, 26))
    assert kept(database) == {id: 5}


def test_a_small_job_and_what_comes_by_itself_need_not_wait_for_a_big_one(database: Database) -> None:
    big = fill(database, 0, 300)
    order(database, 3, 32)
    small = fill(database, 1000, 10)
    insert(database, 2000)
    got = order(database, 1, 32)
    assert got.count("") == 1
    assert got.count(small) == 10
    assert got.count(big) == 21
    assert order(database, 1, 32) == [big] * 32


def test_equal_jobs_share_and_an_endless_stream_of_small_ones_does_not_starve_a_big_one(database: Database) -> None:
    big = fill(database, 0, 200)
    got: list[str] = []
    for n in range(20):
        fill(database, 1000 + 100 * n, 30)
        for m in range(4):
            insert(database, 9000 + 4 * n + m)
        got += order(database, 1, 32)
    assert got.count(big) >= 8 * 20 // 4
    assert got.count("") >= 4 * 19


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [(Priority.NORMAL, Priority.NORMAL, 1), (Priority.HIGH, Priority.NORMAL, 4), (Priority.NORMAL, Priority.LOW, 4)],
)
def test_a_priority_is_a_share_and_not_a_gate(database: Database, one: Priority, other: Priority, share: int) -> None:
    first, second = fill(database, 0, 200, one), fill(database, 1000, 200, other)
    got = order(database, 5, 32)
    assert got.count(first) + got.count(second) == 160
    assert got.count(first) == pytest.approx(share * got.count(second), rel=0.3)


def test_a_paused_job_gets_no_turn_and_begins_where_the_others_are(database: Database) -> None:
    paused, other = fill(database, 0, 100), fill(database, 1000, 300)
    held = claim(database, limit=16)
    database.write(lambda c: job_control.pause(c, paused))
    assert set(order(database, 4, 32)) == {other}
    database.write(lambda c: leases.release_all_images(c, "a"))  # what it gives back is not taken up either
    assert {lease.image.job_id for lease in claim(database, limit=500)} == {other}
    assert claim(database) == []
    for lease in held:
        finish(database, lease)
    database.write(lambda c: job_control.resume(c, paused))
    assert set(order(database, 1, 500)) == {paused}


def test_a_picture_of_a_paused_job_that_was_tried_before_waits_too(database: Database) -> None:
    id = fill(database, 0, 1)
    (lease,) = claim(database)
    database.write(lambda c: leases.requeue_image(c, lease))
    database.write(lambda c: job_control.pause(c, id))
    assert not database.read(leases.has_retries)
    assert claim(database) == []
    database.write(lambda c: job_control.resume(c, id))
    assert database.read(leases.has_retries)
    assert len(claim(database)) == 1


def test_pictures_of_a_collection_that_is_being_dropped_hold_nobody_up(database: Database) -> None:
    database.write(lambda c: collections.create(c, "gone", ""))
    for n in range(20):
        database.write(lambda c, n=n: images.add(c, "gone", new_image(n), None, False))  # type: ignore[misc]
    id = fill(database, 100, 5)
    database.write(lambda c: collection_deletion.begin(c, "gone"))
    assert order(database, 1, 32) == [id] * 5


def test_the_rows_are_right_after_every_step(database: Database) -> None:
    fill(database, 0, 20)
    for n in range(100, 105):
        insert(database, n)

    def check() -> None:
        assert kept(database) == true(database)

    check()
    one, two, three, *_ = claim(database, limit=12)
    check()
    finish(database, one)
    database.write(lambda c: leases.release_images(c, "a", [two.image.key]))
    check()
    database.write(lambda c: leases.requeue_image(c, three))
    check()
    database.write(lambda c: images.delete(c, two.image.key))
    database.write(lambda c: images.requeue(c, three.image.key, "another"))
    check()
    database.write(lambda c: images.requeue_all(c) and None)
    check()


def plan(database: Database, sql: str, values: Sequence[object]) -> str:
    rows = database.read(lambda c: fetch_all(c, "EXPLAIN QUERY PLAN " + sql, list(values)))
    return "\n".join(str(row[3]) for row in rows)


def test_a_claim_looks_at_no_more_rows_than_it_takes(database: Database) -> None:
    def explained(sql: str, values: Sequence[object]) -> str:
        rows = database.write(lambda c: fetch_all(c, "EXPLAIN QUERY PLAN " + sql, list(values)))
        return "\n".join(str(row[3]) for row in rows)

    assert "USING INDEX turns_next" in plan(database, fair_queue.NEXT_TURN, ["[]"])
    fresh = explained(leases.CLAIM_NEW, ["a", 1.0, None, 5])
    assert "SEARCH images USING INDEX images_fresh (job_id=?)" in fresh
    tried = explained(leases.CLAIM_RETRY, ["a", 1.0])
    assert "images USING INDEX images_tried" in tried
    source = plan(database, jobs.FREE, [])
    assert "USING INDEX jobs_intake" in source
    some = plan(database, jobs.SOME, ["x", "failed", 5, 10])
    assert some == "SEARCH job_items USING INDEX job_items_listed (job_id=? AND status=? AND n>?)"
    for text in (fresh, tried, source, plan(database, fair_queue.NEXT_TURN, ["[]"])):
        assert "TEMP B-TREE" not in text
        assert "SCAN images\n" not in text + "\n"
