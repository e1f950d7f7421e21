"""The work queue: pictures to embed and uploads to import, the fair order of the jobs, and the leases of the workers.

A picture waits as a row of `images`, an upload as a row of `sources`. The lease is a part of that row, so that a claim
and its result are one commit. A lease names its owner and a deadline by the SQL function `lease_clock()`: the monotonic
clock that all processes of one machine share (SQLite), or the clock of the database server (PostgreSQL). No wall clock
of a worker decides anything. A worker that was stopped for longer than its lease has no part in a commit: the owner and
the attempt of the claim must still be those of the row.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.core.types import ItemError, Lease
from app.storage.sql import Connection, Row, fetch_all, fetch_number, fetch_one, write_places
from app.storage.tables import collections, embeddings, enrichments, images, jobs, precomputed_vectors
from app.storage.tables.collections import IN_COLLECTION, name_from_label

MIN_SHARE = 8  # pictures of one turn, at least
UNLIMITED = 1 << 30
MAX_LEAD = 1024  # members that a running job may have imported more than another running job whose uploads wait
MEMBERS_PER_SECOND = 100  # that a second of reading an upload counts as
FIRST_ALONE = 2  # the attempt from which a worker holds a picture by itself; at the first it holds others, too

# Where a lease is. SQLite finds the pictures by the index `images_waiting`, which needs the first of the two terms.
IMAGE_LEASED = "status IN ('queued', 'processing') AND status = 'processing'"
UPLOAD_LEASED = "lease_owner IS NOT NULL"
OWNED_BY_ANY = "lease_owner IN (SELECT value FROM json_each(?))"
EXPIRED = "(" + OWNED_BY_ANY + " OR lease_until IS NULL OR lease_until < lease_clock())"
RELEASED = " SET status = 'queued', lease_owner = NULL, lease_until = NULL, attempts = attempts - 1"
IN_KEPT_COLLECTION = "collection NOT IN (SELECT label FROM collections WHERE name IS NULL AND swept = 0)"

NEXT_TURNS = (
    "SELECT job_id, turn, step, (SELECT state FROM jobs WHERE id = job_id) FROM turns"
    " WHERE held = 0 AND job_id NOT IN (SELECT value FROM json_each(?)) ORDER BY turn, n LIMIT 2"
)
CLAIM = (
    "UPDATE images SET status = 'processing', lease_owner = ?, lease_until = lease_clock() + ?, attempts = attempts + 1"
)
CLAIM_NEW = (
    CLAIM + " WHERE key IN (SELECT key FROM images WHERE status = 'queued' AND attempts = 0 AND job_id IS ?"
    " AND " + IN_KEPT_COLLECTION + " ORDER BY key LIMIT ?) RETURNING attempts, " + images.OF_IMAGE
)
HELD = (
    "SELECT collection, (SELECT space FROM collections WHERE label = images.collection), key, attempts, lease_owner,"
    " sha256 FROM images WHERE status = 'processing' AND key IN (SELECT value FROM json_each(?)) AND "
    + IN_KEPT_COLLECTION
)
RETRY_WAITS = (
    "status = 'queued' AND attempts > 0 AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = images.job_id AND paused = 1)"
    " AND " + IN_KEPT_COLLECTION
)
CLAIM_RETRY = (
    CLAIM + " WHERE key = (SELECT key FROM images WHERE " + RETRY_WAITS + " ORDER BY deaths, key LIMIT 1)"
    " RETURNING attempts, " + images.OF_IMAGE
)
UPLOADS = (
    "SELECT s.job_id, s.n, s.kind, s.name, j.collection, s.imported, s.attempts, s.origin, s.options, s.position"
    " FROM jobs j JOIN sources s ON s.job_id = j.id "
)
HELD_UPLOAD = UPLOADS + "WHERE s.lease_owner = ? LIMIT 1"
UPLOAD_WAITS = (
    "WHERE j.uploads > 0 AND j.paused = 0 AND s.lease_owner IS NULL"
    " AND (s.job_id, s.n) NOT IN (SELECT value ->> 0, CAST(value ->> 1 AS INTEGER) FROM json_each(?))"
)
NEXT_UPLOAD = UPLOADS + UPLOAD_WAITS + " ORDER BY j.turn, j.rowid, s.n LIMIT 1"
OTHER_WAITS = "SELECT 1 FROM jobs j JOIN sources s ON s.job_id = j.id " + UPLOAD_WAITS + " AND j.id <> ? LIMIT 1"

# The turns of the jobs, for pictures and for uploads: fair queueing by start times. The job with the least `turn` is
# next. Work adds `step` to it for each picture: 1 for a job of high priority, 16 for one of low. A job that joins
# starts at the least turn of the others. So a small job waits for its share, not for the million pictures before it,
# and the million proceeds beside any number of small jobs. Triggers of the schema keep a row of `turns` for each job
# with new pictures ('' for those that came one by one).
CHARGE_IMAGES = "UPDATE turns SET turn = turn + ? * step WHERE job_id = ?"
CHARGE_UPLOADS = "UPDATE jobs SET turn = turn + ? * step WHERE id = ?"
JOIN_IMAGES = "UPDATE turns SET turn = coalesce((SELECT min(turn) FROM turns WHERE held = 0), turn) WHERE job_id = ?"
JOIN_UPLOADS = (
    "UPDATE jobs SET turn = coalesce((SELECT min(turn) FROM jobs WHERE uploads > 0 AND paused = 0), turn) WHERE id = ?"
)
SET_READY = (
    "UPDATE images SET status = 'ready', embedded_seq = column2, width = column3, height = column4, animated = column5,"
    " perceptual_hash = nullif(column6, ?), error_code = NULL, error_detail = NULL, lease_owner = NULL,"
    " lease_until = NULL FROM (VALUES "
)
NAME_JOB = "UPDATE jobs SET name = coalesce(name, ?) WHERE id = ?"


@dataclass(frozen=True, slots=True)
class Upload:
    """What a worker imports for a job: a received archive or folder, a list of URLs, or a source that a request named.

    `n` is its number in the job, `kind` is `archive`, `folder` or `named`, `source_kind` is the kind of source that
    brings the members (None when they are here). The first `imported` members and `position` bytes of its manifest are
    imported.
    """

    job_id: str
    n: int
    kind: str
    name: str
    collection: str
    imported: int
    attempts: int
    owner: str
    source_kind: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    position: int = 0

    @property
    def video(self) -> dict[str, Any] | None:
        """What is known of a video, which is imported as an archive of its frames: `sha256`, `bytes`, attributes."""
        return self.options.get("video") if self.kind == "archive" else None


@dataclass(frozen=True, slots=True)
class FinishedImage:
    """A leased picture with its vector (float32, little endian), and what its bytes say."""

    lease: Lease
    vector: bytes
    width: int
    height: int
    animated: bool
    perceptual_hash: bytes | None = None


# Of both kinds of work


def pause_job(c: Connection, job_id: str) -> None:
    """Give a job that has not ended no more turns; its leases go on."""
    c.execute("UPDATE jobs SET paused = 1 WHERE id = ? AND state IN ('queued', 'running')", (job_id,))
    if c.changes():
        c.execute("UPDATE turns SET held = 1 WHERE job_id = ?", (job_id,))


def resume_job(c: Connection, job_id: str) -> None:
    """Give a paused job turns again, from where the others are."""
    c.execute(JOIN_IMAGES, (job_id,))
    c.execute(JOIN_UPLOADS, (job_id,))
    c.execute("UPDATE jobs SET paused = 0 WHERE id = ?", (job_id,))
    c.execute("UPDATE turns SET held = 0 WHERE job_id = ?", (job_id,))


def hold_collection(c: Connection, label: str) -> None:
    """Give the jobs of a collection that is being deleted no more turns."""
    c.execute("UPDATE turns SET held = 1 WHERE job_id IN (SELECT id FROM jobs WHERE collection = ?)", (label,))


def has_work(c: Connection) -> bool:
    """Whether pictures or uploads wait that a worker may take, or are at work."""
    sql = "SELECT EXISTS (SELECT 1 FROM turns WHERE held = 0) OR EXISTS (SELECT 1 FROM images WHERE " + IMAGE_LEASED
    sql += ") OR EXISTS (SELECT 1 FROM jobs WHERE uploads > 0 AND paused = 0)"
    return fetch_number(c, sql) == 1


def list_owners(c: Connection) -> set[str]:
    """The owners of all leases."""
    sql = "SELECT lease_owner FROM images WHERE " + IMAGE_LEASED + " AND lease_owner IS NOT NULL"
    sql += " UNION SELECT lease_owner FROM sources WHERE " + UPLOAD_LEASED
    return {owner for (owner,) in fetch_all(c, sql)}


def has_expired(c: Connection) -> bool:
    """Whether a lease is past its deadline."""
    past = " AND lease_until < lease_clock()"
    sql = "SELECT EXISTS (SELECT 1 FROM images WHERE " + IMAGE_LEASED + past
    return fetch_number(c, sql + ") OR EXISTS (SELECT 1 FROM sources WHERE " + UPLOAD_LEASED + past + ")") == 1


def renew_leases(c: Connection, owner: str, seconds: float) -> None:
    """Move the deadline of all leases of the owner to `seconds` from now."""
    held = " SET lease_until = lease_clock() + ? WHERE "
    c.execute("UPDATE images" + held + IMAGE_LEASED + " AND lease_owner = ?", (seconds, owner))
    c.execute("UPDATE sources" + held + "lease_owner = ?", (seconds, owner))


def expire_leases(c: Connection, dead: Collection[str], max_attempts: int) -> tuple[int, int]:
    """End the leases of dead owners and those past their deadline.

    Returns how many pictures came back, and how many of these failed because no attempt is left. The attempt stays
    counted: a picture over which workers died `max_attempts` times has killed them, the last time held alone.
    """
    lost = (json.dumps(list(dead)),)
    rows = fetch_all(c, "SELECT key, attempts FROM images WHERE " + IMAGE_LEASED + " AND " + EXPIRED, lost)
    failed = 0
    for key, attempts in rows:
        if attempts >= max(max_attempts, FIRST_ALONE):
            failed += 1
            _fail(c, key, ItemError("image_corrupt", f"the worker died {attempts} times over this picture"))
        else:
            _queue(c, key)
    c.execute("UPDATE sources SET lease_owner = NULL WHERE " + UPLOAD_LEASED + " AND " + EXPIRED, lost)
    return len(rows), failed


def recover_leases(c: Connection, dead: Collection[str], max_attempts: int) -> None:
    """End, when a server starts, the leases of the `dead` workers of the server before it.

    A kill of the whole server is mostly no fault of a picture that was at work: it is tried again, by itself, with no
    attempt counted. But a picture that was alone at work each of `max_attempts` times that the server died has killed
    it. An upload that was being imported keeps its attempts, unless it was being expanded: a child process does that.
    """
    owners = json.dumps(list(dead))
    sql = "SELECT key, attempts >= ?, deaths FROM images WHERE " + IMAGE_LEASED + " AND " + OWNED_BY_ANY
    rows = fetch_all(c, sql, (FIRST_ALONE, owners))
    for key, alone, deaths in rows:
        if alone and deaths + 1 >= max_attempts:
            reason = f"the server died {deaths + 1} times while this picture alone was at work"
            _fail(c, key, ItemError("image_corrupt", reason))
        else:
            _queue(c, key)
            c.execute("UPDATE images SET attempts = 1, deaths = deaths + ? WHERE key = ?", (alone, key))
    c.execute(
        "UPDATE sources SET lease_owner = NULL, attempts = iif(imported + pending = 0, 0, attempts) WHERE "
        + OWNED_BY_ANY,
        (owners,),
    )


# Pictures


def claim_images(
    c: Connection, owner: str, seconds: float, limit: int, *, alone: bool = True, retries_first: bool = False
) -> list[Lease]:
    """Lease up to `limit` waiting pictures for `seconds`, counting an attempt for each: those of every job in fair
    turns.

    A picture that was tried before comes last (first, with `retries_first`) and by itself, and only where the owner is
    `alone` with it (holds nothing else): if the worker dies again, it is known which picture it was.
    """
    rows = _claim_retry(c, owner, seconds) if retries_first and alone else []
    rows = rows or _claim_new(c, owner, seconds, limit)
    if not rows and alone:
        rows = _claim_retry(c, owner, seconds)
    return [Lease(images.image_from_row(row), owner, attempts) for attempts, *row in rows]


def _claim_retry(c: Connection, owner: str, seconds: float) -> list[Row]:
    """Lease one picture that was tried before."""
    rows = fetch_all(c, CLAIM_RETRY, (owner, seconds))
    jobs.mark_running(c, filter(None, (images.image_from_row(row).job_id for _, *row in rows)))
    return rows


def _claim_new(c: Connection, owner: str, seconds: float, limit: int) -> list[Row]:
    """Lease pictures that were never tried: turn by turn, until there are `limit` or none is left."""
    rows: list[Row] = []
    empty: list[str] = []  # jobs all of whose waiting pictures belong to a collection that is being deleted
    while len(rows) < limit and (turns := fetch_all(c, NEXT_TURNS, (json.dumps(empty),))):
        job_id, turn, step, state = turns[0]
        share = UNLIMITED if len(turns) == 1 else max(MIN_SHARE, (turns[1][1] - turn) // step)
        wanted = min(share, limit - len(rows))
        claimed = sorted(fetch_all(c, CLAIM_NEW, (owner, seconds, job_id or None, wanted)), key=lambda row: int(row[1]))
        if not claimed:
            empty.append(job_id)
            continue
        c.execute(CHARGE_IMAGES, (len(claimed), job_id))
        if state == "queued":
            jobs.mark_running(c, [job_id])
        rows += claimed
    return rows


def has_retries(c: Connection) -> bool:
    """Whether a picture waits for another attempt."""
    return fetch_one(c, "SELECT 1 FROM images WHERE " + RETRY_WAITS + " LIMIT 1") is not None


def holds_image(c: Connection, lease: Lease) -> bool:
    """Whether the owner still has this lease, as `get_held_collections` says."""
    return bool(get_held_collections(c, [lease]))


def get_held_collections(c: Connection, leases: Iterable[Lease]) -> dict[tuple[int, int], tuple[str, str | None]]:
    """Which of these leases their owners still have on the picture, with the bytes of the claim, in a collection that
    stays: the label and the space of the collection by the key of the picture and the attempt.

    Bytes and attempt count: the same owner may have claimed a picture again after another request replaced it, or after
    the lease had expired.
    """
    claims = {(lease.image.key, lease.attempts, lease.owner, lease.image.sha256) for lease in leases}
    rows = fetch_all(c, HELD, (json.dumps([key for key, *_ in claims]),))
    return {
        (key, attempts): (label, space) for label, space, key, attempts, *of in rows if (key, attempts, *of) in claims
    }


def release_images(c: Connection, owner: str) -> None:
    """Give every picture of the owner back untouched; the attempts are not counted."""
    c.execute("UPDATE images" + RELEASED + " WHERE " + IMAGE_LEASED + " AND lease_owner = ?", (owner,))


def release_image(c: Connection, lease: Lease) -> None:
    """Give a picture back untouched; the attempt is not counted."""
    if holds_image(c, lease):
        c.execute("UPDATE images" + RELEASED + " WHERE key = ?", (lease.image.key,))


def requeue_image(c: Connection, lease: Lease) -> None:
    """Put a picture back after a failed attempt, which stays counted."""
    if holds_image(c, lease):
        _queue(c, lease.image.key)


def finish_image(c: Connection, lease: Lease, space: str, vector: bytes, *found: Any) -> int | None:
    """`finish_images` of one, with the other fields of `FinishedImage`; None when the owner has lost the lease."""
    return finish_images(c, space, [FinishedImage(lease, vector, *found)]).get(lease.image.key)


def finish_images(c: Connection, space: str, finished: Sequence[FinishedImage]) -> dict[int, int]:
    """Append the vectors to the log and mark the pictures `ready`; returns the numbers of the log entries by key.

    Leaves out pictures whose owner no longer has the lease: those that were deleted or replaced, whose collection was
    deleted, or whose lease has expired. Raises ModelUnavailable when a collection belongs to another space.
    """
    within = get_held_collections(c, (one.lease for one in finished))
    held = {one.lease.image.key: one for one in finished if (one.lease.image.key, one.lease.attempts) in within}
    if not held:
        return {}
    for label in sorted({label for label, its in within.values() if its != space}):
        collections.assign_space(c, label, space)
    vectors = {key: (within[key, one.lease.attempts][0], one.vector) for key, one in held.items()}
    numbers = embeddings.add_all(c, space, "images", vectors)
    rows = [
        (key, numbers[key], one.width, one.height, int(one.animated), one.perceptual_hash or b"")
        for key, one in held.items()
    ]
    sql = SET_READY + write_places(len(rows), 6) + ") AS finished WHERE key = column1"
    c.execute(sql, [b"", *(value for row in rows for value in row)])
    precomputed_vectors.delete(c, held)
    jobs.complete_items(c, numbers)
    enrichments.add(c, held)
    return numbers


def fail_image(c: Connection, lease: Lease, error: ItemError) -> None:
    """Mark a picture `failed` for good, with its reason."""
    if holds_image(c, lease):
        _fail(c, lease.image.key, error)


def _queue(c: Connection, key: int) -> None:
    c.execute("UPDATE images SET status = 'queued', lease_owner = NULL, lease_until = NULL WHERE key = ?", (key,))


def _fail(c: Connection, key: int, error: ItemError) -> None:
    images.fail(c, key, error)
    jobs.fail_items(c, key, error)


# Uploads


def add_upload(
    c: Connection,
    job_id: str,
    n: int,
    kind: str,
    name: str,
    pending: int,
    source_kind: str | None = None,
    options: Mapping[str, Any] | None = None,
    size: int = 0,
) -> None:
    """Queue an upload of `pending` members (0 if unknown) and `size` bytes; the job does not end before it is imported.

    `kind` and `source_kind` as in `Upload`. The job takes the last part of the first upload's name.
    """
    c.execute(JOIN_UPLOADS, (job_id,))
    c.execute(NAME_JOB, (name.rstrip("/").rpartition("/")[2] or None, job_id))
    c.execute(
        "INSERT INTO sources (job_id, n, kind, name, pending, origin, options, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (job_id, n, kind, name, pending, source_kind, json.dumps(dict(options or {})), size),
    )


def list_uploads(c: Connection) -> set[tuple[str, int]]:
    """Every upload that is still to be imported, as (job, number)."""
    return {(job_id, n) for job_id, n in fetch_all(c, "SELECT job_id, n FROM sources")}


def claim_upload(c: Connection, owner: str, seconds: float, avoided: Collection[tuple[str, int]] = ()) -> Upload | None:
    """Lease the oldest upload of the job whose turn it is for `seconds`, counting an attempt; none of those to be
    `avoided`.

    An owner imports one at a time: if it holds one already, it could not give that back, and gets it again.
    """
    row = fetch_one(c, HELD_UPLOAD, (owner,)) or fetch_one(c, NEXT_UPLOAD, (json.dumps(list(avoided)),))
    if row is None:
        return None
    (job_id, n, kind, name, label, imported, attempts, source_kind, options, position) = row
    c.execute(
        "UPDATE sources SET lease_owner = ?, lease_until = lease_clock() + ?, attempts = attempts + 1"
        " WHERE job_id = ? AND n = ?",
        (owner, seconds, job_id, n),
    )
    jobs.mark_running(c, [job_id])
    collection = name_from_label(label)
    said = json.loads(options)
    return Upload(job_id, n, kind, name, collection, imported, attempts + 1, owner, source_kind, said, position)


def holds_upload(c: Connection, upload: Upload) -> bool:
    """Whether the owner still has the lease."""
    sql = "SELECT 1 FROM sources WHERE job_id = ? AND n = ? AND lease_owner = ?"
    return fetch_one(c, sql, (upload.job_id, upload.n, upload.owner)) is not None


def upload_exists(c: Connection, upload: Upload) -> bool:
    """Whether the upload is still to be imported, by any owner. It is not once its job was cancelled."""
    return fetch_one(c, "SELECT 1 FROM sources WHERE job_id = ? AND n = ?", (upload.job_id, upload.n)) is not None


def record_progress(
    c: Connection, upload: Upload, imported: int, pending: int, position: int, *, careful: bool = False
) -> None:
    """Remember how far the manifest is imported, so that a restart goes on from there; the attempt succeeded.

    `careful`: the upload goes on as if one attempt had failed. If the next one fails, its first member is at fault.
    """
    job_id, n = upload.job_id, upload.n
    row = fetch_one(c, "SELECT imported FROM sources WHERE job_id = ? AND n = ?", (job_id, n))
    c.execute(CHARGE_UPLOADS, (imported - row[0] if row else 0, job_id))
    c.execute(
        "UPDATE sources SET imported = ?1, bytes = bytes * ?2 / max(?2 + ?1 - imported, 1), pending = ?2,"
        " position = ?3, attempts = ?4 WHERE job_id = ?5 AND n = ?6",
        (imported, pending, position, 2 if careful else 1, job_id, n),
    )


def charge_reading(c: Connection, upload: Upload, seconds: int) -> None:
    """Count the time for which an upload was read as members, so that a job of slow archives waits for its turns."""
    c.execute(CHARGE_UPLOADS, (seconds * MEMBERS_PER_SECOND, upload.job_id))


def has_waiting_upload(c: Connection, job_id: str, avoided: Collection[tuple[str, int]]) -> bool:
    """Whether an upload of another job waits for a worker, beside those to be `avoided`."""
    return fetch_one(c, OTHER_WAITS, (json.dumps(list(avoided)), job_id)) is not None


def must_yield(c: Connection, upload: Upload) -> bool:
    """Whether the worker must give the upload back to import another job's first: one that has not begun, or has
    MAX_LEAD fewer members imported. Also when this job is paused."""
    row = fetch_one(c, "SELECT paused, turn, step FROM jobs WHERE id = ?", (upload.job_id,))
    if row is None:
        return False
    paused, turn, step = row
    behind = (
        "SELECT 1 FROM jobs j WHERE uploads > 0 AND paused = 0 AND turn < ?1 AND id <> ?2"
        " AND (state = 'queued' OR turn < ?1 - ?3)"
        " AND EXISTS (SELECT 1 FROM sources WHERE job_id = j.id AND lease_owner IS NULL) LIMIT 1"
    )
    return bool(paused) or fetch_one(c, behind, (turn, upload.job_id, step * MAX_LEAD)) is not None


def release_upload(c: Connection, upload: Upload, *, count_attempt: bool = False) -> None:
    """Give the upload back untouched; without `count_attempt` the attempt is not counted."""
    c.execute(
        "UPDATE sources SET lease_owner = NULL, attempts = attempts - ? WHERE job_id = ? AND n = ? AND lease_owner = ?",
        (not count_attempt, upload.job_id, upload.n, upload.owner),
    )


def finish_upload(c: Connection, upload: Upload) -> None:
    """The upload is imported, or never will be: forget it; the job may end."""
    c.execute("DELETE FROM sources WHERE job_id = ? AND n = ?", (upload.job_id, upload.n))
    jobs.finish_if_complete(c, upload.job_id)


def drop_uploads(c: Connection, job_id: str) -> list[int]:
    """Forget the uploads of a job that are not imported; returns their numbers."""
    numbers = [n for (n,) in fetch_all(c, "SELECT n FROM sources WHERE job_id = ? ORDER BY n", (job_id,))]
    c.execute("DELETE FROM sources WHERE job_id = ?", (job_id,))
    return numbers


def drop_video(c: Connection, collection: str, sha256: str) -> list[tuple[str, int]]:
    """Forget the uploads of a video in a collection, so that no frame of it comes any more; returns (job, number)."""
    rows = fetch_all(
        c,
        "DELETE FROM sources WHERE options ->> '$.video.sha256' = ?"
        " AND job_id IN (SELECT id FROM jobs WHERE " + IN_COLLECTION + ") RETURNING job_id, n",
        (sha256, collection),
    )
    for job_id, _ in rows:
        jobs.finish_if_complete(c, job_id)
    return [(job_id, n) for job_id, n in rows]
