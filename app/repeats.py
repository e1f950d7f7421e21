"""Requests that say by a key of theirs that they are the same: the work is done once, the answer given again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import apsw

from app.clock import rfc3339
from app.errors import InProgress, KeyReused
from app.store import answers
from app.store.answers import Answer
from app.store.database import Database

T = TypeVar("T")
Note = Callable[[apsw.Connection, T], None]

HOURS = 24.0  # how long an answer is kept


class Slot:
    """The place of one answer. `answer` is what was answered before, None the first time."""

    def __init__(self, database: Database, owner: str, key: str, request: str, answer: Answer | None) -> None:
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
            answers.keep(c, self._owner, self._key, Answer(self._request, status, body), _since())

        return note

    def final(self, status: int, body: str) -> None:
        """The answer that is sent, if it is not the one that was kept with the work."""
        if self._kept is not None and self._kept != (status, body):
            self._database.write(lambda c: answers.change(c, self._owner, self._key, status, body))


class Repeats:
    """The answers of one data directory, and the keys whose requests are under way."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._open: set[tuple[str, str]] = set()

    @contextmanager
    def slot(self, owner: str, key: str, request: str) -> Iterator[Slot]:
        """The place for the answer to `request` (a digest) under a key of `owner`.

        Raises KeyReused when the key came with another request, InProgress while that has no answer yet.
        """
        with self._lock:
            if (owner, key) in self._open:
                raise InProgress("a request with this Idempotency-Key is under way; ask again in a moment")
            self._open.add((owner, key))
        try:
            answer = self._database.read(lambda c: answers.find(c, owner, key, _since()))
            if answer is not None and answer.request != request:
                raise KeyReused("this Idempotency-Key came with another request; a new request needs a new key")
            yield Slot(self._database, owner, key, request, answer)
        finally:
            with self._lock:
                self._open.discard((owner, key))


def _since() -> str:
    return rfc3339(datetime.now(UTC) - timedelta(hours=HOURS))
