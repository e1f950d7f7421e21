"""How much waits: the depth of the queue, for its limits and checks, and the backlog, for the metrics."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.clock import seconds_since
from app.core.types import JobState, Status
from app.storage.sql import Connection, fetch_all, fetch_number, fetch_one
from app.storage.tables.images import COUNT_ALL


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """The pictures that are not done and their bytes, with the members of uploads that are not imported yet."""

    items: int
    bytes: int

    def why_full(self, max_items: int, max_bytes: int) -> str | None:
        """Why the server accepts nothing more; None when there is room."""
        if self.items >= max_items:
            return f"{self.items} pictures are waiting already (SIGHTLINE_MAX_QUEUE)"
        if self.bytes >= max_bytes:
            return f"{self.bytes >> 20} MiB of pictures are waiting already (SIGHTLINE_MAX_QUEUE_BYTES)"
        return None


JOBS_BY_STATE = (
    "SELECT iif(paused = 1 AND state IN ('queued', 'running'), 'paused', state) AS shown, count(*), min(created_at)"
    " FROM jobs GROUP BY shown"
)
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Of all collections together."""

    depth: QueueDepth
    images: dict[str, int]  # by status
    texts: int
    retrying: int  # pictures that wait for another attempt
    oldest_seconds: float  # since the upload of the picture that has waited longest; 0 when none waits
    uploads: int  # that are not imported yet
    jobs: dict[str, int]  # by state
    oldest_job_seconds: dict[str, float]  # since the oldest job of a state that has not ended was made


def read_depth(c: Connection) -> QueueDepth:
    """Costs one row: triggers of the schema count."""
    ((items, bytes),) = fetch_all(c, "SELECT items, bytes FROM waiting")
    return QueueDepth(items, bytes)


def read_backlog(c: Connection) -> Backlog:
    images = dict.fromkeys((status.value for status in Status), 0)
    for _, status, n in fetch_all(c, COUNT_ALL):
        images[status] += n
    first = fetch_one(
        c,
        "SELECT created_at FROM images WHERE status IN ('queued', 'processing') AND key ="
        " (SELECT min(key) FROM images WHERE status IN ('queued', 'processing'))",
    )
    jobs: dict[str, int] = dict.fromkeys((state.value for state in JobState), 0)
    ages: dict[str, float] = {state.value: 0.0 for state in JobState if state not in ENDED}
    for state, n, oldest in fetch_all(c, JOBS_BY_STATE):
        jobs[state] = n
        if state in ages:
            ages[state] = seconds_since(oldest)
    return Backlog(
        read_depth(c),
        images,
        fetch_number(c, "SELECT count(*) FROM texts"),
        fetch_number(c, "SELECT count(*) FROM images WHERE status = 'queued' AND attempts > 0"),
        seconds_since(first[0]) if first else 0.0,
        fetch_number(c, "SELECT count(*) FROM sources"),
        jobs,
        ages,
    )
