"""Requests with an Idempotency-Key: the work is done once, and a request that comes again gets the same answer.

The transaction of the work also stores its result, so that a kill leaves both or neither. The result is data of
ours: the api package renders answers, and it renders the same one from a stored result.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic_core import to_json

from app.core.clock import days_from_now, now_rfc3339
from app.core.errors import IdempotencyKeyReused, InProgress
from app.storage.database import Database
from app.storage.sql import Connection, fetch_one

RETENTION_DAYS = 1.0
RESULT = 0  # the status of a row whose body is the result of the work; other rows hold an answer
PRUNE_BATCH = 100  # old answers that one change deletes
LARGE_BODY_BYTES = 4096  # a body of this size makes a change count all bodies
MAX_TOTAL_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The digest of a request, and its answer: HTTP status and body, or `RESULT` and the result as JSON."""

    request: str
    status: int
    body: str


@dataclass(frozen=True, slots=True)
class ResponseSlot:
    """The place for the answer to one request. `stored` is what is there already, None the first time."""

    database: Database
    owner: str
    key: str
    request: str
    stored: StoredResponse | None = None

    def record(self, c: Connection, result: object) -> None:
        """Store the result of the work (a dataclass, or a list of them), in the transaction of the work.

        Raises InProgress, so that nothing of the work is kept, where another server has done it meanwhile.
        """
        if find_response(c, self.owner, self.key, days_from_now(-RETENTION_DAYS)) is not None:
            raise InProgress("another server has just answered a request with this Idempotency-Key; try again")
        response = StoredResponse(self.request, RESULT, to_json(result).decode())
        save_response(c, self.owner, self.key, response, days_from_now(-RETENTION_DAYS))

    def replace(self, status: int, body: str) -> None:
        """Store the answer that was sent, which is another than the recorded result renders to."""
        values = (status, body, len(body.encode()), self.owner, self.key)

        def work(c: Connection) -> None:
            c.execute("UPDATE answers SET status = ?, body = ?, bytes = ? WHERE owner = ? AND key = ?", values)

        self.database.write(work)


class IdempotencyStore:
    """The answers of one data directory, and the keys whose requests are running."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._running: set[tuple[str, str]] = set()

    @contextmanager
    def slot(self, owner: str, key: str, request: str) -> Iterator[ResponseSlot]:
        """The place for the answer to `request` (a digest) under a key of `owner`.

        Raises IdempotencyKeyReused when the key came with another request, InProgress while that is running.
        """
        with self._lock:
            if (owner, key) in self._running:
                raise InProgress("a request with this Idempotency-Key is running; try again in a moment")
            self._running.add((owner, key))
        try:
            stored = self._database.read(lambda c: find_response(c, owner, key, days_from_now(-RETENTION_DAYS)))
            if stored is not None and stored.request != request:
                raise IdempotencyKeyReused(
                    "this Idempotency-Key came with another request; a new request needs a new key"
                )
            yield ResponseSlot(self._database, owner, key, request, stored)
        finally:
            with self._lock:
                self._running.discard((owner, key))


def find_response(c: Connection, owner: str, key: str, since: str) -> StoredResponse | None:
    """What is stored under a key of `owner`, if it is not older than `since`."""
    row = fetch_one(
        c,
        "SELECT request, status, body FROM answers WHERE owner = ? AND key = ? AND created_at >= ?",
        (owner, key, since),
    )
    return StoredResponse(*row) if row else None


def save_response(c: Connection, owner: str, key: str, response: StoredResponse, since: str) -> None:
    """Store a response, and delete some of those from before `since`."""
    c.execute(
        "DELETE FROM answers WHERE n IN (SELECT n FROM answers WHERE created_at < ? ORDER BY created_at LIMIT ?)",
        (since, PRUNE_BATCH),
    )
    size = len(response.body.encode())
    c.execute("DELETE FROM answers WHERE owner = ? AND key = ?", (owner, key))
    c.execute(
        "INSERT INTO answers (owner, key, request, status, body, bytes, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (owner, key, response.request, response.status, response.body, size, now_rfc3339()),
    )
    if size > LARGE_BODY_BYTES:
        c.execute(
            "DELETE FROM answers WHERE n IN (SELECT n FROM"
            " (SELECT n, sum(bytes) OVER (ORDER BY n DESC) AS held FROM answers) AS sizes WHERE held > ?)",
            (MAX_TOTAL_BYTES,),
        )
