from __future__ import annotations

import threading

import apsw
import pytest

from app.core.types import ItemError, Lease, Status
from app.storage.database import Database
from app.storage.tables import embeddings, images, jobs, leases
from tests.support.makers import VECTOR, claim, finish, get_image, get_job, insert, new_image, new_job, sha256

ERROR = ItemError("image_corrupt", "cut off")


def vector(database: Database, key: int) -> bytes | None:
    return database.read(lambda c: embeddings.get_vectors(c, "images", [key])).get(key)


def expire(database: Database, dead: tuple[str, ...] = (), clock: float = 0.0, most: int = 3) -> int:
    lost, _ = database.write(lambda c: leases.expire_leases(c, dead, clock, most))
    return lost


def holds(database: Database, lease: Lease) -> bool:
    return database.read(lambda c: leases.holds_image(c, lease))


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
    database.write(lambda c: leases.fail_image(c, lease, ERROR))
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
    assert (get_job(database, waiting).state, get_job(database, waiting).started_at) == ("queued", None)
    claim(database)
    assert get_job(database, waiting).state == "running"
    assert get_job(database, waiting).started_at is not None


def test_owners_are_those_who_hold_something(database: Database) -> None:
    insert(database, 1)
    insert(database, 2)
    assert database.read(leases.list_owners) == set()
    claim(database, "a", limit=1)
    claim(database, "b", limit=1)
    assert database.read(leases.list_owners) == {"a", "b"}


def test_finish_appends_the_vector_and_makes_the_picture_ready_in_one_commit(database: Database) -> None:
    insert(database, 1, "one")
    (lease,) = claim(database)
    seq = finish(database, lease)
    image = get_image(database, "one")
    assert (image.status, image.embedded_seq) == (Status.READY, seq)
    assert vector(database, image.key) == VECTOR
    assert not holds(database, lease)


def test_finish_after_delete_does_nothing(database: Database) -> None:
    image = insert(database, 1)
    (lease,) = claim(database)
    database.write(lambda c: images.delete(c, image.key))
    assert finish(database, lease) is None
    assert vector(database, image.key) is None


def replace(database: Database, id: str, n: int) -> None:
    database.write(lambda c: images.add(c, "default", new_image(n, id), None, True))


def test_finish_after_replace_does_nothing(database: Database) -> None:
    image = insert(database, 1, "one")
    (lease,) = claim(database)
    replace(database, "one", 2)
    assert finish(database, lease) is None
    assert vector(database, image.key) is None
    assert get_image(database, "one").status is Status.QUEUED


def test_the_vector_of_replaced_bytes_is_refused_when_the_same_owner_has_claimed_the_new_ones(
    database: Database,
) -> None:
    image = insert(database, 1, "one")
    (old,) = claim(database, "a")
    replace(database, "one", 2)
    (now,) = claim(database, "a")
    assert finish(database, old, b"\1" * 16) is None
    database.write(lambda c: leases.fail_image(c, old, ERROR))
    database.write(lambda c: leases.requeue_image(c, old))
    assert (get_image(database, "one").status, get_image(database, "one").sha256) == (Status.PROCESSING, sha256(2))
    assert finish(database, now) is not None
    assert vector(database, image.key) == VECTOR


def test_finish_after_somebody_else_took_over_does_nothing(database: Database) -> None:
    insert(database, 1)
    (lost,) = claim(database, "a")
    assert expire(database, dead=("a",)) == 1
    (theirs,) = claim(database, "b")
    assert finish(database, lost) is None
    assert holds(database, theirs)
    assert finish(database, theirs) is not None
    assert finish(database, theirs) is None  # a second time


def test_release_gives_the_attempt_back(database: Database) -> None:
    image = insert(database, 1)
    claim(database, "a")
    database.write(lambda c: leases.release_images(c, "a", [image.key]))
    assert [lease.attempts for lease in claim(database, "a")] == [1]


def test_release_leaves_the_leases_of_others_alone(database: Database) -> None:
    image = insert(database, 1)
    (lease,) = claim(database, "a")
    database.write(lambda c: leases.release_images(c, "b", [image.key]))
    assert holds(database, lease)


def test_release_all_gives_back_everything_of_one_owner(database: Database) -> None:
    for n in range(4):
        insert(database, n)
    claim(database, "a", limit=2)
    (kept,) = claim(database, "b", limit=1)
    database.write(lambda c: leases.release_all_images(c, "a"))
    assert database.read(leases.list_owners) == {"b"}
    assert [lease.attempts for lease in claim(database, "c")] == [1, 1, 1]
    assert holds(database, kept)


def test_requeue_keeps_the_attempt_counted(database: Database) -> None:
    insert(database, 1)
    (lease,) = claim(database)
    database.write(lambda c: leases.requeue_image(c, lease))
    assert [lease.attempts for lease in claim(database)] == [2]


def test_fail_keeps_the_reason_and_ends_the_item(database: Database) -> None:
    id = new_job(database, [1])
    (lease,) = claim(database)
    database.write(lambda c: leases.fail_image(c, lease, ERROR))
    image = get_image(database, lease.image.id)
    assert (image.status, image.error) == (Status.FAILED, ERROR)
    job = get_job(database, id)
    assert (job.state, job.failed, job.done, job.total) == ("succeeded", 1, 0, 1)


def test_fail_without_the_lease_does_nothing(database: Database) -> None:
    insert(database, 1, "one")
    (lost,) = claim(database, "a")
    expire(database, dead=("a",))
    database.write(lambda c: leases.fail_image(c, lost, ERROR))
    assert get_image(database, "one").status is Status.QUEUED


