"""The labels of collections, and the tags that they gave to pictures. Every function runs inside a transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from app.core.clock import now_rfc3339
from app.core.types import Label, LabelSet
from app.storage.sql import Connection, Row, fetch_all, fetch_number, fetch_one
from app.storage.tables.collections import IN_COLLECTION

AutoTags = Mapping[str, float]  # tags with their probabilities, the likeliest first
OF_READY = " FROM images WHERE collection = ? AND status = 'ready' AND embedded_seq > ?"
COLUMNS = "SELECT collection, labels, revision, seq, applied, updated_at FROM label_sets "


def from_row(row: Sequence[Any]) -> LabelSet:
    label, labels, revision, seq, applied, updated_at = row
    read = tuple(
        Label(one["label"], tuple(one["texts"]), one["threshold"], one["templates"] and tuple(one["templates"]))
        for one in json.loads(labels)
    )
    return LabelSet(label, read, revision, seq, json.loads(applied) if applied else None, updated_at)


def get(c: Connection, collection: str) -> LabelSet | None:
    """The labels of the collection of this name; None where it has none."""
    row = fetch_one(c, COLUMNS + "WHERE " + IN_COLLECTION, (collection,))
    return from_row(row) if row else None


def get_of_label(c: Connection, label: str) -> LabelSet | None:
    row = fetch_one(c, COLUMNS + "WHERE collection = ?", (label,))
    return from_row(row) if row else None


def list_in_space(c: Connection, space: str) -> list[tuple[str, LabelSet]]:
    """The labels of each collection whose vectors are of this space, with its name."""
    sql = "SELECT name, s.collection, labels, revision, seq, applied, updated_at FROM label_sets s"
    sql += " JOIN collections ON label = s.collection WHERE name IS NOT NULL AND space = ? AND labels <> '[]'"
    return [(row[0], from_row(row[1:])) for row in fetch_all(c, sql, (space,))]


def save(c: Connection, label: str, labels: Sequence[Label]) -> None:
    """Replace the labels of a collection; pictures that are ready now are left to the job that applies them.

    The first revision is the time, so that labels which were taken away and set anew are not taken for those before.
    """
    written = json.dumps([asdict(one) for one in labels], ensure_ascii=False)
    c.execute(
        "INSERT INTO label_sets (collection, labels, revision, seq, updated_at)"
        " VALUES (?1, ?2, ?4, (SELECT coalesce(max(seq), 0) FROM embeddings), ?3)"
        " ON CONFLICT (collection) DO UPDATE SET labels = ?2, revision = label_sets.revision + 1, updated_at = ?3",
        (label, written, now_rfc3339(), time.time_ns()),
    )


def advance(c: Connection, label: str, revision: int, seq: int) -> None:
    """Write down that the pictures up to this log entry were compared with this revision of the labels."""
    c.execute("UPDATE label_sets SET seq = ? WHERE collection = ? AND revision = ?", (seq, label, revision))


def mark_applied(c: Connection, label: str, revision: int, applied: Mapping[str, Any]) -> bool:
    """Write down how all pictures were tagged; False if the labels were changed meanwhile. Labels that are none go."""
    written = json.dumps({**applied, "revision": revision, "at": now_rfc3339()})
    c.execute("UPDATE label_sets SET applied = ? WHERE collection = ? AND revision = ?", (written, label, revision))
    is_present = c.changes() > 0
    c.execute("DELETE FROM label_sets WHERE collection = ? AND labels = '[]' AND revision = ?", (label, revision))
    return is_present


def delete_of_collection(c: Connection, label: str) -> None:
    c.execute("DELETE FROM label_sets WHERE collection = ?", (label,))


def list_ready_after(c: Connection, label: str, seq: int, limit: int) -> list[tuple[int, int]]:
    """(log entry, key) of up to `limit` pictures that became ready past a log entry, in that order."""
    rows = fetch_all(c, "SELECT embedded_seq, key" + OF_READY + " ORDER BY embedded_seq LIMIT ?", (label, seq, limit))
    return [(seq, key) for seq, key in rows]


def count_ready(c: Connection, label: str) -> int:
    return fetch_number(c, "SELECT count(*)" + OF_READY, (label, 0))


def count_tagged(c: Connection, label: str) -> dict[str, int]:
    """How many pictures have each tag."""
    sql = (
        "SELECT atom, count(*) FROM images, json_each(auto_tags) WHERE collection = ? AND auto_tags <> '[]' GROUP BY 1"
    )
    return dict(fetch_all(c, sql, (label,)))


def read_tags(c: Connection, keys: Iterable[int]) -> dict[int, tuple[Row, frozenset[str]]]:
    """The auto-tags of pictures as they are stored, with the tags that were rejected."""
    sql = "SELECT key, auto_tags, auto_probabilities, rejected_tags FROM images"
    rows = fetch_all(c, sql + " WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(list(keys)),))
    return {key: ((tags, shares), frozenset(json.loads(rejected))) for key, tags, shares, rejected in rows}


def set_tags(c: Connection, found: Mapping[int, AutoTags]) -> int:
    """Give pictures these auto-tags, without those that were rejected; returns how many pictures it changed."""
    changed = 0
    for key, (held, rejected) in read_tags(c, found).items():
        kept = {tag: share for tag, share in found[key].items() if tag not in rejected}
        written = (_json(list(kept)), _json([round(share, 4) for share in kept.values()]))
        if written != held:
            c.execute("UPDATE images SET auto_tags = ?, auto_probabilities = ? WHERE key = ?", (*written, key))
            changed += 1
    return changed


def reject(c: Connection, key: int, rejected: Sequence[str]) -> None:
    """Set the tags that a picture must not get, and take off those that it has."""
    c.execute("UPDATE images SET rejected_tags = ? WHERE key = ?", (_json(list(dict.fromkeys(rejected))), key))
    ((tags, shares), _) = read_tags(c, [key])[key]
    set_tags(c, {key: dict(zip(json.loads(tags), json.loads(shares), strict=True))})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
