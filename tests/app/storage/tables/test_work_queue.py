from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import apsw
import pytest

from app.core.types import ItemError, ItemStatus, JobState, Lease, Priority, Status
from app.storage.database import Database
from app.storage.sql import Connection, fetch_all
from app.storage.tables import collection_deletion, collections, embeddings, images, job_control, jobs, work_queue
from tests.support.makers import (
    FINGERPRINT,
    SPACE,
    VECTOR,
    add_upload,
    claim,
    claim_upload,
    finish,
    image_of,
    insert,
    job_of,
    new,
    new_job,
    sha256,
)

ERROR = ItemError("image_corrupt", "cut off")


def vector(database: Database, key: int) -> bytes | None:
    return database.read(lambda c: embeddings.get_vectors(c, "images", [key])).get(key)


def expire(database: Database, dead: tuple[str, ...] = (), most: int = 3) -> int:
    lost, _ = database.write(lambda c: work_queue.expire_leases(c, dead, most))
    return lost


def is_held(database: Database, lease: Lease) -> bool:
    return database.read(lambda c: work_queue.holds_image(c, lease))


def test_claim_takes_the_oldest_first_and_counts_an_attempt(database: Database) -> None:
    for n in range(5):
        insert(database, n, f"i{n}")
    claimed = claim(database, "a", limit=3)
    assert [lease.image.id for lease in claimed] == ["i0", "i1", "i2"]
    assert {(lease.owner, lease.attempts, lease.image.status) for lease in claimed} == {("a", 1, Status.PROCESSING)}


def test_claim_skips_leased_rows(database: Database) -> None:
    for n in range(3):
        insert(database, n, f"i{n}")
    assert len(claim(database, "a", limit=2)) == 2
    assert [lease.image.id for lease in claim(database, "b")] == ["i2"]
    assert claim(database, "c") == []


def test_claim_skips_what_is_ready_or_failed(database: Database) -> None:
    insert(database, 1)
    finish(database, claim(database)[0])
    insert(database, 2)
    (lease,) = claim(database)
    database.write(lambda c: work_queue.fail_image(c, lease, ERROR))
    assert claim(database) == []


