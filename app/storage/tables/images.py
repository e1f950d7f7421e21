"""The rows of pictures. Every function runs inside a transaction that the caller holds."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.core.clock import now_rfc3339
from app.core.errors import IdConflict
from app.core.types import AnswerWarning, CameraData, Description, Image, ItemError, NewImage, Status
from app.decode.camera_data import camera_data_of, merge_camera_data, time_of, with_time
from app.decode.taken_time import TakenTime, join_taken_times
from app.storage.sql import Connection, Row, fetch_all, fetch_number, fetch_one
from app.storage.tables.collections import IN_COLLECTION, LABEL_OF_NAME, PAGE, name_from_label

OF_IMAGE = (
    "key, collection, id, sha256, status, error_code, error_detail, width, height, format, bytes,"
    " animated, caption, tags, metadata, source, created_at, job_id, embedded_seq, taken_at, taken_offset,"
    " camera, lens, latitude, longitude, ocr_text, generated_caption, video_id, t_ms,"
    " auto_tags, auto_probabilities, rejected_tags"
)
"""What `image_from_row` takes."""
COLUMNS = "SELECT " + OF_IMAGE + " FROM images "

ANEW = (
    "status = 'queued', error_code = NULL, error_detail = NULL, attempts = 0, deaths = 0, lease_owner = NULL,"
    " lease_until = NULL, embedded_seq = NULL, auto_tags = '[]', auto_probabilities = '[]'"
)
"""SQL that queues a picture as if it had just come."""
CARRIED = ("taken_at", "taken_offset", "camera", "lens", "latitude", "longitude", "ocr_text", "generated_caption")
CARRY_NOTHING = ", ".join(column + " = NULL" for column in (*CARRIED, "video_id", "t_ms")) + ", camera_read = 0"
"""SQL for other bytes, which carry other things."""
CAMERA_COLUMNS = ("taken_at", "taken_offset", "camera", "lens", "latitude", "longitude")
UNDESCRIBED = "collection = ? AND status = 'ready' AND (camera_read = 0 OR ? = 1)"
SET_CARRIED = {column: "UPDATE images SET " + column + " = ? WHERE key = ?" for column in CARRIED}
COUNT_BY_STATUS = "SELECT status, count(*) FROM images WHERE " + IN_COLLECTION + " GROUP BY status"
COUNT_ALL = "SELECT collection, status, count(*) FROM images GROUP BY collection, status"
RECEIVED = "sha256, width, height, format, bytes, caption, tags, metadata, source, job_id"


@dataclass(frozen=True, slots=True)
class AddResult:
    """The row that `add` made or found, whether it was there before, and the digest of the bytes that it replaced.

    Of a row that was there, `filled` names the attributes that it lacked and has now, `kept` those that it had and
    that `add` was given with another value.
    """

    image: Image
    duplicate: bool = False
    replaced_sha256: str | None = None
    filled: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    warnings: tuple[AnswerWarning, ...] = ()


def image_from_row(row: Sequence[Any]) -> Image:
    (key, label, id, sha256, status, code, detail, width, height, format, bytes, animated) = row[:12]
    (caption, tags, metadata, source, created_at, job_id, embedded_seq) = row[12:19]
    named = (key, name_from_label(label), id, sha256, Status(status))
    error = ItemError(code, detail or "") if code else None
    header = (width, height, format, bytes, bool(animated))
    attributes = (caption, parse_tags(tags), {} if metadata == "{}" else json.loads(metadata), source)
    carried = (*row[19:29], *read_auto_tags(*row[29:32]))
    return Image(*named, error, *header, *attributes, created_at, job_id, embedded_seq, *carried)


def get(c: Connection, collection: str, id: str) -> Image | None:
    row = fetch_one(c, COLUMNS + "WHERE " + IN_COLLECTION + " AND id = ?", (collection, id))
    return image_from_row(row) if row else None


def get_by_sha256(c: Connection, collection: str, sha256: str) -> Image | None:
    row = fetch_one(c, COLUMNS + "WHERE " + IN_COLLECTION + " AND sha256 = ?", (collection, sha256))
    return image_from_row(row) if row else None


def filter_stored(c: Connection, collection: str, digests: Iterable[str]) -> dict[str, list[str]]:
    """Those of the digests that belong to a picture that has not failed: adding their bytes again changes nothing.

    The value is what of `caption`, `tags` and `metadata` the picture lacks.
    """
    sql = (
        "SELECT sha256, caption IS NULL, tags = '[]', metadata = '{}' FROM images WHERE status <> 'failed'"
        " AND sha256 IN (SELECT value FROM json_each(?)) AND "
    )
    rows = fetch_all(c, sql + IN_COLLECTION, (json.dumps(list(digests)), collection))
    names = ("caption", "tags", "metadata")
    return {sha256: [name for name, lacks in zip(names, empty, strict=True) if lacks] for sha256, *empty in rows}


def get_label(c: Connection, key: int) -> str:
    """The label of its collection, whose name may belong to another collection now."""
    ((label,),) = fetch_all(c, "SELECT collection FROM images WHERE key = ?", (key,))
    return str(label)


def get_by_keys(c: Connection, keys: Iterable[int]) -> dict[int, Image]:
    """The pictures of these keys, without deleted ones."""
    return {key: image_from_row(row) for key, row in get_rows(c, keys).items()}


def get_rows(c: Connection, keys: Iterable[int]) -> dict[int, Row]:
    """The rows of the pictures of these keys, for `image_from_row`."""
    wanted = json.dumps([int(key) for key in keys])
    rows = fetch_all(c, COLUMNS + "WHERE key IN (SELECT value FROM json_each(?))", (wanted,))
    return {row[0]: row for row in rows}


def get_digests(c: Connection, keys: Iterable[int]) -> dict[int, str]:
    """The SHA-256 of the pictures of these keys."""
    sql = "SELECT key, sha256 FROM images WHERE key IN (SELECT value FROM json_each(?))"
    return dict(fetch_all(c, sql, (json.dumps(list(keys)),)))


def get_descriptions(c: Connection, keys: Iterable[int]) -> dict[int, Description]:
    """The texts of the pictures of these keys."""
    sql = "SELECT key, caption, tags, source, ocr_text, generated_caption FROM images"
    rows = fetch_all(c, sql + " WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(list(keys)),))
    return {key: Description(caption, parse_tags(tags), *others) for key, caption, tags, *others in rows}


@lru_cache(maxsize=8_192)
def parse_tags(tags: str) -> tuple[str, ...]:
    return tuple(json.loads(tags))


def read_auto_tags(tags: str, probabilities: str, rejected: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """The auto-tags with their probabilities, and the tags that were rejected."""
    found = {} if tags == "[]" else dict(zip(parse_tags(tags), json.loads(probabilities), strict=True))
    return found, parse_tags(rejected)


def list_ready_keys(c: Connection, collection: str) -> list[int]:
    """The keys of all ready pictures, in their order."""
    sql = "SELECT key FROM images WHERE status = 'ready' AND " + IN_COLLECTION + " ORDER BY key"
    return [key for (key,) in fetch_all(c, sql, (collection,))]


def list_unready_keys(c: Connection, label: str) -> list[int]:
    """The keys of all pictures that no search finds (yet)."""
    sql = "SELECT key FROM images WHERE status IN ('queued', 'processing', 'failed') AND collection = ?"
    return [key for (key,) in fetch_all(c, sql, (label,))]


def list_captioned_keys(c: Connection, collection: str) -> list[int]:
    """The keys of the ready pictures that have a caption, in their order."""
    sql = "SELECT key FROM images WHERE status = 'ready' AND caption > '' AND " + IN_COLLECTION + " ORDER BY key"
    return [key for (key,) in fetch_all(c, sql, (collection,))]


def find_by_names(c: Connection, collection: str, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """The key and id of the ready pictures that have one of these as id or SHA-256, by that name."""
    found: dict[str, tuple[int, str]] = {}
    for column in ("sha256", "id"):  # an id is what a caller chose
        sql = f"SELECT {column}, key, id FROM images WHERE status = 'ready' AND " + IN_COLLECTION
        sql += f" AND {column} IN (SELECT value FROM json_each(?))"
        found |= {name: (key, id) for name, key, id in fetch_all(c, sql, (collection, json.dumps(list(names))))}
    return found


def list_sources(c: Connection, collection: str, after: int, limit: int) -> list[tuple[int, str, str]]:
    """Key, id and source of up to `limit` ready pictures with keys past `after`, in order of the keys."""
    sql = "SELECT key, id, source FROM images WHERE status = 'ready' AND source IS NOT NULL AND " + IN_COLLECTION
    rows = fetch_all(c, sql + " AND key > ? ORDER BY key LIMIT ?", (collection, after, limit))
    return [(key, id, source) for key, id, source in rows]


def count_photographs(c: Connection, newest: int) -> tuple[int, int]:
    """How many of the newest pictures of all collections are ready, and how many of those are JPEGs of half a megapixel
    or more."""
    sql = (
        "SELECT count(*), sum(iif(format = 'jpeg' AND width * height >= 500000, 1, 0)) FROM"
        " (SELECT format, width, height, status FROM images ORDER BY key DESC LIMIT ?) AS newest WHERE status = 'ready'"
    )
    ((count, photographs),) = fetch_all(c, sql, (newest,))
    return int(count), int(photographs or 0)


def list_page(c: Connection, collection: str, limit: int, before: int | None) -> list[Image]:
    """Up to `limit` pictures, newest first, with keys below `before`."""
    highest = before if before is not None else 1 << 62
    rows = fetch_all(c, COLUMNS + PAGE, (collection, highest, limit))
    return [image_from_row(row) for row in rows]


def add(c: Connection, collection: str, new: NewImage, job_id: str | None, replace: bool) -> AddResult:
    """Insert a row as `queued`, or find the one that has these bytes already and give it the attributes that it lacks.

    Queues a failed picture again when its bytes come again. Raises IdConflict when the id belongs to other bytes,
    unless `replace`.
    """
    same = get_by_sha256(c, collection, new.sha256)
    if same is not None:
        has_failed = same.status is Status.FAILED
        if has_failed:
            requeue(c, same.key, job_id)
        filled, kept = fill_empty(c, same, new)
        image = _require(get(c, collection, same.id)) if has_failed or filled else same
        return AddResult(image, duplicate=not has_failed, filled=filled, kept=kept)
    taken = get(c, collection, new.id) if new.id else None
    if taken is not None and not replace:
        raise IdConflict(f"id {taken.id} belongs to other bytes; send replace=true to replace them")
    received = (new.sha256, new.width, new.height, new.format, new.bytes)
    attributes = (new.caption, _json(list(new.tags)), _json(new.metadata), new.source)
    values = (*received, *attributes, job_id)
    if taken is not None:
        replaced = (
            CARRY_NOTHING + ", animated = 0, rejected_tags = '[]', (" + RECEIVED + ") = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        c.execute("UPDATE images SET " + ANEW + ", " + replaced + " WHERE key = ?", (*values, taken.key))
        fill_camera_data(c, taken.key, CameraData(), new.camera_data)
        return AddResult(_require(get(c, collection, taken.id)), replaced_sha256=taken.sha256)
    id = new.id or uuid.uuid4().hex
    (row,) = fetch_all(
        c,
        "INSERT INTO images (status, collection, id, created_at, " + RECEIVED + ") VALUES"
        " ('queued', " + LABEL_OF_NAME + ", ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING " + OF_IMAGE,
        (collection, id, now_rfc3339(), *values),
    )
    image = image_from_row(row)
    if new.camera_data is not None:
        fill_camera_data(c, image.key, CameraData(), new.camera_data)
        image = _require(get(c, collection, id))
    return AddResult(image)


def requeue(c: Connection, key: int, job_id: str | None) -> None:
    """Queue a picture again, with no attempt counted."""
    c.execute("UPDATE images SET " + ANEW + ", job_id = ? WHERE key = ?", (job_id, key))


def fail(c: Connection, key: int, error: ItemError) -> None:
    """Mark a queued or processing picture `failed`, with its reason, and end its lease."""
    c.execute(
        "UPDATE images SET status = 'failed', error_code = ?, error_detail = ?, lease_owner = NULL,"
        " lease_until = NULL WHERE key = ? AND status IN ('queued', 'processing')",
        (error.code, error.detail, key),
    )


def requeue_all(c: Connection) -> int:
    """Queue every picture again, whatever its status; returns how many there are."""
    c.execute("UPDATE images SET " + ANEW)
    return c.changes()


def update(c: Connection, key: int, caption: str | None, tags: Sequence[str], metadata: Any) -> None:
    """Set the attributes that a person may change."""
    c.execute(
        "UPDATE images SET caption = ?, tags = ?, metadata = ? WHERE key = ?",
        (caption, _json(list(tags)), _json(metadata), key),
    )


def rename(c: Connection, key: int, before: str, after: str) -> None:
    """Change the source of a picture, if it is `before`."""
    c.execute("UPDATE images SET source = ? WHERE key = ? AND source = ?", (after, key, before))


def set_carried(c: Connection, key: int, values: Mapping[str, str | int | float | None]) -> None:
    """Set some of the columns CARRIED of a picture; the others stay."""
    for column, value in values.items():
        statement = SET_CARRIED[column]
        c.execute(statement, (value, key))


def is_camera_read(c: Connection, key: int) -> bool:
    """Whether the camera data of its bytes are in the row."""
    return bool(fetch_number(c, "SELECT camera_read FROM images WHERE key = ?", (key,)))


def count_undescribed(c: Connection, label: str, *, again: bool) -> int:
    """How many pictures `list_undescribed` lists in all."""
    return fetch_number(c, "SELECT count(*) FROM images WHERE " + UNDESCRIBED, (label, again))


def list_undescribed(c: Connection, label: str, after: int, limit: int, *, again: bool) -> list[Image]:
    """Up to `limit` ready pictures with keys past `after` whose camera data nobody has read; `again`: all."""
    rows = fetch_all(
        c, COLUMNS + "WHERE " + UNDESCRIBED + " AND key > ? ORDER BY key LIMIT ?", (label, again, after, limit)
    )
    return [image_from_row(row) for row in rows]


def set_camera_data(c: Connection, key: int, values: Mapping[str, Any]) -> None:
    """Set the CAMERA_COLUMNS, and caption, tags and metadata where they are given: the data of its bytes are read."""
    given = [values.get(column) for column in CAMERA_COLUMNS]
    words = [values.get("caption")]
    words += [_json(value) if (value := values.get(name)) is not None else None for name in ("tags", "metadata")]
    c.execute(
        "UPDATE images SET camera_read = 1, taken_at = ?, taken_offset = ?, camera = ?, lens = ?, latitude = ?,"
        " longitude = ?, caption = coalesce(?, caption), tags = coalesce(?, tags), metadata = coalesce(?, metadata)"
        " WHERE key = ?",
        (*given, *words, key),
    )


def fill_empty(c: Connection, image: Image, new: NewImage) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give a picture the caption, tags and metadata that it lacks; returns the names of what was filled and kept."""
    had = {"caption": image.caption, "tags": image.tags, "metadata": image.metadata}
    said = {"caption": new.caption, "tags": tuple(new.tags), "metadata": new.metadata}
    filled = tuple(name for name, value in said.items() if value and not had[name])
    kept = tuple(name for name, value in said.items() if value and had[name] and value != had[name])
    taken = fill_camera_data(c, image.key, camera_data_of(image), new.camera_data)
    if filled:
        update(c, image.key, **{name: said[name] if name in filled else had[name] for name in had})  # type: ignore[arg-type]
    return (*filled, *taken), (*kept, "id") if new.id and new.id != image.id else kept


