"""Saved searches, the pictures that they found, and how far their webhooks are. Every function runs inside a
transaction."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.core.clock import now_rfc3339
from app.core.types import Match, MatchCount, NewMatch, SavedSearch, Webhook
from app.storage.sql import Connection, fetch_all, fetch_number, fetch_one
from app.storage.tables.collections import IN_COLLECTION, name_from_label

MAX_SEARCHES = 100  # of a collection
MAX_MATCHES = 10_000  # of a search that are kept
COLUMNS = (
    "SELECT id, collection, name, query, match, revision, seq, since, seen, error, created_at, url, secret, sent,"
    " sending, failures, next_at, last_error, disabled_at FROM saved_searches "
)
NAMED = "collection IN (SELECT label FROM collections WHERE name IS NOT NULL)"
BEHIND = (
    "EXISTS (SELECT 1 FROM images WHERE collection = saved_searches.collection AND status = 'ready'"
    " AND embedded_seq > seq)"
)
# A webhook that has something to send: a message under way, or a new match that no message had.
WAITS = (
    "url IS NOT NULL AND disabled_at IS NULL AND (sending IS NOT NULL OR EXISTS"
    " (SELECT 1 FROM matches WHERE search = id AND n > sent AND is_new = 1))"
)
FAR_SECONDS = "7200"
NO_WEBHOOK = "sent = 0, sending = NULL, failures = 0, next_at = 0, last_error = NULL, disabled_at = NULL"


def from_row(row: Sequence[Any]) -> SavedSearch:
    id, label, name, query, match, revision, seq, since, seen, error, created_at, url, secret, *state = row
    webhook = None if url is None else Webhook(url, bytes(secret), *state)
    said = json.loads(query)
    return SavedSearch(
        id, label, name_from_label(label), name, said, match, revision, seq, since, seen, error, created_at, webhook
    )


def get(c: Connection, id: str) -> SavedSearch | None:
    row = fetch_one(c, COLUMNS + "WHERE id = ? AND " + NAMED, (id,))
    return from_row(row) if row else None


def list_all(c: Connection, collection: str | None = None) -> list[SavedSearch]:
    """The saved searches of a collection, or of all that are not being deleted; newest first."""
    if collection is None:
        return [from_row(row) for row in fetch_all(c, COLUMNS + "WHERE " + NAMED + " ORDER BY rowid DESC")]
    sql = COLUMNS + "WHERE " + IN_COLLECTION + " ORDER BY rowid DESC"
    return [from_row(row) for row in fetch_all(c, sql, (collection,))]


def list_behind(c: Connection, space: str) -> list[SavedSearch]:
    """Those of collections of this space that were not compared with every ready picture yet."""
    sql = COLUMNS + "WHERE " + BEHIND + " AND collection IN (SELECT label FROM collections WHERE name IS NOT NULL"
    return [from_row(row) for row in fetch_all(c, sql + " AND space = ?)", (space,))]


def count_of_collection(c: Connection, label: str) -> int:
    return fetch_number(c, "SELECT count(*) FROM saved_searches WHERE collection = ?", (label,))


def add(c: Connection, label: str, name: str, query: Mapping[str, Any], match: str | None) -> str:
    """A new search; returns its id. What becomes ready from now on is news."""
    id = secrets.token_hex(8)
    c.execute(
        "INSERT INTO saved_searches (id, collection, name, query, match, since, created_at)"
        " VALUES (?, ?, ?, ?, ?, (SELECT coalesce(max(seq), 0) FROM embeddings), ?)",
        (id, label, name, json.dumps(query, ensure_ascii=False), match, now_rfc3339()),
    )
    return id


def rename(c: Connection, id: str, name: str) -> None:
    c.execute("UPDATE saved_searches SET name = ? WHERE id = ?", (name, id))


def change_query(c: Connection, id: str, query: Mapping[str, Any], match: str | None) -> None:
    """Ask for something else: what was found is forgotten, and what is there is compared again, as no news."""
    c.execute(
        "UPDATE saved_searches SET query = ?, match = ?, revision = revision + 1, seq = 0, error = NULL,"
        " sending = NULL, since = (SELECT coalesce(max(seq), 0) FROM embeddings) WHERE id = ?",
        (json.dumps(query, ensure_ascii=False), match, id),
    )
    c.execute("DELETE FROM matches WHERE search = ?", (id,))


def mark_seen(c: Connection, id: str, n: int | None = None) -> None:
    """Somebody has seen the matches up to `n`, or all."""
    last = "coalesce(?, (SELECT max(n) FROM matches WHERE search = saved_searches.id), 0)"
    c.execute("UPDATE saved_searches SET seen = max(seen, " + last + ") WHERE id = ?", (n, id))


def delete(c: Connection, id: str) -> None:
    c.execute("DELETE FROM saved_searches WHERE id = ?", (id,))


def delete_of_collection(c: Connection, label: str) -> None:
    c.execute("DELETE FROM saved_searches WHERE collection = ?", (label,))


def count_matches(c: Connection, search: SavedSearch) -> MatchCount:
    sql = "SELECT count(*), sum(iif(is_new = 1 AND n > ?, 1, 0)), max(n) FROM matches WHERE search = ?"
    ((total, new, last),) = fetch_all(c, sql, (search.seen, search.id))
    is_behind = fetch_one(c, "SELECT 1 FROM saved_searches WHERE id = ? AND " + BEHIND, (search.id,)) is not None
    return MatchCount(total, int(new or 0), last or 0, not is_behind)


def get_last_match(c: Connection, id: str) -> int | None:
    """The number of the last new match, 0 before the first; None if the search is gone."""
    sql = "SELECT (SELECT max(n) FROM matches WHERE search = id AND is_new = 1) FROM saved_searches WHERE id = ? AND "
    row = fetch_one(c, sql + NAMED, (id,))
    return None if row is None else int(row[0] or 0)


def list_matches(
    c: Connection, id: str, limit: int, *, before: int | None = None, after: int | None = None
) -> list[Match]:
    """Up to `limit` matches: the newest below `before`; or, with `after`, the first new ones past it, in order."""
    columns = "SELECT n, key, is_new, score, matched, matched_at FROM matches WHERE search = ?"
    if after is not None:
        rows = fetch_all(c, columns + " AND is_new = 1 AND n > ? ORDER BY n LIMIT ?", (id, after, limit))
    else:
        highest = before if before is not None else 1 << 62
        rows = fetch_all(c, columns + " AND n < ? ORDER BY n DESC LIMIT ?", (id, highest, limit))
    return [Match(n, key, bool(new), score, tuple(json.loads(by)), at) for n, key, new, score, by, at in rows]


def add_matches(c: Connection, search: SavedSearch, found: Iterable[NewMatch]) -> int:
    """Write down matches, each picture once; returns how many are news. A picture with other bytes counts anew."""
    now, news = now_rfc3339(), 0
    for one in found:
        c.execute("DELETE FROM matches WHERE search = ? AND key = ? AND sha256 <> ?", (search.id, one.key, one.sha256))
        c.execute(
            "INSERT INTO matches (search, key, sha256, is_new, score, matched, matched_at)"
            " SELECT ?, key, sha256, ?, ?, ?, ? FROM images WHERE key = ? AND sha256 = ?"
            " ON CONFLICT (search, key) DO NOTHING",
            (search.id, one.is_new, one.score, json.dumps(one.matched), now, one.key, one.sha256),
        )
        news += c.changes() and one.is_new
    return news


def advance(c: Connection, search: SavedSearch, seq: int, error: str | None = None) -> bool:
    """Write down that the pictures up to this log entry were compared; False if the search was changed meanwhile."""
    sql = "UPDATE saved_searches SET seq = ?, error = ? WHERE id = ? AND revision = ?"
    c.execute(sql, (seq, error, search.id, search.revision))
    return c.changes() > 0


def forget_old_matches(c: Connection, id: str) -> None:
    """Keep the newest MAX_MATCHES; but what a webhook has not delivered yet stays."""
    c.execute(
        "DELETE FROM matches WHERE search = ?1 AND n <= (SELECT n FROM matches WHERE search = ?1"
        " ORDER BY n DESC LIMIT 1 OFFSET ?2) AND NOT (is_new = 1 AND EXISTS (SELECT 1 FROM saved_searches"
        " WHERE id = ?1 AND url IS NOT NULL AND disabled_at IS NULL AND matches.n > sent))",
        (id, MAX_MATCHES),
    )


# Webhooks


def set_webhook(c: Connection, id: str, url: str | None, secret: bytes | None) -> None:
    """Send matches from now on to `url`, or nowhere."""
    c.execute("UPDATE saved_searches SET url = ?, secret = ?, " + NO_WEBHOOK + " WHERE id = ?", (url, secret, id))
    c.execute("UPDATE saved_searches SET sent = (SELECT coalesce(max(n), 0) FROM matches) WHERE id = ?", (id,))


def set_secret(c: Connection, id: str, secret: bytes) -> None:
    c.execute("UPDATE saved_searches SET secret = ? WHERE id = ?", (secret, id))


def enable_webhook(c: Connection, id: str) -> None:
    """Try again to send what was not delivered."""
    c.execute(
        "UPDATE saved_searches SET failures = 0, next_at = 0, last_error = NULL, disabled_at = NULL WHERE id = ?", (id,)
    )


def list_due(c: Connection, now: float, limit: int) -> list[SavedSearch]:
    """Searches whose webhook has something to send now: those that have waited longest first."""
    due = "(next_at <= ?1 OR next_at > ?1 + " + FAR_SECONDS + ")"  # the clock may have been set back
    sql = COLUMNS + "WHERE " + due + " AND " + WAITS + " AND " + NAMED + " ORDER BY next_at LIMIT ?2"
    return [from_row(row) for row in fetch_all(c, sql, (now, limit))]


def get_next_due(c: Connection) -> float | None:
    """When the next message is to be sent; None if there is none."""
    row = fetch_one(c, "SELECT min(next_at) FROM saved_searches WHERE " + WAITS + " AND " + NAMED)
    return row[0] if row else None


def begin_message(c: Connection, search: SavedSearch, limit: int) -> int | None:
    """Choose the matches of the next message, the first `limit` that are not delivered; returns the last one's number.

    A message that is under way stays as it is, so that a repeated one has the same number.
    """
    assert search.webhook is not None
    if search.webhook.sending is not None:
        return search.webhook.sending
    waiting = list_matches(c, search.id, limit, after=search.webhook.sent)
    if not waiting:
        return None
    c.execute("UPDATE saved_searches SET sending = ? WHERE id = ?", (waiting[-1].n, search.id))
    return waiting[-1].n


def finish_message(c: Connection, search: SavedSearch, last: int, now: float) -> None:
    """The message with the matches up to `last` is delivered."""
    c.execute(
        "UPDATE saved_searches SET sent = ?, sending = NULL, failures = 0, next_at = ?, last_error = NULL"
        " WHERE id = ? AND url = ? AND sending = ?",
        (last, now, search.id, search.webhook and search.webhook.url, last),
    )


def fail_message(c: Connection, search: SavedSearch, error: str, next_at: float | None) -> None:
    """A message was not taken: try again at `next_at`; None switches the webhook off."""
    c.execute(
        "UPDATE saved_searches SET failures = failures + 1, next_at = coalesce(?1, 0), last_error = ?2,"
        " disabled_at = iif(?1 IS NULL, ?3, NULL) WHERE id = ?4 AND url = ?5",
        (next_at, error, now_rfc3339(), search.id, search.webhook and search.webhook.url),
    )
