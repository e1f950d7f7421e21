"""Watched folders, and what each file in them was when it was applied. Every function runs in the caller's
transaction."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.core.clock import now_rfc3339
from app.core.types import ItemError
from app.storage.sql import Connection, Row, fetch_all, fetch_one
from app.storage.tables import collections
from app.storage.tables.collections import name_from_label

DISPLACED = "//"  # the folder of files whose path another file has taken; no folder has this name
MAX_WATCHES = 100  # of one collection
COLUMNS = (
    "SELECT n, id, collection, kind, place, title, options, created_at, paused, state, fault, held, confirmed,"
    " identity, scanned_at, changed_at, seen_at, job_id, files, failed FROM watches "
)
FILE_COLUMNS = (
    "SELECT folder, name, size, mtime_ns, inode, sha256, beside, is_mounted, said, image_key, is_ours,"
    " error_code, error_detail FROM watched_files "
)
FILE_PAGE = FILE_COLUMNS + "WHERE watch = ? AND (folder, name) > (?, ?) ORDER BY folder, name LIMIT ?"
FAILED_PAGE = (
    FILE_COLUMNS + "INDEXED BY watched_files_failed WHERE watch = ? AND (folder, name) > (?, ?)"
    " AND error_code IS NOT NULL ORDER BY folder, name LIMIT ?"
)

# A watch that is gone and has files left; each watch with files costs one step in the index.
UNUSED_WATCH = (
    "WITH RECURSIVE w(n) AS (SELECT min(watch) FROM watched_files UNION ALL"
    " SELECT (SELECT min(watch) FROM watched_files WHERE watch > w.n) FROM w WHERE w.n IS NOT NULL)"
    " SELECT n FROM w WHERE n IS NOT NULL AND n NOT IN (SELECT n FROM watches) LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Watch:
    """A watched folder. `collection` is a name; `files` were applied, `failed` of them are no pictures.

    `held` deletions wait until somebody confirms them.
    """

    n: int
    id: str
    collection: str
    kind: str
    place: str
    title: str
    options: Mapping[str, Any]
    created_at: str
    paused: bool
    state: str
    fault: str | None
    held: int
    confirmed: bool
    identity: str | None
    scanned_at: str | None
    changed_at: str | None
    seen_at: str | None
    job_id: str | None
    files: int
    failed: int

    @property
    def mirrors_deletions(self) -> bool:
        return bool(self.options.get("deletes", "mirror") == "mirror")


@dataclass(frozen=True, slots=True)
class WatchedFile:
    """A file as it was when it was applied. `beside` changes with the files beside it."""

    folder: str
    name: str
    size: int
    mtime_ns: int
    inode: int
    sha256: str
    beside: str = ""
    is_mounted: bool = False
    said: Mapping[str, Any] = field(default_factory=dict)
    image_key: int | None = None
    is_ours: bool = False
    error: ItemError | None = None

    @property
    def path(self) -> str:
        """Relative to the watched folder."""
        return join_path(self.folder, self.name)


@dataclass(frozen=True, slots=True)
class WatchReport:
    """What the one that reads a watched folder says of it; `scanned`: it has looked at every file just now.

    `took_confirmation`: the deletions that somebody confirmed are about to be done, and no others.
    """

    state: str
    fault: str | None = None
    held: int = 0
    scanned: bool = False
    identity: str | None = None
    took_confirmation: bool = False


def join_path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def split_path(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _watch_from_row(row: Row) -> Watch:
    n, id, label, kind, place, title, options, created, paused, state, fault, held, confirmed, *rest = row
    named = (n, id, name_from_label(label), kind, place, title, json.loads(options), created)
    return Watch(*named, bool(paused), state, fault, held, bool(confirmed), *rest)


def _file_from_row(row: Row) -> WatchedFile:
    folder, name, size, mtime_ns, inode, sha256, beside, is_mounted, said, key, is_ours, code, detail = row
    error = ItemError(code, detail or "") if code else None
    stat = (folder, name, size, mtime_ns, inode, sha256, beside)
    return WatchedFile(*stat, bool(is_mounted), json.loads(said) if said else {}, key, bool(is_ours), error)


def create(c: Connection, collection: str, kind: str, place: str, title: str, options: Mapping[str, Any]) -> Watch:
    """A new watch, or the one that there is, with these options. Raises CollectionMissing."""
    label = collections.require(c, collection).label
    c.execute(
        "INSERT INTO watches (id, collection, kind, place, title, options, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (collection, kind, place) DO UPDATE SET options = excluded.options",
        (uuid.uuid4().hex, label, kind, place, title, json.dumps(options), now_rfc3339()),
    )
    row = fetch_one(c, COLUMNS + "WHERE collection = ? AND kind = ? AND place = ?", (label, kind, place))
    assert row is not None
    return _watch_from_row(row)


def get(c: Connection, id: str) -> Watch | None:
    row = fetch_one(c, COLUMNS + "WHERE id = ?", (id,))
    return _watch_from_row(row) if row else None


def list_all(c: Connection) -> list[Watch]:
    """All watches, in the order in which they were made."""
    return [_watch_from_row(row) for row in fetch_all(c, COLUMNS + "ORDER BY n")]


def set_paused(c: Connection, n: int, *, paused: bool) -> None:
    c.execute("UPDATE watches SET paused = ? WHERE n = ?", (paused, n))


def ask_for_scan(c: Connection, n: int) -> None:
    """Let the server that reads the folder look at every file of it soon."""
    c.execute("UPDATE watches SET scan_asked = 1 WHERE n = ?", (n,))


def list_asked_scans(c: Connection) -> list[str]:
    """The ids of the watched folders for which `ask_for_scan` was called."""
    return [id for (id,) in fetch_all(c, "SELECT id FROM watches WHERE scan_asked = 1")]


def forget_asked_scans(c: Connection, ids: Sequence[str]) -> None:
    c.execute("UPDATE watches SET scan_asked = 0 WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),))


def set_confirmed(c: Connection, n: int, *, confirmed: bool) -> None:
    c.execute("UPDATE watches SET confirmed = ? WHERE n = ?", (confirmed, n))


def set_job(c: Connection, n: int, job_id: str) -> None:
    c.execute("UPDATE watches SET job_id = ? WHERE n = ?", (job_id, n))


def mark_changed(c: Connection, n: int) -> None:
    c.execute("UPDATE watches SET changed_at = ? WHERE n = ?", (now_rfc3339(), n))


def report(c: Connection, n: int, said: WatchReport) -> None:
    """Keep the state of a watch, and the moment."""
    c.execute(
        "UPDATE watches SET state = ?1, fault = ?2, held = ?3, seen_at = ?4, scanned_at = iif(?5 = 1, ?4, scanned_at),"
        " identity = coalesce(?6, identity), confirmed = iif(?7 = 1, 0, confirmed) WHERE n = ?8",
        (said.state, said.fault, said.held, now_rfc3339(), said.scanned, said.identity, said.took_confirmation, n),
    )


def delete(c: Connection, n: int) -> None:
    """Forget a watch; `delete_unused_files` forgets its files."""
    c.execute("DELETE FROM watches WHERE n = ?", (n,))


def delete_of_collection(c: Connection, label: str) -> None:
    c.execute("DELETE FROM watches WHERE collection = ?", (label,))


def delete_unused_files(c: Connection, limit: int) -> int:
    """Forget up to `limit` files of watches that are gone; returns how many there were."""
    c.execute(
        "DELETE FROM watched_files WHERE (watch, folder, name) IN (SELECT watch, folder, name FROM watched_files"
        " WHERE watch = (" + UNUSED_WATCH + ") LIMIT ?)",
        (limit,),
    )
    return c.changes()


def list_files(c: Connection, n: int, folder: str) -> list[WatchedFile]:
    """The files directly in a folder."""
    return [_file_from_row(row) for row in fetch_all(c, FILE_COLUMNS + "WHERE watch = ? AND folder = ?", (n, folder))]


def list_folders(c: Connection, n: int) -> list[str]:
    """The folders that hold files, in order; each costs one step in the index."""
    rows = fetch_all(
        c,
        "WITH RECURSIVE f(folder) AS (SELECT min(folder) FROM watched_files WHERE watch = ?1 UNION ALL"
        " SELECT (SELECT min(folder) FROM watched_files WHERE watch = ?1 AND folder > f.folder) FROM f"
        " WHERE f.folder IS NOT NULL) SELECT folder FROM f WHERE folder IS NOT NULL",
        (n,),
    )
    return [folder for (folder,) in rows]


def list_page(c: Connection, n: int, after: tuple[str, str], limit: int, *, failed: bool = False) -> list[WatchedFile]:
    """Up to `limit` files behind a folder and a name, in order; `failed`: only those that are no picture."""
    page = FAILED_PAGE if failed else FILE_PAGE
    rows = fetch_all(c, page, (n, *after, limit))
    return [_file_from_row(row) for row in rows]


def get_file(c: Connection, n: int, path: str) -> WatchedFile | None:
    row = fetch_one(c, FILE_COLUMNS + "WHERE watch = ? AND folder = ? AND name = ?", (n, *split_path(path)))
    return _file_from_row(row) if row else None


def find_by_inode(c: Connection, n: int, inode: int) -> list[WatchedFile]:
    return [_file_from_row(row) for row in fetch_all(c, FILE_COLUMNS + "WHERE watch = ? AND inode = ?", (n, inode))]


def find_by_sha256(c: Connection, n: int, sha256: str) -> list[WatchedFile]:
    return [_file_from_row(row) for row in fetch_all(c, FILE_COLUMNS + "WHERE watch = ? AND sha256 = ?", (n, sha256))]


def find_by_picture(c: Connection, key: int) -> list[tuple[int, bool]]:
    """The watch, and `is_ours`, of every file that is this picture, in all watches."""
    rows = fetch_all(c, "SELECT watch, is_ours FROM watched_files WHERE image_key = ?", (key,))
    return [(watch, bool(is_ours)) for watch, is_ours in rows]


def find_name_of_picture(c: Connection, key: int) -> tuple[str, str] | None:
    """The title of a watch and the path of a file in it that is this picture; None if there is none."""
    row = fetch_one(
        c,
        "SELECT w.title, f.folder, f.name FROM watched_files f JOIN watches w ON w.n = f.watch"
        " WHERE f.image_key = ? AND f.folder <> ? ORDER BY w.n, f.folder, f.name LIMIT 1",
        (key, DISPLACED),
    )
    return (row[0], join_path(row[1], row[2])) if row else None


def put_file(c: Connection, n: int, file: WatchedFile) -> None:
    """Store a file in place of what its path had."""
    code, detail = (file.error.code, file.error.detail) if file.error else (None, None)
    values: Sequence[Any] = (file.size, file.mtime_ns, file.inode, file.sha256, file.beside, file.is_mounted)
    said = json.dumps(file.said) if file.said else None
    delete_file(c, n, file.folder, file.name)
    c.execute(
        "INSERT INTO watched_files (watch, folder, name, size, mtime_ns, inode, sha256, beside, is_mounted, said,"
        " image_key, is_ours, error_code, error_detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (n, file.folder, file.name, *values, said, file.image_key, file.is_ours, code, detail),
    )


def delete_file(c: Connection, n: int, folder: str, name: str) -> None:
    c.execute("DELETE FROM watched_files WHERE watch = ? AND folder = ? AND name = ?", (n, folder, name))
