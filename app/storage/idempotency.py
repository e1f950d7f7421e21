"""Requests that say by a key of theirs that they are the same: the work is done once, the answer given again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import apsw

from app.core.clock import format_rfc3339, now_rfc3339
from app.core.errors import IdempotencyKeyReused, InProgress
from app.storage.database import Database
from app.storage.sql import fetch_one

T = TypeVar("T")
Note = Callable[[apsw.Connection, T], None]

RETENTION_HOURS = 24.0  # how long an answer is kept


class ResponseSlot:
    """The place of one answer. `answer` is what was answered before, None the first time."""

    def __init__(self, database: Database, owner: str, key: str, request: str, answer: StoredResponse | None) -> None:
        self._database = database
        self._owner = owner
        self._key = key
        self._request = request
        self._kept: tuple[int, str] | None = None
        self.answer = answer

    def noting(self, render: Callable[[T], tuple[int, str]]) -> Note[T]:
        """What keeps the answer that `render` makes of the work's result, as part of the work's transaction."""

        def note(c: apsw.Connection, result: T) -> None:
            self._kept = status, body = render(result)
            save_response(c, self._owner, self._key, StoredResponse(self._request, status, body), _since())

        return note

    def final(self, status: int, body: str) -> None:
        """The answer that is sent, if it is not the one that was kept with the work."""
        if self._kept is not None and self._kept != (status, body):
            self._database.write(lambda c: update_response(c, self._owner, self._key, status, body))


class IdempotencyStore:
    """The answers of one data directory, and the keys whose requests are under way."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._open: set[tuple[str, str]] = set()

    @contextmanager
    def slot(self, owner: str, key: str, request: str) -> Iterator[ResponseSlot]:
        """The place for the answer to `request` (a digest) under a key of `owner`.

        Raises KeyReused when the key came with another request, InProgress while that has no answer yet.
        """
        with self._lock:
            if (owner, key) in self._open:
                raise InProgress("a request with this Idempotency-Key is under way; ask again in a moment")
            self._open.add((owner, key))
        try:
            answer = self._database.read(lambda c: find_response(c, owner, key, _since()))
            if answer is not None and answer.request != request:
                raise IdempotencyKeyReused(
                    "this Idempotency-Key came with another request; a new request needs a new key"
                )
            yield ResponseSlot(self._database, owner, key, request, answer)
        finally:
            with self._lock:
                self._open.discard((owner, key))


def _since() -> str:
    return format_rfc3339(datetime.now(UTC) - timedelta(hours=RETENTION_HOURS))


PRUNE_BATCH = 100  # old answers that one change removes
LARGE_BODY_BYTES = 4096  # bytes of a body from where on all bodies together are counted
MAX_TOTAL_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The digest of what was asked, and the HTTP status and body of the answer."""

    request: str
    status: int
    body: str


def find_response(c: apsw.Connection, owner: str, key: str, since: str) -> StoredResponse | None:
    """What this owner's key was answered after `since`, or None."""
    row = fetch_one(
        c,
        "SELECT request, status, body FROM answers WHERE owner = ? AND key = ? AND created_at >= ?",
        (owner, key, since),
    )
    return StoredResponse(*row) if row else None


def save_response(c: apsw.Connection, owner: str, key: str, answer: StoredResponse, since: str) -> None:
    """Remember an answer, and forget some of those from before `since`."""
    c.execute(
        "DELETE FROM answers WHERE n IN (SELECT n FROM answers WHERE created_at < ? ORDER BY created_at LIMIT ?)",
        (since, PRUNE_BATCH),
    )
    size = len(answer.body.encode())
    c.execute(
        "INSERT OR REPLACE INTO answers (owner, key, request, status, body, bytes, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (owner, key, answer.request, answer.status, answer.body, size, now_rfc3339()),
    )
    if size > LARGE_BODY_BYTES:
        c.execute(
            "DELETE FROM answers WHERE n IN (SELECT n FROM"
            " (SELECT n, sum(bytes) OVER (ORDER BY n DESC) AS held FROM answers) WHERE held > ?)",
            (MAX_TOTAL_BYTES,),
        )


def update_response(c: apsw.Connection, owner: str, key: str, status: int, body: str) -> None:
    """The answer became another before it was sent: the work was waited for."""
    c.execute(
        "UPDATE answers SET status = ?, body = ?, bytes = ? WHERE owner = ? AND key = ?",
        (status, body, len(body.encode()), owner, key),
    )
