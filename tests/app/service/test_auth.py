from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.clock import days_from_now
from app.core.errors import NotFound, Validation
from app.core.types import KeyScope
from app.service import auth as module
from app.service.auth import ApiKeyService, hash_secret, is_active
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.tables import api_keys


@pytest.fixture
def keys(database: Database) -> ApiKeyService:
    return ApiKeyService(database)


@pytest.fixture
def other_process_keys(keys: ApiKeyService, tmp_path: Path) -> Iterator[ApiKeyService]:
    """The same keys as another process sees and changes them: by a connection of its own."""
    other = open_database(tmp_path / "sightline.db")
    yield ApiKeyService(other)
    other.close()


def test_a_key_opens_what_it_was_made_for(keys: ApiKeyService) -> None:
    assert not keys.has_keys()
    key, text = keys.create("me", KeyScope.WRITE, ["holidays", "default"])
    principal = keys.authenticate(text)
    assert principal is not None
    assert (principal.key_id, principal.name, principal.scope) == (key.id, "me", KeyScope.WRITE)
    assert principal.collections == frozenset({"default", "holidays"})
    assert keys.has_keys()


def test_the_text_of_a_key_is_long_and_kept_nowhere(keys: ApiKeyService, tmp_path: Path) -> None:
    _, text = keys.create("me", KeyScope.SEARCH)
    prefix, id, secret = text.split("_", 2)
    assert (prefix, len(id), len(secret)) == ("sl", 12, 43)
    assert len({keys.create("x", KeyScope.SEARCH)[1] for _ in range(20)}) == 20
    for path in tmp_path.iterdir():
        assert secret.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "wrong",
    ["", "_", "__", "sl", "sl_", "sl__", "x" * 100_000, "sl_\ud800_x", "sl_000000000000_" + "A" * 43, "\0", "sl_é_é"],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_key_opens_nothing(wrong: str, keys: ApiKeyService) -> None:
    keys.create("me", KeyScope.ADMIN)
    assert keys.authenticate(wrong) is None
    assert keys.authenticate_session(wrong) is None


def test_a_key_with_one_other_character_or_of_another_id_opens_nothing(keys: ApiKeyService) -> None:
    _, mine = keys.create("me", KeyScope.ADMIN)
    _, yours = keys.create("you", KeyScope.ADMIN)
    prefix, id, secret = mine.split("_", 2)
    other = "A" if secret[-1] != "A" else "B"
    assert keys.authenticate(f"{prefix}_{id}_{secret[:-1]}{other}") is None
    assert keys.authenticate(f"{prefix}_{id}_{secret[:-1]}") is None
    assert keys.authenticate(f"{prefix}_{id}_{yours.split('_', 2)[2]}") is None
    assert keys.authenticate(f"{prefix}_{id}_") is None


@pytest.mark.sqlite
def test_a_key_revoked_elsewhere_is_refused_at_once(keys: ApiKeyService, other_process_keys: ApiKeyService) -> None:
    key, text = other_process_keys.create("me", KeyScope.SEARCH)
    assert keys.authenticate(text)
    other_process_keys.revoke(key.id)
    assert keys.authenticate(text) is None
    assert keys.has_keys()  # the last key is gone, and the door is not open


def test_a_key_is_revoked_by_its_text_too_and_an_unknown_one_is_told(keys: ApiKeyService) -> None:
    key, text = keys.create("me", KeyScope.SEARCH)
    assert keys.revoke(text).id == key.id
    first = keys.list_keys()[0].revoked_at
    keys.revoke(key.id)
    assert keys.list_keys()[0].revoked_at == first  # it was revoked then, not now
    with pytest.raises(NotFound, match="keys list"):
        keys.revoke("nothing")


def test_a_key_ends_when_it_was_said_to(keys: ApiKeyService, monkeypatch: pytest.MonkeyPatch) -> None:
    key, text = keys.create("me", KeyScope.SEARCH, days=1)
    assert keys.authenticate(text)
    assert is_active(key)
    tomorrow = days_from_now(1.01)
    monkeypatch.setattr(module, "now_rfc3339", lambda: tomorrow)
    assert keys.authenticate(text) is None
    assert not is_active(key)


