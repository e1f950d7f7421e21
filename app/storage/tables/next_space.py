"""The space that fills beside the one that serves, until both change places in one transaction.

What is to be encoded is the log of the present space: each of its `add` entries whose key has no vector in the next
space. So whatever comes in, is replaced or deleted meanwhile needs no list of its own, and after a kill the work goes
on where it was. The row belongs to a job; without a job that runs, nothing is left of either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from app.core.clock import now_rfc3339
from app.core.types import EmbeddingSpace, Target
from app.storage.sql import Connection, fetch_all, fetch_number, fetch_one
from app.storage.tables import embeddings, images

TARGETS: tuple[Target, ...] = ("images", "texts")
LACKING = (
    "op = 'add' AND NOT EXISTS (SELECT 1 FROM embeddings n WHERE n.target = e.target AND n.key = e.key"
    " AND n.space = ? AND n.op = 'add')"
)
LIVE_JOB = "(SELECT id FROM jobs WHERE state IN ('queued', 'running'))"
USED_SPACES = "(SELECT space FROM collections WHERE space IS NOT NULL UNION SELECT space FROM next_space)"


class Superseded(Exception):
    """The job has ended: nothing more may be added to its space."""


@dataclass(frozen=True, slots=True)
class NextSpace:
    """The row. Of `total` vectors `done` are there and `failed` cannot be made; all that the present space had up to
    log entry `seq` was tried (-1: not everything once)."""

    job_id: str
    space: str
    total: int
    done: int
    failed: int
    seq: int
    held: bool


@dataclass(frozen=True, slots=True)
class LogPart:
    """The log of one collection and target, in the present space."""

    label: str
    space: str
    target: Target


@dataclass(frozen=True, slots=True)
class PresentEntry:
    """A vector of the present space: its number in the log, and its key."""

    seq: int
    key: int


def get(c: Connection) -> NextSpace | None:
    """The row, if a space fills or its job has just ended."""
    row = fetch_one(c, "SELECT job_id, space, total, done, failed, seq, held FROM next_space")
    if row is None:
        return None
    job_id, space, total, done, failed, seq, held = row
    return NextSpace(job_id, space, total, done, failed, seq, bool(held))


def begin(c: Connection, job_id: str, space: EmbeddingSpace, precision: str | None) -> None:
    """Let a space fill for a job, or go on; counts what there is to do. Raises Superseded if the job has ended."""
    if fetch_one(c, "SELECT 1 FROM jobs WHERE id = ? AND state IN ('queued', 'running')", (job_id,)) is None:
        raise Superseded
    embeddings.save_space(c, space)
    c.execute("UPDATE spaces SET precision = ? WHERE fingerprint = ?", (precision, space.fingerprint))
    held = get(c)
    if held is None or held.job_id != job_id or held.space != space.fingerprint:
        c.execute("DELETE FROM next_space")
        c.execute("INSERT INTO next_space (job_id, space) VALUES (?, ?)", (job_id, space.fingerprint))
    parts = list_parts(c)
    total = sum(embeddings.count_vectors(c, one.label, one.space, one.target) for one in parts)
    done = sum(embeddings.count_vectors(c, one.label, space.fingerprint, one.target) for one in parts)
    c.execute("UPDATE next_space SET total = ?, done = ?, failed = 0, seq = -1", (total, done))


def list_parts(c: Connection) -> list[LogPart]:
    """The logs of all collections that have vectors."""
    rows = fetch_all(c, "SELECT label, space FROM collections WHERE name IS NOT NULL AND space IS NOT NULL")
    return [LogPart(label, space, target) for label, space in rows for target in TARGETS]


def list_lacking(c: Connection, part: LogPart, space: str, after: int, limit: int) -> list[PresentEntry]:
    """Up to `limit` entries of the present space past `after` whose keys have no vector in `space`."""
    rows = fetch_all(
        c,
        "SELECT seq, key FROM embeddings e WHERE collection = ? AND space = ? AND target = ? AND seq > ? AND "
        + LACKING
        + " ORDER BY seq LIMIT ?",
        (part.label, part.space, part.target, after, space, limit),
    )
    return [PresentEntry(*row) for row in rows]


def add_vectors(
    c: Connection, job_id: str, part: LogPart, made: Sequence[tuple[PresentEntry, bytes]], failed: int
) -> None:
    """Append vectors to the next space, without those whose entry was replaced or removed meanwhile, and count.

    Raises Superseded if the job has ended.
    """
    row = get(c)
    if row is None or row.job_id != job_id:
        raise Superseded
    wanted = json.dumps([entry.seq for entry, _ in made])
    there = fetch_all(
        c, "SELECT seq FROM embeddings WHERE op = 'add' AND seq IN (SELECT value FROM json_each(?))", (wanted,)
    )
    still = {seq for (seq,) in there}
    for entry, vector in made:
        if entry.seq in still:
            embeddings.add(c, part.label, row.space, part.target, entry.key, vector)
    c.execute("UPDATE next_space SET done = done + ?, failed = failed + ?", (len(still), failed))
    c.execute("UPDATE next_space SET total = max(total, done + failed)")


def finish_round(c: Connection, job_id: str, seq: int) -> None:
    """Write down that all that the present space had up to `seq` was tried. Raises Superseded."""
    c.execute("UPDATE next_space SET seq = ? WHERE job_id = ?", (seq, job_id))
    if not c.changes():
        raise Superseded


def hold_workers(c: Connection, job_id: str, *, held: bool) -> None:
    """Let no worker begin a picture, or let them go on."""
    c.execute("UPDATE next_space SET held = ? WHERE job_id = ?", (held, job_id))


def are_workers_held(c: Connection) -> bool:
    return fetch_one(c, "SELECT 1 FROM next_space WHERE held = 1") is not None


def change_places(
    c: Connection,
    job_id: str,
    golden: bytes,
    names: Iterable[str],
    encode: Callable[[Sequence[int]], Sequence[bytes]],
    most: int,
) -> int | None:
    """Make the next space the present one of every collection; the vectors of the old one stay, unused.

    Up to `most` texts that came in since the last round are encoded here, from their keys, by `encode`. Returns None,
    and has changed nothing, if more came in. Otherwise returns how many pictures wait for a worker again because no
    vector could be made of them. `golden` are the golden vectors of the new space; `names` those by which settings may
    name the model of the old one. Raises Superseded if the job has ended.
    """
    row = get(c)
    if row is None or row.job_id != job_id:
        raise Superseded
    late = {part: list_lacking(c, part, row.space, row.seq, most + 1) for part in list_parts(c)}
    too_many = sum(map(len, late.values())) > most
    if row.seq < 0 or too_many or any(found for part, found in late.items() if part.target == "images"):
        return None
    for part, entries in late.items():
        if entries:
            vectors = encode([entry.key for entry in entries])
            add_vectors(c, job_id, part, list(zip(entries, vectors, strict=True)), 0)
    queued = _requeue_lacking(c, row.space) if row.failed else 0
    c.execute("UPDATE collections SET space = ? WHERE space IS NOT NULL", (row.space,))
    c.execute("UPDATE spaces SET golden = NULL, chosen_as = NULL WHERE fingerprint <> ?", (row.space,))
    embeddings.save_golden(c, row.space, golden)
    c.execute("DELETE FROM given WHERE space <> ?", (row.space,))
    _remember_change(c, row.space, names)
    c.execute("DELETE FROM next_space")
    return queued


def _requeue_lacking(c: Connection, space: str) -> int:
    """Queue the ready pictures without a vector in `space`: a worker tries them again, and says why it fails."""
    rows = fetch_all(
        c,
        "SELECT key FROM images WHERE status = 'ready' AND NOT EXISTS (SELECT 1 FROM embeddings"
        " WHERE target = 'images' AND key = images.key AND space = ? AND op = 'add')"
        " AND collection IN (SELECT label FROM collections WHERE name IS NOT NULL)",
        (space,),
    )
    for (key,) in rows:
        images.requeue(c, key, None)
    c.execute("UPDATE jobs SET last_seq = 0")  # of a log that may be longer than the new one
    return len(rows)


def _remember_change(c: Connection, space: str, names: Iterable[str]) -> None:
    ((model,),) = fetch_all(c, "SELECT model FROM spaces WHERE fingerprint = ?", (space,))
    now = now_rfc3339()
    c.execute("UPDATE model_changes SET model = ?, changed_at = ?", (model, now))
    sql = "INSERT INTO model_changes (name, model, changed_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
    for name in names:
        c.execute(sql + " SET model = excluded.model, changed_at = excluded.changed_at", (name, model, now))
    c.execute("DELETE FROM model_changes WHERE name = model")


def find_change(c: Connection, names: Iterable[str]) -> tuple[str, str] | None:
    """The model that one of these names means here since a change, and when that was."""
    wanted = json.dumps(list(names))
    return fetch_one(
        c, "SELECT model, changed_at FROM model_changes WHERE name IN (SELECT value FROM json_each(?))", (wanted,)
    )


def get_precision(c: Connection, model: str) -> str | None:
    """The precision that was asked for when this model became that of the data directory."""
    row = fetch_one(c, "SELECT precision FROM spaces WHERE model = ? AND golden IS NOT NULL", (model,))
    return row[0] if row else None


def drop_ended(c: Connection) -> bool:
    """Forget the next space of a job that has ended: cancelled, failed or deleted; whether there was one."""
    c.execute("DELETE FROM next_space WHERE job_id NOT IN " + LIVE_JOB)
    return c.changes() > 0


def list_unused(c: Connection) -> list[LogPart]:
    """The logs of spaces that neither serve nor fill, whether they hold anything or not."""
    spaces = fetch_all(c, "SELECT fingerprint FROM spaces WHERE fingerprint NOT IN " + USED_SPACES)
    if not spaces or fetch_one(c, "SELECT 1 FROM collections WHERE space IS NOT NULL") is None:
        return []
    labels = fetch_all(c, "SELECT label FROM collections")
    return [LogPart(label, space, target) for (space,) in spaces for (label,) in labels for target in TARGETS]


def has_unused(c: Connection) -> bool:
    """Whether there is a log entry of a space that neither serves nor fills."""
    sql = "SELECT 1 FROM embeddings WHERE " + embeddings.OF_LOG + " LIMIT 1"
    return any(fetch_one(c, sql, (part.label, part.space, part.target)) for part in list_unused(c))


def delete_unused(c: Connection, limit: int) -> int:
    """Delete up to `limit` log entries of spaces that neither serve nor fill; returns how many."""
    sql = "DELETE FROM embeddings WHERE seq IN (SELECT seq FROM embeddings WHERE " + embeddings.OF_LOG + " LIMIT ?)"
    deleted = 0
    for part in list_unused(c):
        if deleted < limit:
            c.execute(sql, (part.label, part.space, part.target, limit - deleted))
            deleted += c.changes()
    return deleted


def count_work(c: Connection) -> dict[Target, int]:
    """How many pictures and texts have a vector."""
    found: dict[Target, int] = {"images": 0, "texts": 0}
    for part in list_parts(c):
        found[part.target] += embeddings.count_vectors(c, part.label, part.space, part.target)
    return found


def count_given(c: Connection) -> int:
    """How many waiting pictures brought a vector with them."""
    return fetch_number(c, "SELECT count(*) FROM given")
