"""Who may do what: API keys, and the sessions of browsers that gave one.

A key is `sl_ID_SECRET`. Its secret has 256 bits from the system's source of randomness, so a plain SHA-256 of it is
enough to store: nobody can guess it, and checking one costs microseconds. Keys and sessions are read again after each
commit that changed them, so a key that another process revokes is refused from the next request on.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from app.core.clock import days_from_now, now_rfc3339
from app.core.errors import NotFound, Validation
from app.core.types import ApiKey, KeyScope
from app.storage.database import Database
from app.storage.sql import Connection
from app.storage.tables import api_keys

PREFIX = "sl"
MAX_KEYS = 1_000
MAX_NAME = 100
MAX_SESSIONS = 100  # of one key; more end the oldest
SESSION_DAYS = 30
LAST_USED_SECONDS = 600.0  # the precision of "last used": most requests must not write
MAX_KEY_CHARS = 200  # of a presented key; the rest is ignored
COLLECTION_NAME = re.compile(r"[a-z0-9_-]{1,64}")
NO_HASH = bytes(32)  # compared in place of the hash of an unknown key, so that both take the same time


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller that a key or a session stands for; `collections` is None for all of them."""

    key_id: str
    name: str
    scope: KeyScope
    collections: frozenset[str] | None
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class _StoredKeys:
    """What the database held when keys last changed. `sessions` are (key id, end) by the hash of their token."""

    version: int
    keys: dict[str, ApiKey]
    sessions: dict[bytes, tuple[str, str]]


class ApiKeyService:
    """The keys of one data directory. Any thread may call any method."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._data_version = database.watch_commits()
        self._seen: int | None = None
        self._stored = _StoredKeys(-1, {}, {})
        self._used: dict[str, float] = {}

    def has_keys(self) -> bool:
        """Whether keys were made here. Revoked keys count: revoking the last one must not open the server to all."""
        return bool(self._read_stored().keys)

    def authenticate(self, presented: str) -> Principal | None:
        """The caller of a key; None for a key that is unknown, wrong, revoked or expired (all cost the same)."""
        _, id, secret = (*presented[:MAX_KEY_CHARS].split("_", 2), "", "")[:3]
        key = self._read_stored().keys.get(id)
        is_same = hmac.compare_digest(hash_secret(secret), NO_HASH if key is None else key.hash)
        return self._principal(key) if is_same else None

    def authenticate_session(self, token: str) -> Principal | None:
        """The caller of a session's cookie; None when the session or its key has ended."""
        stored = self._read_stored()
        # A dictionary may be used here: a hash cannot be guessed byte by byte.
        id, ends = stored.sessions.get(hash_secret(token[:MAX_KEY_CHARS]), ("", ""))
        return self._principal(stored.keys.get(id)) if ends > now_rfc3339() else None

    def create(
        self, name: str, right: KeyScope, collections: Collection[str] = (), days: float | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key; returns it and its text, which is stored nowhere. No `collections` stands for all of them."""
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise Validation(f"a key's name has 1 to {MAX_NAME} characters that can be printed")
        if wrong := [one for one in collections if not COLLECTION_NAME.fullmatch(one)]:
            raise Validation(f"{wrong[0]!r} is no collection: a name has 1 to 64 of a-z, 0-9, _ and -")
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        bound = frozenset(collections) or None
        key = ApiKey(
            id, name, hash_secret(secret), right, bound, now_rfc3339(), None if days is None else days_from_now(days)
        )

        def work(c: Connection) -> None:
            if len(api_keys.list_all(c)) >= MAX_KEYS:
                raise Validation(f"there are {MAX_KEYS} keys already; clear them and make new ones")
            api_keys.add(c, key)

        self._database.write(work)
        return key, f"{PREFIX}_{id}_{secret}"

    def list_keys(self) -> list[ApiKey]:
        """All keys in the order of their creation, revoked and expired ones too."""
        return self._database.read(api_keys.list_all)

    def revoke(self, named: str) -> ApiKey:
        """End a key, named by its id or by its whole text. Raises NotFound."""
        id = named.split("_")[1] if named.startswith(PREFIX + "_") else named

        def work(c: Connection) -> ApiKey:
            key = api_keys.get(c, id)
            if key is None:
                raise NotFound(f"there is no key {id!r}; `sightline keys list` shows those there are")
            api_keys.revoke(c, id)
            return key

        return self._database.write(work)

    def delete_all(self) -> int:
        """Delete every key, as if there had never been one; returns how many there were."""
        return self._database.write(api_keys.delete_all)

    def open_session(self, principal: Principal) -> str:
        """Begin a session with the scope of the key; returns the token for its cookie."""
        token = secrets.token_urlsafe(32)
        ends = days_from_now(SESSION_DAYS)
        self._database.write(
            lambda c: api_keys.add_session(c, hash_secret(token), principal.key_id, ends, MAX_SESSIONS)
        )
        return token

    def close_session(self, token: str) -> None:
        self._database.write(lambda c: api_keys.delete_session(c, hash_secret(token[:MAX_KEY_CHARS])))

    def _principal(self, key: ApiKey | None) -> Principal | None:
        if key is None or not is_active(key):
            return None
        last = self._used.get(key.id)
        if last is None or time.monotonic() - last > LAST_USED_SECONDS:
            self._used[key.id] = time.monotonic()
            self._database.submit(lambda c: api_keys.record_use(c, key.id))  # no request waits for it
        return Principal(key.id, key.name, key.right, key.collections, key.expires_at)

    def _read_stored(self) -> _StoredKeys:
        with self._lock:
            seen = self._data_version()
            if seen != self._seen:
                self._stored = self._database.read(self._load)
                self._seen = seen
            return self._stored

    def _load(self, c: Connection) -> _StoredKeys:
        version = api_keys.get_version(c)
        if version == self._stored.version:
            return self._stored
        return _StoredKeys(version, {key.id: key for key in api_keys.list_all(c)}, api_keys.list_sessions(c))


def is_active(key: ApiKey) -> bool:
    """Whether the key is neither revoked nor expired."""
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now_rfc3339())


def hash_secret(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
