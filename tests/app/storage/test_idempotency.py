from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter

from app.core.errors import IdempotencyKeyReused, InProgress, NotFound
from app.core.types import Job, Text
from app.storage import idempotency
from app.storage.database import Database
from app.storage.idempotency import RESULT, IdempotencyStore, ResponseSlot, StoredResponse
from app.storage.jobs import JobOptions, JobService
from app.storage.library import AddResult, Library
from app.storage.sql import Connection, fetch_all, fetch_number
from app.storage.tables import embeddings, jobs
from tests.support.makers import FINGERPRINT, SPACE, VECTOR, add
from tests.support.pictures import picture

LONG_AGO, LATER = "2000-01-01", "2999-01-01"


def make(
    database: Database, store: IdempotencyStore, key: str = "k", request: str = "r", owner: str = ""
) -> StoredResponse | None:
    """Make a job under a key, as a route does; returns what was stored before."""
    with store.slot(owner, key, request) as slot:
        if slot.stored is None:
            database.write(lambda c: make_job(c, slot))
        return slot.stored


def make_job(c: Connection, slot: ResponseSlot) -> None:
    slot.record(c, {"id": jobs.create(c, "default", "bulk")})


def count(database: Database) -> int:
    return len(database.read(lambda c: jobs.list_recent(c, 100)))


def save(database: Database, key: str, body: str = "{}", owner: str = "", since: str = LONG_AGO) -> None:
    response = StoredResponse("digest", 202, body)
    database.write(lambda c: idempotency.save_response(c, owner, key, response, since))


def find(database: Database, key: str, owner: str = "", since: str = LONG_AGO) -> StoredResponse | None:
    return database.read(lambda c: idempotency.find_response(c, owner, key, since))


def test_the_work_is_done_once_and_its_result_is_found_again(database: Database) -> None:
    store = IdempotencyStore(database)
    assert make(database, store) is None
    (job,) = database.read(lambda c: jobs.list_recent(c, 10))
    for again in (store, IdempotencyStore(database)):  # after a restart, too
        assert make(database, again) == StoredResponse("r", RESULT, json.dumps({"id": job.id}, separators=(",", ":")))
    assert count(database) == 1


def test_keys_of_others_are_others(database: Database) -> None:
    store = IdempotencyStore(database)
    for owner in ("one", "two"):
        assert make(database, store, owner=owner) is None
    assert count(database) == 2


def test_a_key_with_another_request_is_refused(database: Database) -> None:
    store = IdempotencyStore(database)
    make(database, store)
    with pytest.raises(IdempotencyKeyReused):
        make(database, store, request="another")
    assert count(database) == 1


def test_a_key_whose_request_is_running_is_refused_until_it_has_ended(database: Database) -> None:
    store = IdempotencyStore(database)
    with store.slot("", "k", "r"), pytest.raises(InProgress):
        make(database, store)
    assert make(database, store) is None


def test_work_that_fails_stores_no_result(database: Database) -> None:
    store = IdempotencyStore(database)

    def fail(c: Connection, slot: ResponseSlot) -> None:
        make_job(c, slot)
        raise NotFound("in the end it could not be done")

    with store.slot("", "k", "r") as slot, pytest.raises(NotFound):
        database.write(lambda c: fail(c, slot))
    assert count(database) == 0
    assert make(database, store) is None
    assert count(database) == 1


def test_the_answer_that_was_sent_takes_the_place_of_the_result(database: Database) -> None:
    store = IdempotencyStore(database)
    with store.slot("", "k", "r") as slot:
        database.write(lambda c: make_job(c, slot))
        slot.replace(200, "ready")
    assert make(database, store) == StoredResponse("r", 200, "ready")


@pytest.mark.parametrize(
    "metadata", [{}, {"big": 10**30, "small": 1e-300, "text": "笑脸", "nested": {"list": [1, None, True, 0.1]}}]
)
def test_every_kind_of_result_comes_back_as_it_was(library: Library, metadata: dict[str, object]) -> None:
    store = IdempotencyStore(library.database)

    def read_answer(key: str) -> str:
        found = find(library.database, key)
        assert found is not None
        assert found.status == RESULT
        return found.body

    with store.slot("", "image", "r") as slot:
        added = add(library, picture(), slot=slot, id="a", caption="红", tags=("x", "y"), metadata=metadata)
    assert TypeAdapter(AddResult).validate_json(read_answer("image")) == added
    with store.slot("", "texts", "r") as slot:
        library.database.write(lambda c: embeddings.save_space(c, SPACE))
        items = [("t", "a text", metadata)]
        texts, _ = library.put_texts("default", FINGERPRINT, items, [VECTOR], slot)
    assert TypeAdapter(list[Text]).validate_json(read_answer("texts")) == texts
    with store.slot("", "job", "r") as slot:
        folder = library.create_upload_dir()
        job = JobService(library).add_urls("default", folder, 1, JobOptions(slot=slot))
    assert TypeAdapter(Job).validate_json(read_answer("job")) == job


def test_a_response_is_found_by_its_owner_alone_and_until_it_is_old(database: Database) -> None:
    save(database, "k", '{"a": 1}', owner="one")
    assert find(database, "k", "one") == StoredResponse("digest", 202, '{"a": 1}')
    assert find(database, "k", "two") is None
    assert find(database, "k", "one", LATER) is None


def test_old_responses_are_deleted_and_their_keys_are_free(database: Database) -> None:
    for n in range(3):
        save(database, str(n))
    save(database, "1", '{"new": 1}', since=LATER)
    assert database.read(lambda c: fetch_all(c, "SELECT key, body FROM answers")) == [("1", '{"new": 1}')]


@pytest.mark.sqlite  # PostgreSQL takes its time over as many changes
def test_the_last_ten_thousand_stay(database: Database) -> None:
    save(database, "first")
    database.write(lambda c: c.execute("UPDATE sqlite_sequence SET seq = 10000 WHERE name = 'answers'") and None)
    save(database, "last")
    assert (find(database, "first"), find(database, "last") is None) == (None, False)


def test_large_responses_are_bounded_together(database: Database) -> None:
    body = "x" * (idempotency.MAX_TOTAL_BYTES // 3)
    for n in range(5):
        save(database, str(n), body)
    assert [find(database, str(n)) is not None for n in range(5)] == [False, False, True, True, True]
    assert database.read(lambda c: fetch_number(c, "SELECT sum(bytes) FROM answers")) <= idempotency.MAX_TOTAL_BYTES


def test_of_two_servers_that_get_a_request_at_once_one_does_the_work(database: Database) -> None:
    with IdempotencyStore(database).slot("", "k", "r") as one, IdempotencyStore(database).slot("", "k", "r") as other:
        database.write(lambda c: make_job(c, one))
        with pytest.raises(InProgress):
            database.write(lambda c: make_job(c, other))
    assert count(database) == 1
