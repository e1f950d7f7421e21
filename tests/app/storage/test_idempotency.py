from __future__ import annotations

import pytest

from app.core.errors import IdempotencyKeyReused, InProgress, NotFound
from app.storage.database import Database
from app.storage.idempotency import IdempotencyStore, StoredResponse
from app.storage.tables import jobs


def make(
    database: Database, repeats: IdempotencyStore, key: str = "k", request: str = "r", owner: str = ""
) -> StoredResponse | None:
    """Make a job under a key, as a route does; returns what was answered before."""
    with repeats.slot(owner, key, request) as slot:
        if slot.answer is None:
            note = slot.noting(lambda id: (202, str(id)))

            def work(c: object) -> None:
                note(c, jobs.create(c, "default", "bulk"))  # type: ignore[arg-type]

            database.write(work)
        return slot.answer


def count(database: Database) -> int:
    return len(database.read(lambda c: jobs.list_recent(c, 100)))


def test_the_work_is_done_once_and_the_answer_is_given_again(database: Database) -> None:
    repeats = IdempotencyStore(database)
    assert make(database, repeats) is None
    (job,) = database.read(lambda c: jobs.list_recent(c, 10))
    for again in (repeats, IdempotencyStore(database)):  # after a restart, too
        assert make(database, again) == StoredResponse("r", 202, job.id)
    assert count(database) == 1


def test_keys_of_others_are_others(database: Database) -> None:
    repeats = IdempotencyStore(database)
    for owner in ("one", "two"):
        assert make(database, repeats, owner=owner) is None
    assert count(database) == 2


def test_a_key_with_another_request_is_refused(database: Database) -> None:
    repeats = IdempotencyStore(database)
    make(database, repeats)
    with pytest.raises(IdempotencyKeyReused):
        make(database, repeats, request="another")
    assert count(database) == 1


def test_a_key_whose_request_is_under_way_is_refused_until_it_has_ended(database: Database) -> None:
    repeats = IdempotencyStore(database)
    with repeats.slot("", "k", "r"), pytest.raises(InProgress):
        make(database, repeats)
    assert make(database, repeats) is None


def test_work_that_fails_keeps_no_answer(database: Database) -> None:
    repeats = IdempotencyStore(database)

    def fails() -> None:
        with repeats.slot("", "k", "r") as slot:
            note = slot.noting(lambda id: (202, str(id)))

            def work(c: object) -> None:
                note(c, jobs.create(c, "default", "bulk"))  # type: ignore[arg-type]
                raise NotFound("in the end it could not be done")

            database.write(work)

    with pytest.raises(NotFound):
        fails()
    assert count(database) == 0
    assert make(database, repeats) is None
    assert count(database) == 1


def test_what_was_sent_in_the_end_is_what_is_sent_again(database: Database) -> None:
    repeats = IdempotencyStore(database)
    with repeats.slot("", "k", "r") as slot:
        note = slot.noting(lambda body: (202, str(body)))
        database.write(lambda c: note(c, "queued"))
        slot.final(200, "ready")
    assert make(database, repeats) == StoredResponse("r", 200, "ready")