@pytest.mark.sqlite
def test_a_session_has_the_rights_of_its_key_and_ends_with_it(
    keys: ApiKeyService, other_process_keys: ApiKeyService
) -> None:
    key, text = keys.create("me", KeyScope.WRITE, ["a"])
    principal = keys.authenticate(text)
    assert principal is not None
    token, other = keys.open_session(principal), keys.open_session(principal)
    assert keys.authenticate_session(token) == principal
    assert keys.authenticate(token) is None  # a cookie is no key
    other_process_keys.close_session(token)
    assert keys.authenticate_session(token) is None
    assert keys.authenticate_session(other) == principal
    other_process_keys.revoke(key.id)
    assert keys.authenticate_session(other) is None


def test_sessions_end_by_time_and_are_bounded(
    keys: ApiKeyService, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 3)
    _, text = keys.create("me", KeyScope.SEARCH)
    principal = keys.authenticate(text)
    assert principal is not None
    tokens = []
    for n in range(5):
        monkeypatch.setattr(module, "SESSION_DAYS", 10 + n)
        tokens.append(keys.open_session(principal))
    assert [keys.authenticate_session(token) is not None for token in tokens] == [False, False, True, True, True]
    month = days_from_now(40)
    monkeypatch.setattr(module, "now_rfc3339", lambda: month)
    monkeypatch.setattr(api_keys, "now_rfc3339", lambda: month)
    assert keys.authenticate_session(tokens[-1]) is None
    monkeypatch.setattr(module, "SESSION_DAYS", 80)
    keys.open_session(principal)
    assert len(database.read(api_keys.list_sessions)) == 1  # those that had ended went


def test_last_use_is_kept_coarsely(keys: ApiKeyService, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = keys.create("me", KeyScope.SEARCH)
    assert keys.list_keys()[0].last_used_at is None
    keys.authenticate(text)
    database.write(lambda c: None)  # after what was submitted
    first = keys.list_keys()[0].last_used_at
    assert first is not None
    for _ in range(100):
        keys.authenticate(text)
    database.write(lambda c: None)
    assert keys.list_keys()[0].last_used_at == first
    monkeypatch.setattr(module, "LAST_USED_SECONDS", -1.0)
    time.sleep(0.002)
    keys.authenticate(text)
    database.write(lambda c: None)
    assert (keys.list_keys()[0].last_used_at or "") > first


@pytest.mark.sqlite
def test_clearing_the_keys_is_as_if_there_had_never_been_one(
    keys: ApiKeyService, other_process_keys: ApiKeyService
) -> None:
    _, text = keys.create("me", KeyScope.SEARCH)
    principal = keys.authenticate(text)
    assert principal is not None
    token = keys.open_session(principal)
    assert other_process_keys.delete_all() == 1
    assert not keys.has_keys()
    assert keys.authenticate(text) is None
    assert keys.authenticate_session(token) is None


@pytest.mark.parametrize(
    ("name", "collections", "days"),
    [("", (), None), ("x" * 101, (), None), ("a\nb", (), None), ("\x1b[31m", (), None), ("x", ("Not One",), None)],
)
def test_what_no_key_can_be_is_refused(
    name: str, collections: tuple[str, ...], days: float | None, keys: ApiKeyService
) -> None:
    with pytest.raises(Validation):
        keys.create(name, KeyScope.SEARCH, collections, days)


def test_the_number_of_keys_is_bounded(keys: ApiKeyService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    keys.create("a", KeyScope.SEARCH)
    keys.create("b", KeyScope.SEARCH)
    with pytest.raises(Validation, match="2 keys"):
        keys.create("c", KeyScope.SEARCH)


def test_an_unknown_id_costs_what_a_wrong_secret_costs(keys: ApiKeyService) -> None:
    """Medians of interleaved calls; a difference that a caller could use would be far larger than this margin."""
    key, text = keys.create("me", KeyScope.SEARCH)
    wrong = {"secret": f"sl_{key.id}_{'A' * 43}", "id": f"sl_{'0' * 12}_{'A' * 43}", "first": text[:-1] + "?"}
    spent: dict[str, list[int]] = {name: [] for name in wrong}
    for _ in range(3000):
        for name, presented in wrong.items():
            began = time.perf_counter_ns()
            assert keys.authenticate(presented) is None
            spent[name].append(time.perf_counter_ns() - began)
    medians = {name: statistics.median(times) for name, times in spent.items()}
    assert max(medians.values()) < 1.5 * min(medians.values()), medians


def test_what_is_kept_is_the_hash_of_the_secret() -> None:
    assert hash_secret("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
