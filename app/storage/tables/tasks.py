"""Jobs that are no imports: the server itself does them, one after the other (see `app.service.tasks`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.core.clock import now_rfc3339
from app.core.types import ItemError, JobState
from app.storage.sql import Connection, fetch_one
from app.storage.tables import jobs
from app.storage.tables.collections import LABEL_OF_NAME

REEMBED = "reembed"  # the kind of the tasks that may take hours
IS_LONG = f"iif(kind = '{REEMBED}', 1, 0) = ?"
NEXT = (
    "SELECT id, parameters FROM jobs INDEXED BY jobs_tasks"
    " WHERE parameters IS NOT NULL AND state = 'queued' AND paused = 0 AND " + IS_LONG + " ORDER BY rowid LIMIT 1"
)
IS_RUN_BY = " AND state = 'running' AND runner = ?"
BEGIN_ANEW = (
    "UPDATE jobs SET state = 'queued', runner = NULL, started_at = NULL, finished_at = NULL, result = NULL,"
    " error = NULL, done = 0, total = 0 WHERE parameters IS NOT NULL"
)


def create(c: Connection, collection: str, kind: str, parameters: Mapping[str, Any]) -> str:
    """A new task; returns the id of its job."""
    id = jobs.create(c, collection, kind)
    c.execute("UPDATE jobs SET parameters = ? WHERE id = ?", (json.dumps(parameters), id))
    return id


def find_unfinished(c: Connection, collection: str, kind: str) -> str | None:
    """The id of a task of this kind and collection that has not ended."""
    row = fetch_one(
        c,
        "SELECT id FROM jobs INDEXED BY jobs_tasks WHERE parameters IS NOT NULL AND state IN ('queued', 'running')"
        " AND kind = ? AND collection = " + LABEL_OF_NAME + " LIMIT 1",
        (kind, collection),
    )
    return str(row[0]) if row else None


def claim(c: Connection, runner: str, *, long: bool) -> tuple[str, dict[str, Any]] | None:
    """Begin the oldest task that waits, among the long ones or among the others; returns its id and parameters.

    `runner` names this run, so that a server that was stopped while another one began the task anew changes nothing.
    """
    row = fetch_one(c, NEXT, (long,))
    if row is None:
        return None
    jobs.mark_running(c, [row[0]])
    c.execute("UPDATE jobs SET runner = ? WHERE id = ?", (runner, row[0]))
    return row[0], json.loads(row[1])


def is_run_by(c: Connection, id: str, runner: str) -> bool:
    """Whether the task is running, and in this run."""
    return fetch_one(c, "SELECT 1 FROM jobs WHERE id = ?" + IS_RUN_BY, (id, runner)) is not None


def report(c: Connection, id: str, runner: str, done: int, total: int) -> None:
    """How far a running task is."""
    c.execute("UPDATE jobs SET done = ?, total = ? WHERE id = ?" + IS_RUN_BY, (done, total, id, runner))


def tell(c: Connection, id: str, runner: str, result: Mapping[str, Any]) -> None:
    """What has come of a running task so far."""
    c.execute("UPDATE jobs SET result = ? WHERE id = ?" + IS_RUN_BY, (json.dumps(result), id, runner))


def finish(c: Connection, id: str, runner: str, result: Mapping[str, Any], error: ItemError | None) -> None:
    """End a running task, with its result and, if it failed, the reason."""
    state = JobState.FAILED if error else JobState.SUCCEEDED
    wrong = json.dumps({"code": error.code, "detail": error.detail}) if error else None
    c.execute(
        "UPDATE jobs SET state = ?1, result = ?2, error = ?3, finished_at = ?4, done = iif(?3 IS NULL, total, done)"
        " WHERE id = ?5 AND state = 'running' AND runner = ?6",
        (state, json.dumps(result), wrong, now_rfc3339(), id, runner),
    )


def release(c: Connection, id: str, runner: str) -> None:
    """Let a running task wait again."""
    c.execute(BEGIN_ANEW + " AND id = ?" + IS_RUN_BY, (id, runner))


def retry(c: Connection, id: str) -> None:
    """Let a task wait again that did not succeed."""
    c.execute(BEGIN_ANEW + " AND id = ? AND state IN ('failed', 'cancelled')", (id,))


def release_all(c: Connection, *, long: bool) -> None:
    """Let the tasks wait again that ran when the server that ran them ended, the long ones or the others."""
    c.execute(BEGIN_ANEW + " AND state = 'running' AND " + IS_LONG, (long,))
