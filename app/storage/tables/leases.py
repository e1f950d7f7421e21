"""Claims on waiting pictures, in the same rows as the pictures, so that a claim and its result are one commit.

A lease names its owner (a worker that holds a lock file, see `app.core.locks`) and a deadline on the monotonic
clock, which all processes of one machine share; no wall clock decides anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import apsw

from app.core.types import ItemError, Lease
from app.storage.sql import Row, fetch_all, fetch_one
from app.storage.tables import collections, embeddings, fair_queue, images, jobs, precomputed_vectors

NAMED = "collection NOT IN (SELECT label FROM collections WHERE name IS NULL AND swept = 0)"  # none being dropped
LEASE = "UPDATE images SET status = 'processing', lease_owner = ?, lease_until = ?, attempts = attempts + 1"
CLAIM_NEW = (
    LEASE + " WHERE key IN (SELECT key FROM images WHERE status = 'queued' AND attempts = 0 AND job_id IS ?"
    " AND " + NAMED + " ORDER BY key LIMIT ?) RETURNING key, attempts"
)
WAITS = (
    "status = 'queued' AND attempts > 0 AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = images.job_id AND paused = 1)"
    " AND " + NAMED
)
CLAIM_RETRY = (
    LEASE + " WHERE key = (SELECT key FROM images WHERE " + WAITS + " ORDER BY deaths, key LIMIT 1)"
    " RETURNING key, attempts"
)
ALONE = 2  # attempts of a picture that is at work by itself: the first is in company


def claim_images(
    c: apsw.Connection, owner: str, until: float, limit: int, *, alone: bool = True, tried: bool = False
) -> list[Lease]:
    """Lease up to `limit` waiting pictures, counting an attempt for each: those of every job in fair turns.

    Pictures that were tried before come last (first, if `tried`) and one at a time, and only where the owner is
    `alone` with them (holds nothing else): should the worker die again, it is known which picture it was.
    """
    rows = fetch_all(c, CLAIM_RETRY, (owner, until)) if tried and alone else []
    rows = rows or _fresh(c, owner, until, limit)
    if not rows and alone:
        rows = fetch_all(c, CLAIM_RETRY, (owner, until))
    claimed = images.get_by_keys(c, (key for key, _ in rows))
    leases = [Lease(claimed[key], owner, attempts) for key, attempts in rows]
    jobs.mark_running(c, {lease.image.job_id for lease in leases if lease.image.job_id})
    return leases


def _fresh(c: apsw.Connection, owner: str, until: float, limit: int) -> list[Row]:
    rows: list[Row] = []
    barren: list[str] = []
    while len(rows) < limit and (turn := fair_queue.next_turn(c, barren)) is not None:
        wanted = min(turn.share, limit - len(rows))
        some = sorted(fetch_all(c, CLAIM_NEW, (owner, until, turn.job_id or None, wanted)))
        fair_queue.charge(c, turn.job_id, len(some))
        rows += some
        if not some:  # all that waits there is of a collection that is being dropped
            barren.append(turn.job_id)
    return rows


def has_retries(c: apsw.Connection) -> bool:
    """Whether a picture waits for another attempt."""
    return fetch_one(c, "SELECT 1 FROM images WHERE " + WAITS + " LIMIT 1") is not None


def list_owners(c: apsw.Connection) -> set[str]:
    """Everyone who holds a lease on a picture or an upload."""
    rows = fetch_all(
        c,
        "SELECT lease_owner FROM images WHERE status = 'processing' AND lease_owner IS NOT NULL"
        " UNION SELECT lease_owner FROM sources WHERE lease_owner IS NOT NULL",
    )
    return {row[0] for row in rows}


def renew_leases(c: apsw.Connection, owner: str, until: float) -> None:
    """Move the deadline of everything the owner holds."""
    c.execute("UPDATE images SET lease_until = ? WHERE status = 'processing' AND lease_owner = ?", (until, owner))
    c.execute("UPDATE sources SET lease_until = ? WHERE lease_owner = ?", (until, owner))


def expire_leases(c: apsw.Connection, dead: Collection[str], clock: float, most: int) -> tuple[int, int]:
    """Take back the leases of dead owners and those past their deadline; returns how many, and how many of them have
    no attempt left and have failed.

    The attempt stays counted: who dies `most` times over a picture has been killed by it, the last time by it alone.
    """
    rows = fetch_all(c, "SELECT key, attempts, lease_owner, lease_until FROM images WHERE status = 'processing'")
    given_up = 0
    lost = [(key, tries) for key, tries, owner, until in rows if owner in dead or until is None or until < clock]
    for key, tries in lost:
        if tries >= max(most, ALONE):
            given_up += 1
            _fail(c, key, ItemError("image_corrupt", f"the worker died {tries} times over this picture"))
        else:
            _queue(c, key)
    for owner in dead:
        c.execute("UPDATE sources SET lease_owner = NULL WHERE lease_owner = ?", (owner,))
    c.execute("UPDATE sources SET lease_owner = NULL WHERE lease_until < ?", (clock,))
    return len(lost), given_up


def recover_leases(c: apsw.Connection, dead: Collection[str], most: int) -> None:
    """Take back, when a server begins, what the `dead` workers of the last one held.

    What a kill of the whole server interrupted is mostly no fault of a picture: it is tried again, by itself, with no
    attempt counted. But a server that died `most` times while one picture alone was at work was killed by it.
    An upload that was being taken in keeps its count, unless it was being expanded: that is done by a child.
    """
    for owner in dead:
        held = fetch_all(
            c,
            "SELECT key, attempts >= ?, deaths FROM images WHERE status = 'processing' AND lease_owner = ?",
            (ALONE, owner),
        )
        for key, alone, deaths in held:
            if alone and deaths + 1 >= most:
                reason = f"the server died {deaths + 1} times while this picture alone was at work"
                _fail(c, key, ItemError("image_corrupt", reason))
            else:
                _queue(c, key)
                c.execute("UPDATE images SET attempts = 1, deaths = deaths + ? WHERE key = ?", (alone, key))
        c.execute(
            "UPDATE sources SET lease_owner = NULL, attempts = iif(imported + pending = 0, 0, attempts)"
            " WHERE lease_owner = ?",
            (owner,),
        )


def release_images(c: apsw.Connection, owner: str, keys: Iterable[int]) -> None:
    """Give pictures back untouched: the attempt is not counted."""
    for key in keys:
        c.execute(
            "UPDATE images SET status = 'queued', lease_owner = NULL, lease_until = NULL, attempts = attempts - 1"
            " WHERE key = ? AND lease_owner = ? AND status = 'processing'",
            (key, owner),
        )


def release_all_images(c: apsw.Connection, owner: str) -> None:
    """Give back everything the owner holds, untouched."""
    held = fetch_all(c, "SELECT key FROM images WHERE status = 'processing' AND lease_owner = ?", (owner,))
    release_images(c, owner, (key for (key,) in held))


def requeue_image(c: apsw.Connection, lease: Lease) -> None:
    """Put a picture back after a failed attempt, which stays counted."""
    if holds_image(c, lease):
        _queue(c, lease.image.key)


def finish_image(
    c: apsw.Connection, lease: Lease, space: str, vector: bytes, width: int, height: int, animated: bool
) -> int | None:
    """Append the vector to the log and mark the picture `ready`; returns the log's number.

    None, and nothing changed, when the lease is no longer the owner's (deleted, replaced, expired, its collection
    dropped). Raises ModelUnavailable when the collection belongs to another space.
    """
    if not holds_image(c, lease):
        return None
    key = lease.image.key
    label = images.get_label(c, key)
    collections.assign_space(c, label, space)
    seq = embeddings.add(c, label, space, "images", key, vector)
    c.execute(
        "UPDATE images SET status = 'ready', embedded_seq = ?, width = ?, height = ?, animated = ?,"
        " error_code = NULL, error_detail = NULL, lease_owner = NULL, lease_until = NULL WHERE key = ?",
        (seq, width, height, int(animated), key),
    )
    precomputed_vectors.delete(c, key)
    jobs.complete_items(c, key, seq)
    return seq


def fail_image(c: apsw.Connection, lease: Lease, error: ItemError) -> None:
    """Mark a picture `failed` for good, with its reason."""
    if holds_image(c, lease):
        _fail(c, lease.image.key, error)


def holds_image(c: apsw.Connection, lease: Lease) -> bool:
    """Whether the owner still has the lease on this picture, with the bytes that it had then, and is to finish it.

    The bytes count: a picture that was replaced may have been claimed again by the same owner.
    """
    sql = "SELECT 1 FROM images WHERE key = ? AND lease_owner = ? AND sha256 = ? AND status = 'processing' AND "
    return fetch_one(c, sql + NAMED, (lease.image.key, lease.owner, lease.image.sha256)) is not None


def _queue(c: apsw.Connection, key: int) -> None:
    c.execute("UPDATE images SET status = 'queued', lease_owner = NULL, lease_until = NULL WHERE key = ?", (key,))


def _fail(c: apsw.Connection, key: int, error: ItemError) -> None:
    images.fail(c, key, error)
    jobs.fail_items(c, key, error)
