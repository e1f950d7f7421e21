"""`sightline move`: copies everything of one place into another, rows by `app.storage.table_copy`, then files.

Nobody may use the source meanwhile, and nobody can use the target until the move has ended. A move that was killed goes
on when it is started again: the target says how far each table and the files have come.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from pydantic import ValidationError

from app.core.errors import Overloaded, StartupError, describe_fault
from app.core.locks import DataDirLock, count_live_owners
from app.core.settings import Settings
from app.service.data_dir import DATABASE_NAME, check_places, make_data_dir, open_membership
from app.storage import address
from app.storage.blobs import BlobStore
from app.storage.bucket_blobs import BucketBlobStore
from app.storage.database import Database
from app.storage.file_copy import FileCopy
from app.storage.media_place import check_media, normalise_media, open_media
from app.storage.membership import Member
from app.storage.table_copy import Report, TableCopy, is_unfinished
from app.storage.tables import installation

KIND = "move"  # of this process among those of a cluster
MEMBER_SECONDS = 15.0  # until this process is one of them, and one that was frozen is not
OWNER = "(owner)"  # the row of `moving` with the installation that the target becomes, and where its files are


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What the target has now. `missing` are SHA-256 of files that the source had lost, or altered, before;
    `was_there`: an earlier move had brought it all."""

    rows: int
    files: int
    uploads: int
    missing: list[str]
    was_there: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A database, the files of its pictures, and who uses them."""

    database: Database
    blobs: BlobStore
    users: Users


def make_target(source: Settings, database: str | None, media: str | None, data_dir: Path | None) -> Settings:
    """The settings of the target. Raises StartupError unless it says where everything goes, and that is elsewhere."""
    if data_dir is None and (database is None or media is None):
        raise StartupError("name the target: --to-database and --to-media, or --to-data-dir")
    changed: dict[str, Any] = {
        "database": database or "sqlite",
        "media": media or "local",
        "data_dir": data_dir or source.data_dir,
    }
    changed["shared_media"] = media is None and database is not None
    try:
        target = Settings(**(source.model_dump() | changed))
    except ValidationError as error:
        fault = error.errors()[0]
        raise StartupError(f"--to-{str(fault['loc'][0]).replace('_', '-')}: {describe_fault(fault)}") from None
    if find_database(source) == find_database(target) or name_media(source) == name_media(target):
        raise StartupError("source and target share a place; name another database and another place for the files")
    return target


def find_database(settings: Settings) -> str:
    """The address of the database."""
    return settings.database if settings.is_cluster else str(settings.data_dir.resolve() / DATABASE_NAME)


def has_local_media(settings: Settings) -> bool:
    return normalise_media(settings.media) == installation.LOCAL


def name_media(settings: Settings) -> str:
    return str(settings.data_dir.resolve()) if has_local_media(settings) else normalise_media(settings.media)


def check_target(blobs: BlobStore, media: str) -> None:
    """Raise StartupError unless files can be written there, and there are none; in a bucket not of any program."""
    if not isinstance(blobs, BucketBlobStore):
        is_empty = not blobs.has_files()
    else:
        blobs.require_owner(None)
        blobs.probe()
        is_empty = blobs.is_empty()
    if not is_empty:
        raise StartupError(f"{media} holds files already; name an empty place")


def check_source(place: Place, media: str) -> None:
    """Raise StartupError unless the files of the rows are those of the place."""
    held, has_files = check_media(place.database, normalise_media(media))
    if isinstance(place.blobs, BucketBlobStore):
        place.blobs.require_owner(held.id if held else None, has_files=has_files)


def move(source: Settings, target: Settings, report: Report) -> MoveResult:
    """Copy everything. Raises StartupError; then the source is as it was, and a later move can go on."""
    with hold_source(source) as held, hold_target(target) as new:
        rows = TableCopy(held.database, new.database)
        source_id = held.database.read(installation.identify)
        if not is_unfinished(new.database):
            if (earlier := find_earlier(new.database, source_id, target)) is not None:
                return repeat(earlier, rows.digest_source(report))
            check_target(new.blobs, name_media(target))
        rows.begin(source_id)
        owner, media = rows.read_place(OWNER) or (uuid.uuid4().hex, name_media(target))
        if media != name_media(target):
            raise StartupError(f"this move has begun to copy files into {media}; go on with that")
        rows.write_place(OWNER, [owner, media])
        new.blobs.claim(owner, has_files=False)
        files = FileCopy(held.database, held.blobs, new.blobs, rows)
        result = MoveResult(rows.copy_rows(report), files.copy_pictures(report), files.copy_uploads(), files.missing)
        said = json.dumps({"source": source_id, "digest": rows.check_rows(report), "result": asdict(result)})
        for place in (held, new):
            place.users.refuse()
        rows.finish(lambda c: installation.replace(c, owner, normalise_media(target.media), said))
    return result


def find_earlier(database: Database, source_id: str, target: Settings) -> dict[str, Any] | None:
    """What the target says of the move that brought this source into it; None where there was none."""
    said = database.read(lambda c: installation.get_moved_from(c, normalise_media(target.media)))
    earlier: dict[str, Any] = json.loads(said) if said else {}
    return earlier if earlier.get("source") == source_id else None


def repeat(earlier: dict[str, Any], digest: str) -> MoveResult:
    """The result of a move that had ended when it was killed, or is started again. Raises StartupError."""
    if earlier["digest"] != digest:
        raise StartupError("the source has changed since it was moved there; name an empty target")
    return MoveResult(**earlier["result"] | {"was_there": True})


@contextmanager
def hold_source(settings: Settings) -> Iterator[Place]:
    """Open what is moved, and keep servers away. Raises StartupError where a server or a worker uses it."""
    check_places(settings)
    with ExitStack() as opened:
        if not settings.is_cluster:
            if not Path(find_database(settings)).is_file():
                raise StartupError(f"there is no data directory at {settings.data_dir}")
            opened.enter_context(closing(DataDirLock(settings.data_dir)))
        place = open_place(settings, opened)
        check_source(place, settings.media)
        yield place


@contextmanager
def hold_target(settings: Settings) -> Iterator[Place]:
    """Open where everything goes; a folder that is missing is made."""
    with ExitStack() as opened:
        if not settings.is_cluster or has_local_media(settings):
            made = make_data_dir(settings.data_dir)
            opened.enter_context(closing(DataDirLock(settings.data_dir, made)))
        yield open_place(settings, opened)


def open_place(settings: Settings, opened: ExitStack) -> Place:
    """Raises StartupError where a server or a worker uses the place."""
    database = opened.enter_context(closing(address.open_database(find_database(settings))))
    users = opened.enter_context(Users(settings))
    users.refuse()
    if not has_local_media(settings):  # its cache is needed for the move alone
        scratch = Path(opened.enter_context(TemporaryDirectory(prefix="sightline-move-")))
        settings = settings.model_copy(update={"data_dir": scratch, "cache_dir": None})
    return Place(database, opened.enter_context(closing(open_media(settings))), users)


class Users:
    """Which processes use a place, beside this one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._membership = open_membership(settings, KIND)

    def __enter__(self) -> Self:
        self._membership.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._membership.close()

    def refuse(self) -> None:
        """Raise StartupError where there are any."""
        if self._settings.is_cluster:
            members, is_alone = self._list_members()
            if others := [one for one in members if not is_alone or one.kind != KIND]:
                names = ", ".join(f"a {one.kind} on {one.host} (process {one.pid})" for one in others[:3])
                raise StartupError(f"the database is in use by {names}; stop every server and worker first")
        elif count_live_owners(self._settings.data_dir / "workers"):
            raise StartupError(f"a worker runs on the data directory {self._settings.data_dir}; stop it first")

    def _list_members(self) -> tuple[list[Member], bool]:
        """The members of the cluster, as soon as this process is one, and whether it is the only move among them."""
        deadline = time.monotonic() + MEMBER_SECONDS
        while True:
            is_late = time.monotonic() > deadline
            try:
                members = self._membership.list_members()
                if (is_alone := self._membership.try_lead(KIND)) or is_late:
                    return members, is_alone
            except Overloaded as error:
                if is_late:
                    raise StartupError(error.detail) from None
            time.sleep(0.05)