def fill_camera_data(c: Connection, key: int, had: CameraData, said: CameraData | None) -> tuple[str, ...]:
    """Give a picture the time and place that it lacks; returns the names of what was filled."""
    if said is None:
        return ()
    time, place = join_taken_times(time_of(said), time_of(had)), said if had.latitude is None else had
    if time is not None and had.taken_at is not None:
        time = TakenTime(had.taken_at, time.offset if time.wall == had.taken_at else had.taken_offset)
    filled = merge_camera_data((CameraData(latitude=place.latitude, longitude=place.longitude), had, said))
    filled = with_time(filled, time)
    set_carried(c, key, {column: getattr(filled, column) for column in CAMERA_COLUMNS})
    changed = {"taken_at": filled.taken_at != had.taken_at, "location": filled.latitude != had.latitude}
    return tuple(name for name, is_changed in changed.items() if is_changed)


def delete(c: Connection, key: int) -> None:
    c.execute("DELETE FROM images WHERE key = ?", (key,))


def count_uses(c: Connection, sha256: str) -> int:
    """How many rows, in all collections, have these bytes; those of videos whose file is kept count as well."""
    sql = "SELECT count(*) + (SELECT count(*) FROM videos WHERE kept = 1 AND sha256 = ?1) FROM images WHERE sha256 = ?1"
    return fetch_number(c, sql, (sha256,))


def count_by_format(c: Connection) -> dict[str, int]:
    """How many ready pictures of all collections have each format."""
    sql = "SELECT format, count(*) FROM images WHERE status = 'ready' GROUP BY format"
    return {format: int(count) for format, count in fetch_all(c, sql)}


def count_by_status(c: Connection, collection: str) -> dict[str, int]:
    """How many pictures have each status."""
    found = {row[0]: int(row[1]) for row in fetch_all(c, COUNT_BY_STATUS, (collection,))}
    return {status.value: found.get(status.value, 0) for status in Status}


def _require(image: Image | None) -> Image:
    assert image is not None
    return image


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=dict)
