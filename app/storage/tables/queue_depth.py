"""How much is not done yet. Triggers of the schema count it, so that asking costs one row."""

from __future__ import annotations

from dataclasses import dataclass

import apsw

from app.core.clock import seconds_since
from app.core.types import JobState, Status
from app.storage.sql import fetch_all, fetch_number, fetch_one


def read_depth(c: apsw.Connection) -> tuple[int, int]:
    """How many pictures wait, with the members of uploads that are not taken in yet, and how many bytes these are."""
    row = fetch_one(c, "SELECT items, bytes FROM waiting")
    assert row is not None
    return int(row[0]), int(row[1])


STATES = (
    "SELECT iif(paused = 1 AND state IN ('queued', 'running'), 'paused', state) AS shown, count(*), min(created_at)"
    " FROM jobs GROUP BY shown"
)
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Of all collections together. `jobs_oldest` holds the seconds since the oldest job of a state was made."""

    images: dict[str, int]
    texts: int
    retrying: int  # pictures that wait for another attempt
    oldest: float  # seconds since the upload of the picture that has waited longest; 0 without one
    sources: int  # uploads, lists and folders that are still to be taken in
    jobs: dict[str, int]
    jobs_oldest: dict[str, float]


def read_backlog(c: apsw.Connection) -> Backlog:
    """Everything at one moment."""
    images = dict.fromkeys((status.value for status in Status), 0)
    for _, status, n in fetch_all(c, "SELECT collection, status, count(*) FROM images GROUP BY collection, status"):
        images[status] += n
    first = fetch_one(
        c,
        "SELECT created_at FROM images WHERE status IN ('queued', 'processing') AND key ="
        " (SELECT min(key) FROM images WHERE status IN ('queued', 'processing'))",
    )
    jobs: dict[str, int] = dict.fromkeys((state.value for state in JobState), 0)
    ages: dict[str, float] = {state.value: 0.0 for state in JobState if state not in ENDED}
    for state, n, oldest in fetch_all(c, STATES):
        jobs[state] = n
        if state in ages:
            ages[state] = seconds_since(oldest)
    return Backlog(
        images,
        fetch_number(c, "SELECT count(*) FROM texts"),
        fetch_number(c, "SELECT count(*) FROM images WHERE status = 'queued' AND attempts > 0"),
        seconds_since(first[0]) if first else 0.0,
        fetch_number(c, "SELECT count(*) FROM sources"),
        jobs,
        ages,
    )