def test_no_two_owners_ever_get_one_picture(database: Database) -> None:
    for n in range(120):
        insert(database, n)
    got: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    def work(owner: str) -> None:
        while claimed := claim(database, owner, limit=7):
            got[owner] += [lease.image.key for lease in claimed]

    threads = [threading.Thread(target=work, args=(owner,)) for owner in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [key for keys in got.values() for key in keys]
    assert len(every) == len(set(every)) == 120


def test_claim_starts_the_jobs_of_its_pictures(database: Database) -> None:
    waiting = new_job(database, [1])
    assert (job_of(database, waiting).state, job_of(database, waiting).started_at) == ("queued", None)
    claim(database)
    assert job_of(database, waiting).state == "running"
    assert job_of(database, waiting).started_at is not None


def test_owners_are_those_of_leases(database: Database) -> None:
    insert(database, 1)
    insert(database, 2)
    assert database.read(work_queue.list_owners) == set()
    claim(database, "a", limit=1)
    claim(database, "b", limit=1)
    assert database.read(work_queue.list_owners) == {"a", "b"}


def test_finish_appends_the_vector_and_makes_the_picture_ready_in_one_commit(database: Database) -> None:
    insert(database, 1, "one")
    (lease,) = claim(database)
    seq = finish(database, lease)
    image = image_of(database, "one")
    assert (image.status, image.embedded_seq) == (Status.READY, seq)
    assert vector(database, image.key) == VECTOR
    assert not is_held(database, lease)


def test_finish_after_delete_does_nothing(database: Database) -> None:
    image = insert(database, 1)
    (lease,) = claim(database)
    database.write(lambda c: images.delete(c, image.key))
    assert finish(database, lease) is None
    assert vector(database, image.key) is None


def test_a_batch_leaves_out_what_its_owner_has_lost(database: Database) -> None:
    first, second = new_job(database, [1, 2, 3]), new_job(database, [4])
    database.write(lambda c: embeddings.save_space(c, SPACE))
    leases = claim(database)
    deleted, replaced, *kept = leases
    database.write(lambda c: images.delete(c, deleted.image.key))
    replace_image(database, replaced.image.id, 9)
    done = [work_queue.FinishedImage(lease, b"%04d" % n, 4 + n, 3, False, b"hash") for n, lease in enumerate(leases)]
    numbers = database.write(lambda c: work_queue.finish_images(c, FINGERPRINT, done))
    assert list(numbers) == [lease.image.key for lease in kept]
    assert sorted(numbers.values()) == list(numbers.values())
    for n, lease in enumerate(leases):
        if lease in kept:
            image = image_of(database, lease.image.id)
            assert (image.status, image.embedded_seq, image.width) == (Status.READY, numbers[image.key], 4 + n)
            assert vector(database, image.key) == b"%04d" % n
    assert [job_of(database, job).done for job in (first, second)] == [1, 1]
    assert [job_of(database, job).state for job in (first, second)] == ["running", "succeeded"]
    assert database.write(lambda c: work_queue.finish_images(c, FINGERPRINT, done)) == {}


def replace_image(database: Database, id: str, n: int) -> None:
    database.write(lambda c: images.add(c, "default", new(n, id), None, True))


def test_finish_after_replace_does_nothing(database: Database) -> None:
    image = insert(database, 1, "one")
    (lease,) = claim(database)
    replace_image(database, "one", 2)
    assert finish(database, lease) is None
    assert vector(database, image.key) is None
    assert image_of(database, "one").status is Status.QUEUED


def test_the_vector_of_replaced_bytes_is_refused_when_the_same_owner_has_claimed_the_new_ones(
    database: Database,
) -> None:
    image = insert(database, 1, "one")
    (old,) = claim(database, "a")
    replace_image(database, "one", 2)
    (now,) = claim(database, "a")
    assert finish(database, old, b"\1" * 16) is None
    database.write(lambda c: work_queue.fail_image(c, old, ERROR))
    database.write(lambda c: work_queue.requeue_image(c, old))
    assert (image_of(database, "one").status, image_of(database, "one").sha256) == (Status.PROCESSING, sha256(2))
    assert finish(database, now) is not None
    assert vector(database, image.key) == VECTOR


def test_finish_after_another_worker_claimed_the_picture_does_nothing(database: Database) -> None:
    insert(database, 1)
    (lost,) = claim(database, "a")
    assert expire(database, dead=("a",)) == 1
    (theirs,) = claim(database, "b")
    assert finish(database, lost) is None
    assert is_held(database, theirs)
    assert finish(database, theirs) is not None
    assert finish(database, theirs) is None  # a second time


def test_release_gives_the_attempt_back(database: Database) -> None:
    insert(database, 1)
    (lease,) = claim(database, "a")
    database.write(lambda c: work_queue.release_image(c, lease))
    assert [lease.attempts for lease in claim(database, "a")] == [1]


def test_release_leaves_the_leases_of_others_alone(database: Database) -> None:
    insert(database, 1)
    (lease,) = claim(database, "a")
    database.write(lambda c: work_queue.release_image(c, replace(lease, owner="b")))
    assert is_held(database, lease)


def test_release_leaves_a_later_lease_of_the_same_owner_alone(database: Database) -> None:
    insert(database, 1)
    (lost,) = claim(database, "a")
    assert expire(database, dead=("a",)) == 1
    (now,) = claim(database, "a")
    database.write(lambda c: work_queue.release_image(c, lost))
    assert is_held(database, now)
    database.write(lambda c: work_queue.release_image(c, now))
    assert [lease.attempts for lease in claim(database, "a")] == [2]  # that of the lost lease counts


def test_release_all_gives_back_everything_of_one_owner(database: Database) -> None:
    for n in range(4):
        insert(database, n)
    claim(database, "a", limit=2)
    (kept,) = claim(database, "b", limit=1)
    database.write(lambda c: work_queue.release_images(c, "a"))
    assert database.read(work_queue.list_owners) == {"b"}
    assert [lease.attempts for lease in claim(database, "c")] == [1, 1, 1]
    assert is_held(database, kept)


def test_requeue_keeps_the_attempt_counted(database: Database) -> None:
    insert(database, 1)
    (lease,) = claim(database)
    database.write(lambda c: work_queue.requeue_image(c, lease))
    assert [lease.attempts for lease in claim(database)] == [2]


def test_fail_keeps_the_reason_and_ends_the_item(database: Database) -> None:
    id = new_job(database, [1])
    (lease,) = claim(database)
    database.write(lambda c: work_queue.fail_image(c, lease, ERROR))
    image = image_of(database, lease.image.id)
    assert (image.status, image.error) == (Status.FAILED, ERROR)
    job = job_of(database, id)
    assert (job.state, job.failed, job.done, job.total) == ("succeeded", 1, 0, 1)


def test_fail_without_the_lease_does_nothing(database: Database) -> None:
    insert(database, 1, "one")
    (lost,) = claim(database, "a")
    expire(database, dead=("a",))
    database.write(lambda c: work_queue.fail_image(c, lost, ERROR))
    assert image_of(database, "one").status is Status.QUEUED


def test_expiring_ends_the_leases_of_dead_owners_alone(database: Database) -> None:
    insert(database, 1, "of a")
    insert(database, 2, "of b")
    claim(database, "a", limit=1)
    (alive,) = claim(database, "b", limit=1)
    assert expire(database, dead=("a",)) == 1
    assert image_of(database, "of a").status is Status.QUEUED
    assert is_held(database, alive)


def test_a_lease_past_its_deadline_ends_for_any_owner(database: Database) -> None:
    insert(database, 1)
    (lease,) = claim(database, "a", seconds=100.0)
    assert not database.read(work_queue.has_expired)
    assert expire(database) == 0
    assert is_held(database, lease)
    database.write(lambda c: work_queue.renew_leases(c, "a", -0.1))
    assert database.read(work_queue.has_expired)
    assert expire(database) == 1
    assert not is_held(database, lease)


def test_a_worker_that_was_stopped_past_its_lease_commits_nothing_even_if_it_claims_the_picture_again(
    database: Database,
) -> None:
    image = insert(database, 1)
    (before,) = claim(database, "frozen", seconds=-1.0)
    assert expire(database) == 1
    (again,) = claim(database, "frozen")
    assert again.image.key == image.key
    assert finish(database, before) is None
    database.write(lambda c: work_queue.fail_image(c, before, ERROR))
    assert is_held(database, again)


def test_renewing_moves_the_deadline_of_the_owner_alone(database: Database) -> None:
    insert(database, 1)
    insert(database, 2)
    (renewed,) = claim(database, "a", limit=1, seconds=-1.0)
    (other,) = claim(database, "b", limit=1, seconds=-1.0)
    database.write(lambda c: work_queue.renew_leases(c, "a", 200.0))
    assert expire(database) == 1
    assert is_held(database, renewed)
    assert not is_held(database, other)


@pytest.mark.parametrize("most", [1, 3])
def test_a_picture_that_kills_its_worker_too_often_fails_with_the_reason(database: Database, most: int) -> None:
    id = new_job(database, [1])
    deaths = max(most, 2)  # one in company says nothing
    for death in range(1, deaths + 1):
        assert [lease.attempts for lease in claim(database, f"w{death}")] == [death]
        assert expire(database, dead=(f"w{death}",), most=most) == 1
    assert claim(database) == []
    job = job_of(database, id)
    assert (job.state, job.failed) == ("succeeded", 1)
    (image,) = database.read(lambda c: images.list_page(c, "default", 10, None))
    assert image.error == ItemError("image_corrupt", f"the worker died {deaths} times over this picture")


def forgive(database: Database, owner: str, most: int = 3) -> None:
    database.write(lambda c: work_queue.recover_leases(c, {owner}, most))


def test_a_kill_of_the_server_blames_no_picture_that_was_at_work_in_company(database: Database) -> None:
    for n in range(3):
        insert(database, n, f"i{n}")
    for life in range(5):
        assert len(claim(database, f"w{life}")) == (3 if life == 0 else 1)
        forgive(database, f"w{life}")
        assert count_statuses(database) == {"queued": 3}
    while claimed := claim(database):
        finish(database, claimed[0])
    assert count_statuses(database) == {"ready": 3}


def count_statuses(database: Database) -> dict[str, int]:
    return {status: n for status, n in database.read(lambda c: images.count_by_status(c, "default")).items() if n}


@pytest.mark.parametrize("most", [1, 3])
def test_a_picture_that_was_alone_each_time_the_server_died_is_given_up(database: Database, most: int) -> None:
    id = new_job(database, [1, 2])
    claim(database, "first")
    forgive(database, "first", most)  # in company
    for death in range(1, most + 1):
        (poison,) = claim(database, f"w{death}")
        assert poison.attempts == 2  # an innocent neighbour is next as soon as this one has been blamed
        if death == 1:
            blamed = poison.image.id
        while poison.image.id != blamed:
            finish(database, poison)
            (poison,) = claim(database, f"w{death}")
        forgive(database, f"w{death}", most)
    while claimed := claim(database):
        finish(database, claimed[0])
    image = image_of(database, blamed)
    assert image.error == ItemError(
        "image_corrupt", f"the server died {most} times while this picture alone was at work"
    )
    job = job_of(database, id)
    assert (job.state, job.done, job.failed) == ("succeeded", 1, 1)
    database.write(lambda c: images.requeue(c, image.key, id))  # a retry begins anew
    claim(database, "again")
    forgive(database, "again", 2)
    assert image_of(database, blamed).status is Status.QUEUED


def test_recovery_leaves_the_leases_of_living_workers_alone(database: Database) -> None:
    insert(database, 1)
    (lease,) = claim(database, "alive")
    forgive(database, "dead")
    assert is_held(database, lease)


def test_an_upload_keeps_its_attempts_over_a_death_of_the_server_unless_it_was_being_expanded(
    database: Database,
) -> None:
    id = new_job(database)
    database.write(lambda c: work_queue.add_upload(c, id, 0, "folder", "", 5))
    database.write(lambda c: work_queue.add_upload(c, id, 1, "archive", "a.zip", 0))
    for owner in ("a", "b"):
        assert database.write(lambda c, owner=owner: work_queue.claim_upload(c, owner, 1e12)) is not None  # type: ignore[misc]
        forgive(database, owner)
    attempts = {}
    for owner in ("a", "b"):
        source = database.write(lambda c, owner=owner: work_queue.claim_upload(c, owner, 1e12))  # type: ignore[misc]
        assert source is not None
        attempts[source.kind] = source.attempts
    assert attempts == {"folder": 3, "archive": 1}


def test_an_upload_that_a_dead_worker_held_can_be_claimed_again(database: Database) -> None:
    id = new_job(database)

    def take(owner: str) -> work_queue.Upload | None:
        return database.write(lambda c: work_queue.claim_upload(c, owner, 100.0))

    add_upload(database, id)
    assert take("a") is not None
    assert take("b") is None
    assert database.read(work_queue.list_owners) == {"a"}
    expire(database, dead=("a",))
    assert take("b") is not None
    expire(database)
    assert take("c") is None
    database.write(lambda c: work_queue.renew_leases(c, "b", -1.0))
    assert database.read(work_queue.has_expired)
    expire(database)
    again = take("c")
    assert again is not None
    assert again.attempts == 3


def test_a_picture_tried_before_is_claimed_last_alone_and_by_itself(database: Database) -> None:
    tried, fresh = insert(database, 1), insert(database, 2)
    lease = claim(database, "a", limit=1)[0]
    assert lease.image.key == tried.key
    database.write(lambda c: work_queue.requeue_image(c, lease))
    insert(database, 3)
    assert [lease.image.key for lease in claim(database, "a")] == [fresh.key, fresh.key + 1]
    assert database.write(lambda c: work_queue.claim_images(c, "a", 1e12, 10, alone=False)) == []
    assert [lease.image.key for lease in claim(database, "a")] == [tried.key]


def fill(database: Database, first: int, count: int, priority: Priority = Priority.NORMAL) -> str:
    """A job with so many pictures waiting."""

    def work(c: Connection) -> str:
        id = jobs.create(c, "default", "bulk", priority)
        for n in range(first, first + count):
            image = images.add(c, "default", new(n), id, False).image
            jobs.add_item(c, id, f"{n}.png", ItemStatus.QUEUED, image=(image.key, image.id))
        return id

    return database.write(work)


def order(database: Database, batches: int, limit: int) -> list[str]:
    """The jobs of the pictures that claims bring, in their order; '' for one that came by itself."""
    return [lease.image.job_id or "" for _ in range(batches) for lease in claim(database, limit=limit)]


def read_turns(database: Database) -> dict[str, int]:
    return dict(database.read(lambda c: fetch_all(c, "SELECT job_id, waiting FROM turns")))


def count_queued(database: Database) -> dict[str, int]:
    sql = "SELECT coalesce(job_id, ''), count(*) FROM images WHERE status = 'queued' AND attempts = 0 GROUP BY job_id"
    return dict(database.read(lambda c: fetch_all(c, sql)))


def test_a_job_by_itself_gets_everything_oldest_first(database: Database) -> None:
    id = fill(database, 0, 30)
    got = claim(database, limit=25)
    assert [lease.image.key for lease in got] == list(range(1, 26))
    assert read_turns(database) == {id: 5}


def test_a_small_job_and_single_pictures_do_not_wait_for_a_big_job(database: Database) -> None:
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


def test_a_paused_job_gets_no_turn_and_resumes_where_the_others_are(database: Database) -> None:
    paused, other = fill(database, 0, 100), fill(database, 1000, 300)
    held = claim(database, limit=16)
    database.write(lambda c: work_queue.pause_job(c, paused))
    assert set(order(database, 4, 32)) == {other}
    database.write(lambda c: work_queue.release_images(c, "a"))  # what it gives back is not taken up either
    assert {lease.image.job_id for lease in claim(database, limit=500)} == {other}
    assert claim(database) == []
    for lease in held:
        finish(database, lease)
    database.write(lambda c: job_control.resume(c, paused))
    assert set(order(database, 1, 500)) == {paused}


def test_a_picture_of_a_paused_job_that_was_tried_before_waits_too(database: Database) -> None:
    id = fill(database, 0, 1)
    (lease,) = claim(database)
    database.write(lambda c: work_queue.requeue_image(c, lease))
    database.write(lambda c: work_queue.pause_job(c, id))
    assert not database.read(work_queue.has_retries)
    assert claim(database) == []
    database.write(lambda c: job_control.resume(c, id))
    assert database.read(work_queue.has_retries)
    assert len(claim(database)) == 1


def test_pictures_of_a_collection_that_is_being_deleted_delay_no_job(database: Database) -> None:
    database.write(lambda c: collections.create(c, "gone", ""))
    for n in range(20):
        database.write(lambda c, n=n: images.add(c, "gone", new(n), None, False))  # type: ignore[misc]
    id = fill(database, 100, 5)
    database.write(lambda c: collection_deletion.begin(c, "gone"))
    assert order(database, 1, 32) == [id] * 5


def test_the_triggers_keep_the_turns_right_after_every_step(database: Database) -> None:
    fill(database, 0, 20)
    for n in range(100, 105):
        insert(database, n)

    def check() -> None:
        assert read_turns(database) == count_queued(database)

    check()
    one, two, three, *_ = claim(database, limit=12)
    check()
    finish(database, one)
    database.write(lambda c: work_queue.release_image(c, two))
    check()
    database.write(lambda c: work_queue.requeue_image(c, three))
    check()
    database.write(lambda c: images.delete(c, two.image.key))
    database.write(lambda c: images.requeue(c, three.image.key, "another"))
    check()
    database.write(lambda c: images.requeue_all(c) and None)
    check()


def plan(database: Database, sql: str, values: Sequence[object]) -> str:
    rows = database.read(lambda c: fetch_all(c, "EXPLAIN QUERY PLAN " + sql, list(values)))
    return "\n".join(str(row[3]) for row in rows)


@pytest.mark.sqlite
def test_a_claim_looks_at_no_more_rows_than_it_takes(database: Database) -> None:
    def explain(sql: str, values: Sequence[object]) -> str:
        rows = database.write(lambda c: fetch_all(c, "EXPLAIN QUERY PLAN " + sql, list(values)))
        return "\n".join(str(row[3]) for row in rows)

    assert "USING INDEX turns_next" in plan(database, work_queue.NEXT_TURNS, ["[]"])
    fresh = explain(work_queue.CLAIM_NEW, ["a", 1.0, None, 5])
    assert "SEARCH images USING INDEX images_fresh (job_id=?)" in fresh
    tried = explain(work_queue.CLAIM_RETRY, ["a", 1.0])
    assert "images USING INDEX images_tried" in tried
    source = plan(database, work_queue.NEXT_UPLOAD, ["[]"])
    assert "USING INDEX jobs_intake" in source
    some = plan(database, jobs.ITEMS_OF_STATUS, ["x", "failed", 5, 10])
    assert some == "SEARCH job_items USING INDEX job_items_listed (job_id=? AND status=? AND n>?)"
    for text in (fresh, tried, source, plan(database, work_queue.NEXT_TURNS, ["[]"])):
        assert "TEMP B-TREE" not in text
        assert "SCAN images\n" not in text + "\n"


@pytest.mark.sqlite
def test_operations_on_leases_read_leased_pictures_alone(database: Database) -> None:
    """A worker does these every second, and a collection may hold millions of pictures."""
    new_job(database, [1, 2])
    claim(database, "a", limit=1)

    def plans(c: Any) -> list[str]:
        statements: list[tuple[str, apsw.Bindings | None]] = []

        def record_statement(_: apsw.Cursor, sql: str, values: apsw.Bindings | None) -> bool:
            statements.append((sql, values))
            return True

        c.exec_trace = record_statement
        work_queue.list_owners(c)
        work_queue.renew_leases(c, "a", 1e12)
        work_queue.release_images(c, "b")
        work_queue.expire_leases(c, {"b"}, 3)
        work_queue.recover_leases(c, {"b"}, 3)
        c.exec_trace = None
        return [str(row[3]) for sql, values in statements for row in c.execute("EXPLAIN QUERY PLAN " + sql, values)]

    steps = database.write(plans)
    assert sum("images USING INDEX images_waiting (status=?)" in step for step in steps) >= 5, steps
    assert not [step for step in steps if step.startswith("SCAN images")]


def test_uploads_are_claimed_oldest_first_each_by_one_owner(database: Database) -> None:
    first, second = new_job(database), new_job(database)
    add_upload(database, second, 1)
    add_upload(database, first, 2)
    add_upload(database, first, 1)
    taken = [claim_upload(database, owner) for owner in "abcd"]
    got = [(one.job_id, one.n) for one in taken if one is not None]
    assert set(got[:2]) | set(got[2:]) == {(first, 1), (first, 2), (second, 1)}
    assert got.index((first, 1)) < got.index((first, 2))
    assert taken[3] is None
    assert database.read(work_queue.list_uploads) == {(first, 1), (first, 2), (second, 1)}
    assert job_of(database, first).state is JobState.RUNNING


def test_an_upload_remembers_how_far_it_is_and_progress_clears_its_attempts(database: Database) -> None:
    id = new_job(database)
    add_upload(database, id)
    for death in (1, 2):
        taken = claim_upload(database)
        assert taken is not None
        assert taken.attempts == death
        database.write(lambda c: work_queue.expire_leases(c, {"a"}, 3))
    taken = claim_upload(database)
    assert taken is not None
    database.write(lambda c: work_queue.record_progress(c, taken, 64, 36, 0))
    database.write(lambda c: work_queue.expire_leases(c, {"a"}, 3))
    again = claim_upload(database)
    assert again is not None
    assert (again.imported, again.attempts) == (64, 2)


def test_giving_an_upload_back_gives_back_the_attempt(database: Database) -> None:
    id = new_job(database)
    add_upload(database, id)
    taken = claim_upload(database)
    assert taken is not None
    database.write(lambda c: work_queue.release_upload(c, replace(taken, owner="b")))
    assert database.read(lambda c: work_queue.holds_upload(c, taken))
    database.write(lambda c: work_queue.release_upload(c, taken))
    assert not database.read(lambda c: work_queue.holds_upload(c, taken))
    again = claim_upload(database, "b")
    assert again is not None
    assert again.attempts == 1


def test_an_owner_gets_back_the_upload_that_it_could_not_give_back(database: Database) -> None:
    id = new_job(database)
    add_upload(database, id)
    assert claim_upload(database, "a") is not None
    assert claim_upload(database, "b") is None
    assert claim_upload(database, "a") is not None
