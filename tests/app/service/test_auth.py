from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import NotFound, Validation
from app.core.types import KeyScope
from app.service import auth as module
from app.service.auth import ApiKeyService, days_from_now, hash_secret, is_active
from app.storage.database import Database
from app.storage.tables import api_keys


@pytest.fixture
def access(database: Database) -> ApiKeyService:
    return ApiKeyService(database)


@pytest.fixture
def beside(access: ApiKeyService, tmp_path: Path) -> Iterator[ApiKeyService]:
    """The same keys as another process sees and changes them: by a connection of its own."""
    other = Database(tmp_path / "sightline.db")
    yield ApiKeyService(other)
    other.close()


def test_a_key_opens_what_it_was_made_for(access: ApiKeyService) -> None:
    assert not access.needed()
    key, text = access.create("me", KeyScope.WRITE, ["holidays", "default"])
    grant = access.grant(text)
    assert grant is not None
    assert (grant.key_id, grant.name, grant.right) == (key.id, "me", KeyScope.WRITE)
    assert grant.collections == frozenset({"default", "holidays"})
    assert access.needed()


def test_the_text_of_a_key_is_long_and_kept_nowhere(access: ApiKeyService, tmp_path: Path) -> None:
    _, text = access.create("me", KeyScope.SEARCH)
    prefix, id, secret = text.split("_", 2)
    assert (prefix, len(id), len(secret)) == ("sl", 12, 43)
    assert len({access.create("x", KeyScope.SEARCH)[1] for _ in range(20)}) == 20
    for path in tmp_path.iterdir():
        assert secret.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "wrong",
    ["", "_", "__", "sl", "sl_", "sl__", "x" * 100_000, "sl_\ud800_x", "sl_000000000000_" + "A" * 43, "\0", "sl_é_é"],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_key_opens_nothing(wrong: str, access: ApiKeyService) -> None:
    access.create("me", KeyScope.ADMIN)
    assert access.grant(wrong) is None
    assert access.grant_session(wrong) is None


def test_a_key_with_one_other_character_or_of_another_id_opens_nothing(access: ApiKeyService) -> None:
    _, mine = access.create("me", KeyScope.ADMIN)
    _, yours = access.create("you", KeyScope.ADMIN)
    prefix, id, secret = mine.split("_", 2)
    other = "A" if secret[-1] != "A" else "B"
    assert access.grant(f"{prefix}_{id}_{secret[:-1]}{other}") is None
    assert access.grant(f"{prefix}_{id}_{secret[:-1]}") is None
    assert access.grant(f"{prefix}_{id}_{yours.split('_', 2)[2]}") is None
    assert access.grant(f"{prefix}_{id}_") is None


def test_a_key_revoked_elsewhere_is_refused_at_once(access: ApiKeyService, beside: ApiKeyService) -> None:
    key, text = beside.create("me", KeyScope.SEARCH)
    assert access.grant(text)
    beside.revoke(key.id)
    assert access.grant(text) is None
    assert access.needed()  # the last key is gone, and the door is not open


def test_a_key_is_revoked_by_its_text_too_and_an_unknown_one_is_told(access: ApiKeyService) -> None:
    key, text = access.create("me", KeyScope.SEARCH)
    assert access.revoke(text).id == key.id
    first = access.every()[0].revoked_at
    access.revoke(key.id)
    assert access.every()[0].revoked_at == first  # it was revoked then, not now
    with pytest.raises(NotFound, match="keys list"):
        access.revoke("nothing")


def test_a_key_ends_when_it_was_said_to(access: ApiKeyService, monkeypatch: pytest.MonkeyPatch) -> None:
    key, text = access.create("me", KeyScope.SEARCH, days=1)
    assert access.grant(text)
    assert is_active(key)
    tomorrow = days_from_now(1.01)
    monkeypatch.setattr(module, "now_rfc3339", lambda: tomorrow)
    assert access.grant(text) is None
    assert not is_active(key)


