"""Jobs and their items. The counters of a job change in the transaction that changes the item, so they add up."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from app.core.clock import now_rfc3339, seconds_between, seconds_since
from app.core.types import AnswerWarning, ItemError, ItemStatus, Job, JobItem, JobState, Priority
from app.decode.left_out import LeftOut
from app.storage.sql import Connection, fetch_all, fetch_number, fetch_one
from app.storage.tables.collections import LABEL_OF_NAME, name_from_label

STATE = "iif(paused = 1 AND state IN ('queued', 'running'), 'paused', state)"
COLUMNS = (
    "SELECT id, collection, kind, " + STATE + ","
    " total + (SELECT coalesce(sum(pending), 0) FROM sources WHERE job_id = jobs.id),"
    " done, failed, duplicates, created_at, started_at, finished_at, last_seq, step,"
    " left_out, warnings, warned, name, parameters IS NOT NULL, result, error FROM jobs "
)
WAITING = "SELECT job_id, n FROM job_items WHERE image_key = ? AND status = 'queued'"
HAS_ALL_ITEMS = "done + failed + duplicates = total"
IN_STATE = STATE + " = coalesce(?, " + STATE + ")"
RECENT = IN_STATE + " ORDER BY rowid DESC LIMIT ?"  # not by time: somebody may set the clock back
AMONG = "collection IN (SELECT label FROM collections WHERE name IN (SELECT value FROM json_each(?))) AND "
ITEMS = "SELECT n, name, status, image_id, error_code, error_detail, warnings FROM job_items "
ALL_ITEMS = ITEMS + "WHERE job_id = ? AND n > ? ORDER BY n LIMIT ?"
# Without INDEXED BY, SQLite goes through all items of the job to find those of a status.
ITEMS_OF_STATUS = ITEMS + "INDEXED BY job_items_listed WHERE job_id = ? AND status = ? AND n > ? ORDER BY n LIMIT ?"
WARNED_ITEMS = (
    ITEMS + "WHERE job_id = ?1 AND n > ?2 AND warnings IS NOT NULL AND (?3 IS NULL OR status = ?3) ORDER BY n LIMIT ?4"
)
# What a picture costs the turn of its job: four pictures of high priority are as much as one of normal priority.
COST_OF_PRIORITY = {Priority.HIGH: 1, Priority.NORMAL: 4, Priority.LOW: 16}
PRIORITY_OF_COST = {step: priority for priority, step in COST_OF_PRIORITY.items()}


def job_from_row(row: Sequence[Any]) -> Job:
    """The job of one row of `COLUMNS`, with its rate (items a second) and time left (seconds)."""
    (id, collection, kind, state, total, done, failed, duplicates, created, started, finished, seq, step) = row[:13]
    left_out, warnings, warned, name, is_task, result, error = row[13:]
    ended = done + failed + duplicates
    rate = eta = None
    if started is not None and ended:
        spent = seconds_between(started, finished) if finished else seconds_since(started)
        rate = round(ended / spent, 2) if spent > 0 else None
        if rate and finished is None and state != JobState.PAUSED:
            eta = round((total - ended) / rate, 1)
    named = (id, name_from_label(collection), kind, JobState(state))
    counts = (total, done, failed, duplicates)
    said = (json.loads(left_out), read_warnings(warnings), warned, name)
    came = (bool(is_task), json.loads(result) if result else None, ItemError(**json.loads(error)) if error else None)
    return Job(*named, *counts, created, started, finished, rate, eta, seq, PRIORITY_OF_COST[step], *said, *came)


def read_warnings(text: str | None) -> tuple[AnswerWarning, ...]:
    return tuple(AnswerWarning(**one) for one in json.loads(text)) if text else ()


def format_warnings(warnings: Iterable[AnswerWarning]) -> str:
    return json.dumps([asdict(one) for one in warnings])


def new_id() -> str:
    return uuid.uuid4().hex


def create(
    c: Connection, collection: str, kind: str, priority: Priority = Priority.NORMAL, id: str | None = None
) -> str:
    """A new job with nothing in it; returns its id."""
    id = id or new_id()
    c.execute(
        "INSERT INTO jobs (id, collection, kind, state, created_at, step) VALUES (?, "
        + LABEL_OF_NAME
        + ", ?, 'queued', ?, ?)",
        (id, collection, kind, now_rfc3339(), COST_OF_PRIORITY[priority]),
    )
    return id


def set_name(c: Connection, id: str, name: str) -> None:
    c.execute("UPDATE jobs SET name = ? WHERE id = ?", (name, id))


def get(c: Connection, id: str) -> Job | None:
    row = fetch_one(c, COLUMNS + "WHERE id = ?", (id,))
    return job_from_row(row) if row else None


def list_recent(
    c: Connection, limit: int, among: Iterable[str] | None = None, state: JobState | None = None
) -> list[Job]:
    """The newest jobs first, of all collections or of those in `among`; those in `state` if it is given."""
    if among is None:
        return [job_from_row(row) for row in fetch_all(c, COLUMNS + "WHERE " + RECENT, (state, limit))]
    sql = COLUMNS + "WHERE " + AMONG + RECENT
    return [job_from_row(row) for row in fetch_all(c, sql, (json.dumps(list(among)), state, limit))]


def list_items(
    c: Connection, job_id: str, status: ItemStatus | None, after: int, limit: int, *, warned: bool = False
) -> list[tuple[int, JobItem]]:
    """Up to `limit` items numbered past `after`, with their numbers; `warned`: only those with warnings."""
    if warned:
        rows = fetch_all(c, WARNED_ITEMS, (job_id, after, status, limit))
    elif status is None:
        rows = fetch_all(c, ALL_ITEMS, (job_id, after, limit))
    else:
        rows = fetch_all(c, ITEMS_OF_STATUS, (job_id, status, after, limit))
    return [
        (
            n,
            JobItem(
                name, ItemStatus(state), image_id, ItemError(code, detail or "") if code else None, read_warnings(said)
            ),
        )
        for n, name, state, image_id, code, detail, said in rows
    ]


def add_item(
    c: Connection,
    job_id: str,
    name: str,
    status: ItemStatus,
    *,
    image: tuple[int, str] | None = None,
    error: ItemError | None = None,
    warnings: Sequence[AnswerWarning] = (),
    retry: str | None = None,
) -> None:
    """Append an item (`image` is its key and id) and count it. `retry` as `job_control.LostItem` reads it."""
    key, id = image or (None, None)
    code, detail = (error.code, error.detail) if error else (None, None)
    said = format_warnings(warnings) if warnings else None
    c.execute(
        "INSERT INTO job_items"
        " (job_id, n, name, status, image_key, image_id, error_code, error_detail, warnings, retry)"
        " VALUES (?1, (SELECT 1 + coalesce(max(n), 0) FROM job_items WHERE job_id = ?1),"
        " ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        (job_id, name, status, key, id, code, detail, said, retry),
    )
    c.execute(
        "UPDATE jobs SET total = total + 1, failed = failed + ?, duplicates = duplicates + ?, warned = warned + ?"
        " WHERE id = ?",
        (status is ItemStatus.FAILED, status is ItemStatus.DUPLICATE, bool(warnings), job_id),
    )


def add_left_out(c: Connection, job_id: str, left_out: LeftOut) -> None:
    """Add what one upload of the job left out to its counts and warnings."""
    job = get(c, job_id)
    assert job is not None
    whole = LeftOut(Counter(job.left_out), list(job.warnings))
    whole.merge(left_out)
    c.execute(
        "UPDATE jobs SET left_out = ?, warnings = ? WHERE id = ?",
        (json.dumps(whole.kinds), format_warnings(whole.warnings), job_id),
    )


def complete_items(c: Connection, numbers: Mapping[int, int]) -> None:
    """Mark every item that waits for one of these pictures `done`; `numbers` has the `seq` of each picture's vector."""
    sql = "UPDATE job_items SET status = 'done', error_code = NULL, error_detail = NULL WHERE image_key IN"
    sql += " (SELECT value FROM json_each(?)) AND status = 'queued' RETURNING job_id, image_key"
    done: dict[str, list[int]] = {}
    for job_id, key in fetch_all(c, sql, (json.dumps(list(numbers)),)):
        done.setdefault(job_id, []).append(numbers[key])
    for job_id, seqs in sorted(done.items()):
        sql = "UPDATE jobs SET done = done + ?, last_seq = max(last_seq, ?) WHERE id = ? RETURNING " + HAS_ALL_ITEMS
        if fetch_number(c, sql, (len(seqs), max(seqs), job_id)):
            finish_if_complete(c, job_id)


