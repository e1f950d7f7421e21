"""Copies the files of one place into another: pictures with their thumbnails, videos, uploads that wait."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory

from app.core.errors import BlobMissing, StartupError, map_os_errors
from app.core.files import atomic_write, make_dirs
from app.storage.backup import copy_file, copy_uploads, list_pending_uploads
from app.storage.blobs import BlobStore, LocalFile, StagedFile
from app.storage.bucket_blobs import STORED
from app.storage.database import Database
from app.storage.sql import Connection, fetch_all, fetch_number
from app.storage.table_copy import Report, TableCopy

PORTION = 64  # files: how far they have come is noted after each
AT_ONCE = 8  # files that are read at the same time

LIST = {
    "images": "SELECT sha256, min(format) FROM images WHERE sha256 > ? GROUP BY sha256 ORDER BY sha256 LIMIT ?",
    "videos": "SELECT sha256, '' FROM videos WHERE kept = 1 AND sha256 > ? GROUP BY sha256 ORDER BY sha256 LIMIT ?",
}
COUNT = {
    "images": "SELECT count(DISTINCT sha256) FROM images WHERE sha256 <= ?",
    "videos": "SELECT count(DISTINCT sha256) FROM videos WHERE kept = 1 AND sha256 <= ?",
}
ALL = "~"  # after every SHA-256


class FileCopy:
    """One move of all files; `rows` notes how far it has come."""

    def __init__(self, database: Database, source: BlobStore, target: BlobStore, rows: TableCopy) -> None:
        self._database, self._source, self._target, self._rows = database, source, target, rows
        self.missing: list[str] = []  # what the source has lost or altered: it stays away

    def copy_pictures(self, report: Report) -> int:
        """Copy the files of pictures and videos; returns how many the source should have."""
        total = sum(self._count(kind, ALL) for kind in LIST)
        done = 0
        with ThreadPoolExecutor(AT_ONCE) as pool, TemporaryDirectory(dir=self._target.incoming) as scratch:
            self._scratch = Path(scratch)
            for kind in LIST:
                reached, missing = self._rows.read_place(f"({kind})") or ("", [])
                done += self._count(kind, reached)
                while portion := self._list(kind, reached):
                    missing += self._copy_portion(portion, pool)
                    reached = portion[-1][0]
                    self._rows.write_place(f"({kind})", [reached, missing])
                    done += len(portion)
                    report("files", done, total)
                self.missing += missing
        return total - len(self.missing)

    def copy_uploads(self) -> int:
        """Copy the uploads that no worker has imported; returns how many there are."""
        uploads = list_pending_uploads(self._database)
        for job, n, _ in uploads:
            self._source.fetch_upload(job, n)
        if not copy_uploads(self._source, self._target.incoming, uploads):
            raise StartupError("the files of an upload that waits are gone; cancel its job, and move then")
        for job, n, _ in uploads:
            path = self._target.upload_path(job, n)
            if path.is_dir():
                (path / STORED).unlink(missing_ok=True)  # of the source, where that is a bucket
            if path.exists():
                self._target.keep_upload(job, n, path)
        return len(uploads)

    def _count(self, kind: str, until: str) -> int:
        sql = COUNT[kind]
        return self._database.read(lambda c: fetch_number(c, sql, (until,)))

    def _list(self, kind: str, after: str) -> list[tuple[str, str]]:
        """The next SHA-256, in order, with the format of each picture."""
        sql = LIST[kind]

        def work(c: Connection) -> list[tuple[str, str]]:
            return [(sha256, format) for sha256, format in fetch_all(c, sql, (after, PORTION))]

        return self._database.read(work)

    def _copy_portion(self, portion: Sequence[tuple[str, str]], pool: ThreadPoolExecutor) -> list[str]:
        """Copy some files, each compared with its SHA-256; returns those that the source does not have."""
        with ExitStack() as opened:
            fetched = list(pool.map(self._fetch, [sha256 for sha256, _ in portion]))
            for file in fetched:
                if file is not None:
                    opened.enter_context(file)
            staged = list(pool.map(self._stage, portion, fetched))
            there = [one for one in staged if one is not None]
            self._target.put(there)
            for one in there:
                if not self._target.is_remote:
                    self._target.place(one)
                if one.path.parent == self._scratch:
                    one.path.unlink(missing_ok=True)
            list(pool.map(self._copy_thumbnail, portion))
        return [sha256 for (sha256, _), one in zip(portion, staged, strict=True) if one is None]

    def _fetch(self, sha256: str) -> LocalFile | None:
        try:
            return self._source.fetch(sha256)
        except BlobMissing:
            return None

    def _stage(self, named: tuple[str, str], file: LocalFile | None) -> StagedFile | None:
        """The file, if it has the bytes that its name says.

        A folder gets a copy of its own: a link to the file of the source would share the faults of its disk, too.
        """
        if file is None:
            return None
        path = file.path
        if not self._target.is_remote and not file.is_copy:
            path = self._scratch / named[0]
            copy_file(file.path, path)
        staged = self._target.stage(path)
        return staged if staged.sha256 == named[0] else None

    def _copy_thumbnail(self, named: tuple[str, str]) -> None:
        """Copy the thumbnail, if there is one; others are made when somebody asks for them."""
        sha256, format = named
        if not format:
            return
        file = self._source.fetch_thumbnail(self._source.thumbnail_path(sha256, format))
        if file is None:
            return
        path = self._target.thumbnail_path(sha256, format)
        with file, map_os_errors():
            make_dirs(path.parent)
            with atomic_write(path, "wb") as copied:
                copyfileobj(file, copied)
        self._target.keep_thumbnail(path)
        if self._target.is_remote:
            path.unlink(missing_ok=True)
