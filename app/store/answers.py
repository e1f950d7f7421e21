"""What requests with an `Idempotency-Key` were answered, so that a repeat gets the same answer and changes nothing.

An answer is kept in the transaction of the work that it tells of: after a kill there are both or neither. Triggers of
the schema keep the last 10,000.
"""

from __future__ import annotations

from dataclasses import dataclass

import apsw

from app.clock import now
from app.store.rows import fetch_one

AGED = 100  # old answers that one change removes
LARGE = 4096  # bytes of a body from where on all bodies together are counted
MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """The digest of what was asked, and the HTTP status and body of the answer."""

    request: str
    status: int
    body: str


def find(c: apsw.Connection, owner: str, key: str, since: str) -> Answer | None:
    """What this owner's key was answered after `since`, or None."""
    row = fetch_one(
        c,
        "SELECT request, status, body FROM answers WHERE owner = ? AND key = ? AND created_at >= ?",
        (owner, key, since),
    )
    return Answer(*row) if row else None


def keep(c: apsw.Connection, owner: str, key: str, answer: Answer, since: str) -> None:
    """Remember an answer, and forget some of those from before `since`."""
    c.execute(
        "DELETE FROM answers WHERE n IN (SELECT n FROM answers WHERE created_at < ? ORDER BY created_at LIMIT ?)",
        (since, AGED),
    )
    size = len(answer.body.encode())
    c.execute(
        "INSERT OR REPLACE INTO answers (owner, key, request, status, body, bytes, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (owner, key, answer.request, answer.status, answer.body, size, now()),
    )
    if size > LARGE:
        c.execute(
            "DELETE FROM answers WHERE n IN (SELECT n FROM"
            " (SELECT n, sum(bytes) OVER (ORDER BY n DESC) AS held FROM answers) WHERE held > ?)",
            (MOST_BYTES,),
        )


def change(c: apsw.Connection, owner: str, key: str, status: int, body: str) -> None:
    """The answer became another before it was sent: the work was waited for."""
    c.execute(
        "UPDATE answers SET status = ?, body = ?, bytes = ? WHERE owner = ? AND key = ?",
        (status, body, len(body.encode()), owner, key),
    )
