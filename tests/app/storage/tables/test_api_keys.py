from __future__ import annotations

from functools import partial

from app.core.types import ApiKey, KeyScope
from app.storage.database import Database
from app.storage.tables import api_keys


def key(id: str, **said: object) -> ApiKey:
    made = {
        "name": id,
        "hash": b"h",
        "right": KeyScope.SEARCH,
        "collections": None,
        "created_at": "2026-01-01T00:00:00Z",
    }
    return ApiKey(id, **{**made, **said})  # type: ignore[arg-type]


def test_keys_come_back_as_they_were_put(database: Database) -> None:
    put = [
        key("b", collections=frozenset({"x", "y"})),
        key("a", right=KeyScope.ADMIN, expires_at="2027-01-01T00:00:00Z"),
    ]
    for one in put:
        database.write(partial(api_keys.add, key=one))
    assert database.read(api_keys.list_all) == put  # in the order they were made
    assert database.read(lambda c: api_keys.get(c, "a")) == put[1]
    assert database.read(lambda c: api_keys.get(c, "c")) is None
    assert "b'h'" not in repr(put)


def test_every_change_but_the_last_use_is_another_version(database: Database) -> None:
    seen = [database.read(api_keys.get_version)]

    def has_changed() -> bool:
        seen.append(database.read(api_keys.get_version))
        return seen[-1] != seen[-2]

    database.write(lambda c: api_keys.add(c, key("a")))
    assert has_changed()
    database.write(lambda c: api_keys.record_use(c, "a"))
    assert not has_changed()
    database.write(lambda c: api_keys.add_session(c, b"s", "a", "9999", 5))
    assert has_changed()
    database.write(lambda c: api_keys.delete_session(c, b"s"))
    assert has_changed()
    database.write(lambda c: api_keys.revoke(c, "a"))
    assert has_changed()
    assert database.write(api_keys.delete_all) == 1
    assert has_changed()


def test_a_revoked_key_stays_and_its_sessions_go(database: Database) -> None:
    for id in ("a", "b"):
        database.write(partial(api_keys.add, key=key(id)))
        database.write(partial(api_keys.add_session, hash=id.encode(), key_id=id, expires_at="9999", most=5))
    database.write(lambda c: api_keys.revoke(c, "a"))
    assert [one.revoked_at is not None for one in database.read(api_keys.list_all)] == [True, False]
    assert database.read(api_keys.list_sessions) == {b"b": ("b", "9999")}