def test_a_session_has_the_rights_of_its_key_and_ends_with_it(access: ApiKeyService, beside: ApiKeyService) -> None:
    key, text = access.create("me", KeyScope.WRITE, ["a"])
    grant = access.grant(text)
    assert grant is not None
    token, other = access.open_session(grant), access.open_session(grant)
    assert access.grant_session(token) == grant
    assert access.grant(token) is None  # a cookie is no key
    beside.close_session(token)
    assert access.grant_session(token) is None
    assert access.grant_session(other) == grant
    beside.revoke(key.id)
    assert access.grant_session(other) is None


def test_sessions_end_by_time_and_are_bounded(
    access: ApiKeyService, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 3)
    _, text = access.create("me", KeyScope.SEARCH)
    grant = access.grant(text)
    assert grant is not None
    tokens = []
    for n in range(5):
        monkeypatch.setattr(module, "SESSION_DAYS", 10 + n)
        tokens.append(access.open_session(grant))
    assert [access.grant_session(token) is not None for token in tokens] == [False, False, True, True, True]
    month = days_from_now(40)
    monkeypatch.setattr(module, "now_rfc3339", lambda: month)
    monkeypatch.setattr(api_keys, "now_rfc3339", lambda: month)
    assert access.grant_session(tokens[-1]) is None
    monkeypatch.setattr(module, "SESSION_DAYS", 80)
    access.open_session(grant)
    assert len(database.read(api_keys.list_sessions)) == 1  # those that had ended went


def test_last_use_is_kept_coarsely(access: ApiKeyService, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = access.create("me", KeyScope.SEARCH)
    assert access.every()[0].last_used_at is None
    access.grant(text)
    database.write(lambda c: None)  # after what was submitted
    first = access.every()[0].last_used_at
    assert first is not None
    for _ in range(100):
        access.grant(text)
    database.write(lambda c: None)
    assert access.every()[0].last_used_at == first
    monkeypatch.setattr(module, "USED_SECONDS", -1.0)
    time.sleep(0.002)
    access.grant(text)
    database.write(lambda c: None)
    assert (access.every()[0].last_used_at or "") > first


def test_clearing_the_keys_is_as_if_there_had_never_been_one(access: ApiKeyService, beside: ApiKeyService) -> None:
    _, text = access.create("me", KeyScope.SEARCH)
    grant = access.grant(text)
    assert grant is not None
    token = access.open_session(grant)
    assert beside.clear() == 1
    assert not access.needed()
    assert access.grant(text) is None
    assert access.grant_session(token) is None


@pytest.mark.parametrize(
    ("name", "collections", "days"),
    [("", (), None), ("x" * 101, (), None), ("a\nb", (), None), ("\x1b[31m", (), None), ("x", ("Not One",), None)],
)
def test_what_no_key_can_be_is_refused(
    name: str, collections: tuple[str, ...], days: float | None, access: ApiKeyService
) -> None:
    with pytest.raises(Validation):
        access.create(name, KeyScope.SEARCH, collections, days)


def test_the_number_of_keys_is_bounded(access: ApiKeyService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    access.create("a", KeyScope.SEARCH)
    access.create("b", KeyScope.SEARCH)
    with pytest.raises(Validation, match="2 keys"):
        access.create("c", KeyScope.SEARCH)


def test_an_unknown_id_costs_what_a_wrong_secret_costs(access: ApiKeyService) -> None:
    """Medians of interleaved calls; a difference that a caller could use would be far larger than this margin."""
    key, text = access.create("me", KeyScope.SEARCH)
    wrong = {"secret": f"sl_{key.id}_{'A' * 43}", "id": f"sl_{'0' * 12}_{'A' * 43}", "first": text[:-1] + "?"}
    spent: dict[str, list[int]] = {name: [] for name in wrong}
    for _ in range(3000):
        for name, presented in wrong.items():
            began = time.perf_counter_ns()
            assert access.grant(presented) is None
            spent[name].append(time.perf_counter_ns() - began)
    medians = {name: statistics.median(times) for name, times in spent.items()}
    assert max(medians.values()) < 1.5 * min(medians.values()), medians


def test_what_is_kept_is_the_hash_of_the_secret() -> None:
    assert hash_secret("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
