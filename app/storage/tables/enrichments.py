"""What the second passes (`ocr`, `caption`) have still to do, and what came of it.

A row belongs to a picture and a kind. One process of the server works for each kind that is on; a row that is `running`
without that process was left by a kill.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.core.types import Image
from app.storage.sql import Connection, fetch_all, fetch_number, fetch_one
from app.storage.tables import images

RETRY_PLACES = 1_000  # places that a picture goes back after an attempt that failed, so behind as many others
IN_KEPT_COLLECTION = "collection NOT IN (SELECT label FROM collections WHERE name IS NULL AND swept = 0)"
WAIT_FOR_ALL = (
    "INSERT INTO enrichments (key, kind, collection, state, place)"
    " SELECT i.key, k.kind, i.collection, 'waiting', i.key FROM enrichment_kinds k, images i"
    " WHERE k.is_on = 1 AND i.key IN (SELECT value FROM json_each(?)) ON CONFLICT (key, kind) DO NOTHING"
)
CLAIM = (
    "UPDATE enrichments SET state = 'running', owner = ?1, lease_until = lease_clock() + ?3, attempts = attempts + 1"
    " WHERE rowid ="
    " (SELECT rowid FROM enrichments INDEXED BY enrichments_next WHERE kind = ?2 AND state = 'waiting' AND "
    + IN_KEPT_COLLECTION
    + " ORDER BY place DESC LIMIT 1) RETURNING key, attempts"
)
HOLDS = (
    "SELECT 1 FROM enrichments e JOIN images i ON i.key = e.key WHERE e.key = ? AND e.kind = ? AND e.state = 'running'"
    " AND e.owner = ? AND e.attempts = ? AND i.sha256 = ? AND i." + IN_KEPT_COLLECTION
)
RUNNING = "SELECT key, attempts FROM enrichments WHERE kind = ? AND state = 'running'"
NEXT_PLACE = (
    "SELECT 1 + max(coalesce((SELECT max(place) FROM enrichments WHERE kind = ?), 0),"
    " (SELECT coalesce(max(key), 0) FROM images))"
)
REQUEST = (
    "INSERT INTO enrichments (key, kind, collection, state, place) SELECT key, ?1, collection, 'waiting', ?2"
    " FROM images WHERE key IN (SELECT value FROM json_each(?3)) AND status = 'ready'"
    " ON CONFLICT (key, kind) DO UPDATE SET state = 'waiting', place = excluded.place, attempts = 0, owner = NULL,"
    " detail = NULL"
)


@dataclass(frozen=True, slots=True)
class Enrichment:
    """What a pass found: columns of the picture's row (as `images.set_carried` takes them), and `result`, what it
    stores beside them (for JSON)."""

    columns: Mapping[str, str | int | float | None]
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EnrichmentClaim:
    """A picture that a process works at, as it was when it was claimed."""

    image: Image
    kind: str
    owner: str
    attempts: int


@dataclass(frozen=True, slots=True)
class EnrichmentCounts:
    """Of one kind and collection, or of all: how many pictures wait, are done, and were given up."""

    waiting: int
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class EnrichmentState:
    """How far a kind is with a picture; `detail` says why it was given up, `result` is what was found."""

    state: str
    detail: str | None
    result: Mapping[str, Any] | None


def switch(c: Connection, kinds: Sequence[str]) -> None:
    """Let exactly these kinds be on. The pictures that are there wait for a kind that was off."""
    c.execute(
        "UPDATE enrichment_kinds SET is_on = 0 WHERE kind NOT IN (SELECT value FROM json_each(?))",
        (json.dumps(kinds),),
    )
    for kind in kinds:
        c.execute(
            "INSERT INTO enrichment_kinds (kind, is_on, backlog)"
            " VALUES (?, 1, (SELECT coalesce(max(key), 0) + 1 FROM images)) ON CONFLICT (kind)"
            " DO UPDATE SET is_on = 1, backlog = iif(enrichment_kinds.is_on = 1,"
            " enrichment_kinds.backlog, excluded.backlog)",
            (kind,),
        )


def list_on(c: Connection) -> list[str]:
    """The kinds that are on."""
    return [kind for (kind,) in fetch_all(c, "SELECT kind FROM enrichment_kinds WHERE is_on = 1 ORDER BY kind")]


def add(c: Connection, keys: Iterable[int]) -> None:
    """Let pictures that are ready wait for each kind that is on, if they have no row of that kind."""
    c.execute(WAIT_FOR_ALL, (json.dumps(list(keys)),))


def add_backlog(c: Connection, kind: str, limit: int) -> bool:
    """Let up to `limit` older pictures wait, if they have no row; False when none are left."""
    row = fetch_one(c, "SELECT backlog FROM enrichment_kinds WHERE kind = ? AND backlog > 0", (kind,))
    if row is None:
        return False
    rows = fetch_all(
        c, "SELECT key, collection, status FROM images WHERE key < ? ORDER BY key DESC LIMIT ?", (row[0], limit)
    )
    for key, label, status in rows:
        if status == "ready":  # the others come when they are
            c.execute(
                "INSERT INTO enrichments (key, kind, collection, state, place)"
                " VALUES (?1, ?2, ?3, 'waiting', ?1) ON CONFLICT (key, kind) DO NOTHING",
                (key, kind, label),
            )
    c.execute("UPDATE enrichment_kinds SET backlog = ? WHERE kind = ?", (rows[-1][0] if rows else 0, kind))
    return bool(rows)


def claim_some(c: Connection, kind: str, owner: str, most: int, seconds: float | None = None) -> list[EnrichmentClaim]:
    """Begin with up to `most` of the next pictures, counting an attempt of each. `seconds` as in `claim`."""
    claimed: list[EnrichmentClaim] = []
    while len(claimed) < most and (one := claim(c, kind, owner, seconds)) is not None:
        claimed.append(one)
    return claimed


def set_fault(c: Connection, kind: str, fault: str | None) -> None:
    """Say why the process of a kind waits; None while it works."""
    c.execute("UPDATE enrichment_kinds SET fault = ? WHERE kind = ?", (fault, kind))


def list_faults(c: Connection) -> dict[str, str]:
    """Why the process of a kind waits, of those kinds that are on and wait."""
    sql = "SELECT kind, fault FROM enrichment_kinds WHERE is_on = 1 AND fault IS NOT NULL"
    return {str(row[0]): str(row[1]) for row in fetch_all(c, sql)}


def claim(c: Connection, kind: str, owner: str, seconds: float | None = None) -> EnrichmentClaim | None:
    """Begin with the next picture, counting an attempt; None when none waits.

    The lease ends after `seconds`, or, with None, when the process ends.
    """
    row = fetch_one(c, CLAIM, (owner, kind, seconds))
    if row is None:
        return None
    key, attempts = row
    return EnrichmentClaim(images.get_by_keys(c, [key])[key], kind, owner, attempts)


def finish(c: Connection, claimed: EnrichmentClaim, found: Enrichment) -> bool:
    """Store what was found; False, and nothing stored, if the picture is deleted or replaced, or asked for again."""
    if not _holds(c, claimed):
        return False
    images.set_carried(c, claimed.image.key, found.columns)
    c.execute(
        "UPDATE enrichments SET state = 'done', owner = NULL, detail = NULL, result = ? WHERE key = ? AND kind = ?",
        (json.dumps(found.result, ensure_ascii=False), claimed.image.key, claimed.kind),
    )
    return True


def fail(c: Connection, claimed: EnrichmentClaim, detail: str) -> None:
    """Give a picture up. What an earlier pass found stays."""
    if _holds(c, claimed):
        _fail(c, claimed.image.key, claimed.kind, detail)


def retry(c: Connection, claimed: EnrichmentClaim) -> None:
    """Let a picture wait for another attempt, behind others."""
    if _holds(c, claimed):
        _wait_again(c, claimed.image.key, claimed.kind)


def put_back(c: Connection, claimed: EnrichmentClaim) -> None:
    """Let a picture wait again, behind others, with no attempt counted: the machine was at fault."""
    if _holds(c, claimed):
        _wait_again(c, claimed.image.key, claimed.kind)
        c.execute(
            "UPDATE enrichments SET attempts = attempts - 1 WHERE key = ? AND kind = ?",
            (claimed.image.key, claimed.kind),
        )


def release(c: Connection, kind: str, *, was_killed: bool, max_attempts: int = 0, expired_only: bool = False) -> int:
    """Let the picture wait again at which a process worked that has ended; returns how many were given up.

    With `expired_only` those whose lease has ended: other processes of this kind may be at work.
    The attempt counts if only that process `was_killed`: the picture may have done it. It does not count when the
    whole server ended.
    """
    failed = 0
    past = " AND lease_until < lease_clock()" if expired_only else ""
    sql = RUNNING + past
    for key, attempts in fetch_all(c, sql, (kind,)):
        if was_killed and attempts >= max_attempts:
            failed += 1
            _fail(c, key, kind, f"the process that worked at this picture died {attempts} times")
        elif was_killed:
            _wait_again(c, key, kind)
        else:
            c.execute(
                "UPDATE enrichments SET state = 'waiting', owner = NULL, attempts = attempts - 1"
                " WHERE key = ? AND kind = ?",
                (key, kind),
            )
    return failed


def release_all(c: Connection) -> None:
    """As `release`, of all kinds, when a server starts."""
    for (kind,) in fetch_all(c, "SELECT kind FROM enrichment_kinds"):
        release(c, kind, was_killed=False)


def request(c: Connection, kind: str, keys: Sequence[int]) -> int:
    """Let these pictures wait, before all others, whatever was done before; returns how many are ready for it."""
    place = fetch_number(c, NEXT_PLACE, (kind,))
    c.execute(REQUEST, (kind, place, json.dumps(keys)))
    return c.changes()


def list_failed(c: Connection, label: str, kind: str) -> set[int]:
    """The keys of the pictures of a collection that were given up."""
    sql = "SELECT key FROM enrichments WHERE collection = ? AND kind = ? AND state = 'failed'"
    return {key for (key,) in fetch_all(c, sql, (label, kind))}


def get_states(c: Connection, key: int) -> dict[str, EnrichmentState]:
    """By kind, of the kinds that the picture waits for or once did."""
    rows = fetch_all(c, "SELECT kind, state, detail, result FROM enrichments WHERE key = ? ORDER BY kind", (key,))
    return {
        kind: EnrichmentState(state, detail, json.loads(result) if result else None)
        for kind, state, detail, result in rows
    }


def count(c: Connection, label: str, ready: int) -> dict[str, EnrichmentCounts]:
    """By kind that is on, of a collection that has `ready` pictures. Those of the backlog wait, too."""
    rows = fetch_all(
        c, "SELECT kind, state, count(*) FROM enrichments WHERE collection = ? GROUP BY kind, state", (label,)
    )
    return _sum_up(list_on(c), rows, ready)


def count_all(c: Connection) -> dict[str, EnrichmentCounts]:
    """By kind that is on, of all collections."""
    kinds = list_on(c)
    if not kinds:
        return {}
    sql = "SELECT kind, state, count(*) FROM enrichments GROUP BY collection, kind, state"
    ready = fetch_number(c, "SELECT count(*) FROM images WHERE status = 'ready'")
    return _sum_up(kinds, fetch_all(c, sql), ready)


def _sum_up(kinds: Sequence[str], rows: Sequence[Sequence[Any]], ready: int) -> dict[str, EnrichmentCounts]:
    found = {}
    for kind in kinds:
        done, failed = (sum(n for one, has, n in rows if (one, has) == (kind, state)) for state in ("done", "failed"))
        found[kind] = EnrichmentCounts(max(0, ready - done - failed), done, failed)
    return found


def _holds(c: Connection, claimed: EnrichmentClaim) -> bool:
    """Whether the claim still stands, for the bytes that were read, in a collection that stays."""
    image = claimed.image
    return fetch_one(c, HOLDS, (image.key, claimed.kind, claimed.owner, claimed.attempts, image.sha256)) is not None


def _fail(c: Connection, key: int, kind: str, detail: str) -> None:
    c.execute(
        "UPDATE enrichments SET state = 'failed', owner = NULL, detail = ? WHERE key = ? AND kind = ?",
        (detail, key, kind),
    )


def _wait_again(c: Connection, key: int, kind: str) -> None:
    c.execute(
        "UPDATE enrichments SET state = 'waiting', owner = NULL, place = place - ? WHERE key = ? AND kind = ?",
        (RETRY_PLACES, key, kind),
    )
