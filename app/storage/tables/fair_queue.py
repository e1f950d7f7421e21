"""Whose turn it is: every job that has pictures waiting, and all that came one by one, get theirs fairly.

This is fair queueing by start times: who has had least is next, what a picture costs depends on the priority, and a
newcomer begins where the others are. So a small upload waits for its share, not for a million pictures before it, and
the million goes on beside however many small ones. Triggers of the schema keep the rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import apsw

from app.storage.sql import fetch_all

SHARE = 8  # pictures of one turn, at least
WHOLE = 1 << 30
NEXT_TURN = (
    "SELECT job_id, turn, step FROM turns"
    " WHERE held = 0 AND job_id NOT IN (SELECT value FROM json_each(?)) ORDER BY turn, n LIMIT 2"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A job ('' for pictures that came one by one), and how many pictures it may have now."""

    job_id: str
    share: int


def next_turn(c: apsw.Connection, without: Sequence[str] = ()) -> Turn | None:
    """Who is next, leaving out those who have nothing; None when nobody is."""
    rows = fetch_all(c, NEXT_TURN, (json.dumps(list(without)),))
    if not rows:
        return None
    job_id, turn, step = rows[0]
    return Turn(job_id, WHOLE if len(rows) == 1 else max(SHARE, (rows[1][1] - turn) // step))


def charge(c: apsw.Connection, job_id: str, pictures: int) -> None:
    """The job has had so many pictures."""
    c.execute("UPDATE turns SET turn = turn + ? * step WHERE job_id = ?", (pictures, job_id))


def hold(c: apsw.Connection, job_id: str) -> None:
    """The job gets no turn until `free`."""
    c.execute("UPDATE turns SET held = 1 WHERE job_id = ?", (job_id,))


def free(c: apsw.Connection, job_id: str) -> None:
    """The job gets turns again, beginning where the others are."""
    c.execute(
        "UPDATE turns SET held = 0, turn = coalesce((SELECT min(turn) FROM turns WHERE held = 0), turn)"
        " WHERE job_id = ?",
        (job_id,),
    )
