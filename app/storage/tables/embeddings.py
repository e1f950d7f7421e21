"""The log of embeddings, which every index follows in the order of `seq`, and the spaces of its vectors.

In a space a key has at most one `add` (adding again replaces it under a new number), so the log of a space is as long
as the collection plus its deletions, and replaying it from 0 always gives the same index. A second space has vectors
only while it fills beside the first (see `app.storage.tables.next_space`).

Each change of the log leaves a mark with a random number. A database that was restored, or whose standby took over, may
have lost the end of the log, and gives the same numbers to other entries: then it does not have the marks of before.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping

from app.core.clock import now_rfc3339
from app.core.types import EmbeddingSpace, Target
from app.storage.sql import Connection, Row, fetch_all, fetch_number, fetch_one, write_places

OF_LOG = "collection = ? AND space = ? AND target = ?"
SPACES = "SELECT model, weights, d, preprocessing FROM spaces WHERE "
OF_SPACE = "space = coalesce(?, (SELECT space FROM collections WHERE label = embeddings.collection), space)"
LogEntry = Row  # seq: int, op: str, key: int, vector: bytes | None


def add(c: Connection, label: str, space: str, target: Target, key: int, vector: bytes) -> int:
    """Append the vector (float32, little endian) of a key; returns its `seq`."""
    return add_all(c, space, target, {key: (label, vector)})[key]


def add_all(c: Connection, space: str, target: Target, vectors: Mapping[int, tuple[str, bytes]]) -> dict[int, int]:
    """Append vectors in this order, each with the label of its collection, by their keys; returns each one's `seq`."""
    sql = "DELETE FROM embeddings WHERE target = ? AND key IN (SELECT value FROM json_each(?)) AND space = ?"
    c.execute(sql, (target, json.dumps(list(vectors)), space))
    sql = "INSERT INTO embeddings (collection, space, target, op, key, vector) VALUES "
    rows = [(label, space, target, "add", key, vector) for key, (label, vector) in vectors.items()]
    sql += write_places(len(rows), 6) + " RETURNING key, seq"
    numbers = {int(key): int(seq) for key, seq in fetch_all(c, sql, [value for row in rows for value in row])}
    _add_mark(c, max(numbers.values()))
    return numbers


def remove(c: Connection, target: Target, key: int) -> int | None:
    """Replace the vectors of a key, in every space, by `remove` entries; returns the last `seq`.

    None when the key had no vector.
    """
    held = fetch_all(
        c, "SELECT collection, space FROM embeddings WHERE target = ? AND key = ? AND op = 'add'", (target, key)
    )
    if not held:
        return None
    c.execute("DELETE FROM embeddings WHERE target = ? AND key = ?", (target, key))
    for label, space in held:
        sql = "INSERT INTO embeddings (collection, space, target, op, key) VALUES (?, ?, ?, 'remove', ?) RETURNING seq"
        ((seq,),) = fetch_all(c, sql, (label, space, target, key))
    _add_mark(c, seq)
    return int(seq)


def _add_mark(c: Connection, seq: int) -> None:
    sql = "INSERT INTO log_marks (seq, number) VALUES (?, ?) ON CONFLICT (seq) DO UPDATE SET number = excluded.number"
    c.execute(sql, (seq, secrets.randbits(62)))


def find_newest_mark(c: Connection, known: str = "") -> str | None:
    """The newest mark of all logs, "" before their first entry; None if they do not have the mark `known` any more.

    A reader that has read the log up to entry n, and at the same moment this mark, may go on after n while it is there.
    """
    sql = "SELECT seq || ':' || number FROM log_marks WHERE seq = ? OR seq = (SELECT max(seq) FROM log_marks)"
    marks = [mark for (mark,) in fetch_all(c, sql + " ORDER BY seq", (int(known.partition(":")[0] or 0),))]
    if known and known not in marks:
        return None
    return marks[-1] if marks else ""


def list_after(c: Connection, label: str, space: str, target: Target, seq: int, limit: int) -> list[LogEntry]:
    """The first `limit` entries after `seq`, in order."""
    sql = "SELECT seq, op, key, vector FROM embeddings WHERE " + OF_LOG + " AND seq > ? ORDER BY seq LIMIT ?"
    return fetch_all(c, sql, (label, space, target, seq, limit))


def count_after(c: Connection, label: str, space: str, target: Target, seq: int) -> int:
    """How many entries there are after `seq`."""
    sql = "SELECT count(*) FROM embeddings WHERE " + OF_LOG + " AND seq > ?"
    return fetch_number(c, sql, (label, space, target, seq))