def warn_items(c: Connection, image_key: int, warnings: Sequence[AnswerWarning]) -> None:
    """Add warnings to every item that waits for a picture."""
    for job_id, n in fetch_all(c, WAITING, (image_key,)):
        ((text,),) = fetch_all(c, "SELECT warnings FROM job_items WHERE job_id = ? AND n = ?", (job_id, n))
        joined = format_warnings([*read_warnings(text), *warnings])
        c.execute("UPDATE job_items SET warnings = ? WHERE job_id = ? AND n = ?", (joined, job_id, n))
        c.execute("UPDATE jobs SET warned = warned + ? WHERE id = ?", (text is None, job_id))


def fail_items(c: Connection, image_key: int, error: ItemError) -> None:
    """Mark every item that waits for a picture `failed`."""
    for job_id, n in fetch_all(c, WAITING, (image_key,)):
        set_item_status(c, job_id, n, ItemStatus.FAILED, error)
        c.execute("UPDATE jobs SET failed = failed + 1 WHERE id = ?", (job_id,))
        finish_if_complete(c, job_id)


def set_item_status(c: Connection, id: str, n: int, status: ItemStatus, error: ItemError | None) -> None:
    """Set the status of one item; the caller changes the counters of the job."""
    code, detail = (error.code, error.detail) if error else (None, None)
    c.execute(
        "UPDATE job_items SET status = ?, error_code = ?, error_detail = ? WHERE job_id = ? AND n = ?",
        (status, code, detail, id, n),
    )


def delete_items(c: Connection, id: str, limit: int) -> int:
    """Remove up to `limit` items that do not wait; the counters of the job stay. Returns how many there were."""
    c.execute(
        "DELETE FROM job_items WHERE job_id = ?1 AND n IN"
        " (SELECT n FROM job_items WHERE job_id = ?1 AND status <> 'queued' LIMIT ?2)",
        (id, limit),
    )
    return c.changes()


def mark_running(c: Connection, ids: Iterable[str]) -> None:
    """A worker has begun with these jobs: those that were `queued` are `running` from now on."""
    for id in ids:
        c.execute(
            "UPDATE jobs SET state = 'running', started_at = coalesce(started_at, ?) WHERE id = ? AND state = 'queued'",
            (now_rfc3339(), id),
        )


def finish_if_complete(c: Connection, id: str) -> None:
    """End the job if no item waits and no upload is left."""
    c.execute(
        "UPDATE jobs SET state = 'succeeded', started_at = coalesce(started_at, ?), finished_at = ?"
        " WHERE id = ? AND state IN ('queued', 'running') AND " + HAS_ALL_ITEMS + ""
        " AND NOT EXISTS (SELECT 1 FROM sources WHERE job_id = jobs.id)",
        (now_rfc3339(), now_rfc3339(), id),
    )
