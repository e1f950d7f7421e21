from __future__ import annotations

from app.storage import idempotency
from app.storage.database import Database
from app.storage.idempotency import StoredResponse
from app.storage.sql import fetch_all, fetch_number

LONG_AGO, LATER = "2000-01-01", "2999-01-01"


def keep(database: Database, key: str, body: str = "{}", owner: str = "", since: str = LONG_AGO) -> None:
    database.write(lambda c: idempotency.save_response(c, owner, key, StoredResponse("digest", 202, body), since))


def find(database: Database, key: str, owner: str = "", since: str = LONG_AGO) -> StoredResponse | None:
    return database.read(lambda c: idempotency.find_response(c, owner, key, since))


def test_an_answer_is_found_by_its_owner_alone_and_until_it_is_old(database: Database) -> None:
    keep(database, "k", '{"a": 1}', owner="one")
    assert find(database, "k", "one") == StoredResponse("digest", 202, '{"a": 1}')
    assert find(database, "k", "two") is None
    assert find(database, "k", "one", LATER) is None


def test_an_answer_can_become_another(database: Database) -> None:
    keep(database, "k")
    database.write(lambda c: idempotency.update_response(c, "", "k", 200, '{"ready": true}'))
    assert find(database, "k") == StoredResponse("digest", 200, '{"ready": true}')


def test_old_answers_are_forgotten_and_their_keys_are_free(database: Database) -> None:
    for n in range(3):
        keep(database, str(n))
    keep(database, "1", '{"new": 1}', since=LATER)
    assert database.read(lambda c: fetch_all(c, "SELECT key, body FROM answers")) == [("1", '{"new": 1}')]


def test_the_last_ten_thousand_are_kept(database: Database) -> None:
    keep(database, "first")
    database.write(lambda c: c.execute("UPDATE sqlite_sequence SET seq = 10000 WHERE name = 'answers'") and None)
    keep(database, "last")
    assert (find(database, "first"), find(database, "last") is None) == (None, False)


def test_large_answers_are_bounded_together(database: Database) -> None:
    body = "x" * (idempotency.MAX_TOTAL_BYTES // 3)
    for n in range(5):
        keep(database, str(n), body)
    assert [find(database, str(n)) is not None for n in range(5)] == [False, False, True, True, True]
    assert database.read(lambda c: fetch_number(c, "SELECT sum(bytes) FROM answers")) <= idempotency.MAX_TOTAL_BYTES