def get_last_seq(c: Connection, label: str, space: str, target: Target) -> int:
    """The `seq` of the last entry, 0 for an empty log."""
    return fetch_number(c, "SELECT max(seq) FROM embeddings WHERE " + OF_LOG, (label, space, target))


def get_last_seq_of_all(c: Connection) -> int:
    """The `seq` of the last entry of any log, 0 without one."""
    return fetch_number(c, "SELECT max(seq) FROM embeddings")


def list_grown_logs(c: Connection, seq: int) -> list[tuple[str, Target]]:
    """(label, target) of each log that has entries after `seq`."""
    rows = fetch_all(c, "SELECT DISTINCT collection, target FROM embeddings WHERE seq > ?", (seq,))
    return [(label, target) for label, target in rows]


def get_vectors(c: Connection, target: Target, keys: Iterable[int], space: str | None = None) -> dict[int, bytes]:
    """The vectors of these keys in a space, or else in that of their collection; keys without one are absent."""
    wanted = json.dumps([int(key) for key in keys])
    rows = fetch_all(
        c,
        "SELECT key, vector FROM embeddings WHERE target = ? AND op = 'add'"
        " AND key IN (SELECT value FROM json_each(?)) AND " + OF_SPACE,
        (target, wanted, space),
    )
    return {row[0]: row[1] for row in rows}


def count_vectors(c: Connection, label: str, space: str, target: Target) -> int:
    """How many keys have a vector."""
    sql = "SELECT count(*) FROM embeddings WHERE " + OF_LOG + " AND op = 'add'"
    return fetch_number(c, sql, (label, space, target))


def save_space(c: Connection, space: EmbeddingSpace) -> None:
    """Add a space, if it is new, so that `get_space` finds the model of its fingerprint."""
    c.execute(
        "INSERT INTO spaces (fingerprint, model, weights, d, preprocessing, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (fingerprint) DO NOTHING",
        (space.fingerprint, space.model, space.weights, space.d, space.preprocessing, now_rfc3339()),
    )


def get_space(c: Connection, fingerprint: str) -> EmbeddingSpace | None:
    """The space of a fingerprint; None if this data directory never had it."""
    row = fetch_one(c, SPACES + "fingerprint = ?", (fingerprint,))
    return EmbeddingSpace(*row) if row else None


def get_golden(c: Connection, fingerprint: str) -> bytes | None:
    """The golden vectors of a space, if there are any: float32, little endian."""
    row = fetch_one(c, "SELECT golden FROM spaces WHERE fingerprint = ?", (fingerprint,))
    return row[0] if row else None


def save_golden(c: Connection, fingerprint: str, vectors: bytes) -> None:
    c.execute("UPDATE spaces SET golden = ? WHERE fingerprint = ?", (vectors, fingerprint))


def mark_served(c: Connection, space: EmbeddingSpace, chosen_as: str | None = None) -> None:
    """Write down that a server has loaded this space, and the short name by which it was chosen.

    While no collection has vectors, it replaces the one before.
    """
    save_space(c, space)
    if chosen_as is not None:
        c.execute("UPDATE spaces SET chosen_as = ? WHERE fingerprint = ?", (chosen_as, space.fingerprint))
    c.execute(
        "UPDATE spaces SET golden = NULL WHERE fingerprint <> ?"
        " AND NOT EXISTS (SELECT 1 FROM collections WHERE space IS NOT NULL)",
        (space.fingerprint,),
    )


def get_chosen_model(c: Connection, chosen_as: str) -> str | None:
    """The model that this directory is served with and that was chosen by this short name."""
    row = fetch_one(c, "SELECT model FROM spaces WHERE chosen_as = ? AND golden IS NOT NULL", (chosen_as,))
    return row[0] if row else None


def get_other_served(c: Connection, but: str) -> EmbeddingSpace | None:
    """Another space than `but` that a server has loaded here: one with golden vectors."""
    row = fetch_one(c, SPACES + "golden IS NOT NULL AND fingerprint <> ? LIMIT 1", (but,))
    return EmbeddingSpace(*row) if row else None


def delete_all(c: Connection) -> None:
    """Delete every vector and the space of every collection, so that another model can fill them."""
    c.execute("DELETE FROM embeddings")
    c.execute("DELETE FROM next_space")
    c.execute("DELETE FROM model_changes")
    c.execute("UPDATE spaces SET golden = NULL")
    c.execute("UPDATE collections SET space = NULL")