def test_the_leases_of_the_dead_come_back_and_those_of_the_living_stay(database: Database) -> None:
    insert(database, 1, "of a")
    insert(database, 2, "of b")
    claim(database, "a", limit=1)
    (alive,) = claim(database, "b", limit=1)
    assert expire(database, dead=("a",)) == 1
    assert get_image(database, "of a").status is Status.QUEUED
    assert holds(database, alive)


def test_a_lease_past_its_deadline_comes_back_whoever_holds_it(database: Database) -> None:
    insert(database, 1)
    (lease,) = claim(database, "a", until=100.0)
    assert expire(database, clock=99.9) == 0
    assert holds(database, lease)
    assert expire(database, clock=100.1) == 1
    assert not holds(database, lease)


def test_renewing_moves_the_deadline_of_the_owner_alone(database: Database) -> None:
    insert(database, 1)
    insert(database, 2)
    (renewed,) = claim(database, "a", limit=1, until=100.0)
    (other,) = claim(database, "b", limit=1, until=100.0)
    database.write(lambda c: leases.renew_leases(c, "a", 200.0))
    assert expire(database, clock=150.0) == 1
    assert holds(database, renewed)
    assert not holds(database, other)


@pytest.mark.parametrize("most", [1, 3])
def test_who_kills_its_worker_too_often_is_marked_failed_with_the_reason(database: Database, most: int) -> None:
    id = new_job(database, [1])
    deaths = max(most, 2)  # one in company says nothing
    for death in range(1, deaths + 1):
        assert [lease.attempts for lease in claim(database, f"w{death}")] == [death]
        assert expire(database, dead=(f"w{death}",), most=most) == 1
    assert claim(database) == []
    job = get_job(database, id)
    assert (job.state, job.failed) == ("succeeded", 1)
    (image,) = database.read(lambda c: images.list_page(c, "default", 10, None))
    assert image.error == ItemError("image_corrupt", f"the worker died {deaths} times over this picture")


def forgive(database: Database, owner: str, most: int = 3) -> None:
    database.write(lambda c: leases.recover_leases(c, {owner}, most))


def test_a_kill_of_the_server_blames_no_picture_that_was_at_work_in_company(database: Database) -> None:
    for n in range(3):
        insert(database, n, f"i{n}")
    for life in range(5):
        assert len(claim(database, f"w{life}")) == (3 if life == 0 else 1)
        forgive(database, f"w{life}")
        assert counted(database) == {"queued": 3}
    while claimed := claim(database):
        finish(database, claimed[0])
    assert counted(database) == {"ready": 3}


def counted(database: Database) -> dict[str, int]:
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
    image = get_image(database, blamed)
    assert image.error == ItemError(
        "image_corrupt", f"the server died {most} times while this picture alone was at work"
    )
    job = get_job(database, id)
    assert (job.state, job.done, job.failed) == ("succeeded", 1, 1)
    database.write(lambda c: images.requeue(c, image.key, id))  # a retry begins anew
    claim(database, "again")
    forgive(database, "again", 2)
    assert get_image(database, blamed).status is Status.QUEUED


def test_what_a_living_worker_holds_when_a_server_begins_is_left_alone(database: Database) -> None:
    insert(database, 1)
    (lease,) = claim(database, "alive")
    forgive(database, "dead")
    assert holds(database, lease)


def test_an_upload_keeps_its_attempts_over_a_death_of_the_server_unless_it_was_being_expanded(
    database: Database,
) -> None:
    id = new_job(database)
    database.write(lambda c: jobs.add_upload(c, id, 0, "folder", "", 5))
    database.write(lambda c: jobs.add_upload(c, id, 1, "archive", "a.zip", 0))
    for owner in ("a", "b"):
        assert database.write(lambda c, owner=owner: jobs.claim_upload(c, owner, 1e12)) is not None  # type: ignore[misc]
        forgive(database, owner)
    attempts = {}
    for owner in ("a", "b"):
        source = database.write(lambda c, owner=owner: jobs.claim_upload(c, owner, 1e12))  # type: ignore[misc]
        assert source is not None
        attempts[source.kind] = source.attempts
    assert attempts == {"folder": 3, "archive": 1}


def test_an_upload_that_a_dead_worker_held_can_be_claimed_again(database: Database) -> None:
    id = new_job(database)

    def take(owner: str) -> jobs.Upload | None:
        return database.write(lambda c: jobs.claim_upload(c, owner, 100.0))

    def source(c: apsw.Connection) -> None:
        jobs.add_upload(c, id, 1, "archive", "a.zip", 0)

    database.write(source)
    assert take("a") is not None
    assert take("b") is None
    assert database.read(leases.list_owners) == {"a"}
    expire(database, dead=("a",))
    assert take("b") is not None
    expire(database, clock=99.0)
    assert take("c") is None
    database.write(lambda c: leases.renew_leases(c, "b", 300.0))
    expire(database, clock=200.0)
    assert take("c") is None
    expire(database, clock=301.0)
    again = take("c")
    assert again is not None
    assert again.attempts == 3


def test_a_picture_tried_before_is_claimed_last_alone_and_by_itself(database: Database) -> None:
    tried, fresh = insert(database, 1), insert(database, 2)
    lease = claim(database, "a", limit=1)[0]
    assert lease.image.key == tried.key
    database.write(lambda c: leases.requeue_image(c, lease))
    insert(database, 3)
    assert [lease.image.key for lease in claim(database, "a")] == [fresh.key, fresh.key + 1]
    assert database.write(lambda c: leases.claim_images(c, "a", 1e12, 10, alone=False)) == []
    assert [lease.image.key for lease in claim(database, "a")] == [tried.key]
