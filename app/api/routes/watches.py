"""Watched folders: what lies in them becomes, stays and ceases to be pictures of a collection."""

from __future__ import annotations

import base64
import json
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from app.api.admission import UPLOAD
from app.api.dependencies import (
    LibraryDep,
    OptionalCollectionDep,
    SourcePolicyDep,
    ThreadsDep,
    WatchingDep,
    is_collection_allowed,
    merge_query,
    open_incoming_folder,
    validate_collection,
)
from app.api.multipart import MAX_FIELDS, File, FormModel, describe_form, receive_form
from app.api.openapi import CollectionText, describe_field
from app.api.routes.ingest import restrict_policy
from app.api.schemas.fields import (
    MAX_ENTRIES,
    WHOLE,
    CollectionName,
    Metadata,
    RequestModel,
    ShortText,
    UnicodeText,
    example,
)
from app.api.schemas.images import ErrorOut
from app.api.strict_route import new_router
from app.core.clock import seconds_since
from app.core.errors import BadRequest, NotFound, Validation
from app.core.strict_json import load_json
from app.core.types import ItemError, SourceSpec
from app.sources.base import SourcePolicy
from app.sources.folder import FolderSource
from app.storage.watches import MAX_PATH_CHARS, ChangesResult, FileChange, Watch, WatchedFile, WatchReport

router = new_router("/v1/watches", "upload", UPLOAD)

FOLDER, CLIENT = "folder", "client"
MAX_CHANGES = 1_000
AWAY_SECONDS = 180.0  # a client reports its state once a minute
MAX_FILES = 500  # of one call with bytes
MAX_NAME_CHARS = 500
Whole = Annotated[int, Field(ge=0, lt=1 << 63), WHOLE]
PathText = Annotated[UnicodeText, Field(max_length=MAX_PATH_CHARS)]
Kind = Literal["put", "move", "delete"]


class WatchIn(RequestModel):
    """A folder to watch."""

    model_config = ConfigDict(json_schema_extra=example(source="client:laptop"))

    source: Annotated[
        UnicodeText,
        Field(description="`folder:PATH` of the server, or `client:NAME` of a folder that a client sends."),
        describe_field(pattern=f"^({FOLDER}|{CLIENT}):."),
    ]
    collection: CollectionName = None
    title: Annotated[
        UnicodeText | None,
        Field(max_length=255, description="client: the name of the folder, with which the sources of pictures begin."),
    ] = None
    exclude: Annotated[
        list[Annotated[UnicodeText, Field(max_length=1_000)]],
        Field(max_length=100, description="Patterns of names and paths to leave out, like `*.png`."),
    ] = Field(default_factory=list)
    deletes: Annotated[
        Literal["mirror", "keep"], Field(description="What a deleted file does: delete its picture, or keep it.")
    ] = "mirror"
    poll_seconds: Annotated[
        float | None,
        Field(ge=1, le=86_400, description="folder: scan so often, and do not listen to the kernel (null)."),
    ] = None
    allow_mass_delete: Annotated[
        bool, Field(description="folder: delete the pictures of many files at once, too, without a confirmation.")
    ] = False


class WatchOut(BaseModel):
    """A watched folder, and how its pictures stand to it."""

    id: str
    collection: str
    source: str
    title: str
    exclude: list[str]
    deletes: Literal["mirror", "keep"]
    poll_seconds: float | None
    allow_mass_delete: bool
    state: str = Field(
        description="new, scanning, watching, polling, held (deletions wait), missing (it cannot be read), refused,"
        " paused, or away (its client is silent)."
    )
    fault: str | None = Field(description="What somebody should look at.")
    files: int = Field(description="Files that were applied.")
    failed: int = Field(description="Files of them that are no pictures.")
    held: int = Field(description="Deletions that wait for a confirmation.")
    confirmed: bool = Field(description="Whether somebody has confirmed them.")
    identity: str | None = Field(description="Device and inode of the folder; other ones may be another disk.")
    created_at: str
    scanned_at: str | None = Field(description="When every file was looked at last.")
    changed_at: str | None = Field(description="When something was applied last.")
    seen_at: str | None = Field(description="When the reader of the folder last reported its state.")

    @classmethod
    def of(cls, watch: Watch) -> Self:
        return cls(
            id=watch.id,
            collection=watch.collection,
            source=f"{watch.kind}:{watch.place}",
            title=watch.title,
            exclude=list(watch.options.get("exclude", ())),
            deletes=watch.options.get("deletes", "mirror"),
            poll_seconds=watch.options.get("poll_seconds"),
            allow_mass_delete=watch.options.get("allow_mass_delete", False),
            state=find_state(watch),
            fault=watch.fault,
            files=watch.files,
            failed=watch.failed,
            held=watch.held,
            confirmed=watch.confirmed,
            identity=watch.identity,
            created_at=watch.created_at,
            scanned_at=watch.scanned_at,
            changed_at=watch.changed_at,
            seen_at=watch.seen_at,
        )


def find_state(watch: Watch) -> str:
    """The state that its reader reported, unless the watch is paused or the client that reads is silent."""
    if watch.paused:
        return "paused"
    if watch.kind == CLIENT and (watch.seen_at is None or seconds_since(watch.seen_at) > AWAY_SECONDS):
        return "away"
    return watch.state


class WatchesOut(BaseModel):
    """Watched folders, in the order in which they were added."""

    watches: list[WatchOut]


class WatchedFileOut(BaseModel):
    """A file as it was when it was applied."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    sha256: str
    beside: str = Field(description="Changes with the files beside it.")
    is_mounted: bool = Field(description="Whether it lay on another device than the folder.")
    image_id: str | None = Field(description="Its picture; null if it is none, or somebody has deleted that.")
    error: ErrorOut | None = Field(description="Why it is no picture.")

    @classmethod
    def of(cls, file: WatchedFile, image_id: str | None) -> Self:
        return cls(
            path=file.path,
            size=file.size,
            mtime_ns=file.mtime_ns,
            inode=file.inode,
            sha256=file.sha256,
            beside=file.beside,
            is_mounted=file.is_mounted,
            image_id=image_id,
            error=ErrorOut.of(file.error),
        )


class WatchedFilePage(BaseModel):
    """Files of a watched folder, by folder and name."""

    files: list[WatchedFileOut]
    next_cursor: str | None


class FieldsIn(RequestModel):
    """What the files beside a picture say of it."""

    id: ShortText | None = None
    caption: ShortText | None = None
    tags: Annotated[list[ShortText], Field(max_length=MAX_ENTRIES)] = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    camera_data: Metadata | None = Field(None, description="As a line of metadata.jsonl has it: taken_at and others.")


class FileErrorIn(RequestModel):
    """Why a file cannot become a picture."""

    code: Annotated[str, Field(pattern="^[a-z_]{1,50}$")]
    detail: Annotated[UnicodeText, Field(max_length=1_000)]


class FileChangeIn(RequestModel):
    """What became of one file. `move` has the path `before`; `put` a `sha256`; `delete` only its `path`."""

    kind: Kind
    path: Annotated[PathText, Field(min_length=1)]
    before: PathText = ""
    size: Whole = 0
    mtime_ns: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] = 0
    inode: Whole = 0
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    beside: PathText = ""
    is_mounted: bool = False
    fields: FieldsIn | None = None
    error: FileErrorIn | None = None

    def to_change(self) -> FileChange:
        said = self.model_dump(exclude={"fields", "error"})
        fields = None if self.fields is None else self.fields.model_dump(exclude_defaults=True)
        error = None if self.error is None else ItemError(self.error.code, self.error.detail)
        return FileChange(**said, fields=fields, error=error)


class WatchReportIn(RequestModel):
    """How the one that reads the folder stands."""

    state: Literal["scanning", "watching", "polling", "held", "missing"]
    fault: Annotated[UnicodeText | None, Field(max_length=2_000)] = None
    held: Whole = 0
    scanned: bool = False
    identity: Annotated[str | None, Field(max_length=100)] = None
    took_confirmation: bool = False

    def to_report(self) -> WatchReport:
        return WatchReport(**self.model_dump())


class ChangesIn(RequestModel):
    """What became of files, and the state of their reader."""

    model_config = ConfigDict(json_schema_extra=example(changes=[{"kind": "delete", "path": "2024/cat.jpg"}]))

    changes: Annotated[list[FileChangeIn], Field(max_length=MAX_CHANGES, fail_fast=True)] = Field(default_factory=list)
    report: WatchReportIn | None = None


class ChangesOut(BaseModel):
    """What came of the changes."""

    added: int
    replaced: int
    moved: int
    deleted: int
    wanted: list[str] = Field(description="Paths whose bytes are needed: send their changes again, with the files.")
    failed: dict[str, ErrorOut] = Field(description="Paths of files that are no pictures, and why.")

    @classmethod
    def of(cls, result: ChangesResult) -> Self:
        failed = {path: ErrorOut(code=error.code, detail=error.detail) for path, error in result.failed.items()}
        return cls(
            added=result.added,
            replaced=result.replaced,
            moved=result.moved,
            deleted=result.deleted,
            wanted=list(result.wanted),
            failed=failed,
        )


def read_change(text: Any) -> Any:
    """The change in a field of a form. Raises Validation."""
    return load_json(text, "change") if isinstance(text, str) else text


FormChange = Annotated[
    FileChangeIn,
    BeforeValidator(read_change),
    WithJsonSchema({"type": "string", "maxLength": 1 << 20, "description": "A change as JSON."}),
]


class FilesForm(FormModel):
    """Files of a watched folder; the first `change` belongs to the first of `files`, and so on."""

    files: Annotated[list[File], Field(max_length=MAX_FILES)] = Field(default_factory=list)
    change: Annotated[list[FormChange], Field(max_length=min(MAX_FILES, MAX_FIELDS))] = Field(default_factory=list)


async def find_watch(watching: WatchingDep, threads: ThreadsDep, id: str) -> Watch:
    watch = await threads.reads.run(watching.store.get, id)
    if not is_collection_allowed(watch.collection):
        raise NotFound(f"there is no watched folder {id!r}")
    return watch


WatchDep = Annotated[Watch, Depends(find_watch)]


@router.post("", status_code=201)
async def create_watch(
    watching: WatchingDep,
    policy: SourcePolicyDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    body: WatchIn,
) -> WatchOut:
    """Watch a folder: its pictures become those of a collection, and stay equal to it.

    A folder that is watched already gets the new options.
    """
    named = validate_collection(merge_query(body, collection=collection).collection)
    kind, place, title = await threads.reads.run(parse_place, body, restrict_policy(policy))
    options = body.model_dump(include={"exclude", "deletes", "poll_seconds", "allow_mass_delete"})
    return WatchOut.of(await threads.writes.run(watching.create, named, kind, place, title, options))


def parse_place(body: WatchIn, policy: SourcePolicy) -> tuple[str, str, str]:
    """The kind of a watch, its place and its title. Raises Validation."""
    kind, _, place = body.source.partition(":")
    if kind == FOLDER:
        if body.title is not None:
            raise Validation(f"title belongs to {CLIENT}:NAME; a folder of the server has its own name")
        place = FolderSource.resolve(SourceSpec(kind, place), policy).place
        return kind, place, PurePosixPath(place).name
    if body.allow_mass_delete:
        raise Validation(f"allow_mass_delete belongs to {FOLDER}:PATH; a client decides by itself")
    if kind != CLIENT or not place:
        raise Validation(f"source must be {FOLDER}:PATH or {CLIENT}:NAME")
    if len(place) > MAX_NAME_CHARS:
        raise Validation(f"the name of a {CLIENT} has at most {MAX_NAME_CHARS} characters")
    return kind, place, body.title or place


@router.get("")
async def list_watches(
    watching: WatchingDep,
    threads: ThreadsDep,
    collection: Annotated[CollectionText | None, Query(description="Only those of this collection.")] = None,
) -> WatchesOut:
    """List watched folders."""
    named = None if collection is None else validate_collection(collection)
    found = await threads.reads.run(watching.store.list_all)
    return WatchesOut(
        watches=[
            WatchOut.of(one)
            for one in found
            if is_collection_allowed(one.collection) and named in (None, one.collection)
        ]
    )


@router.get("/{id}")
async def get_watch(watch: WatchDep) -> WatchOut:
    """Get a watched folder, with its state."""
    return WatchOut.of(watch)


@router.delete("/{id}", status_code=204, response_model=None)
async def delete_watch(watching: WatchingDep, threads: ThreadsDep, watch: WatchDep) -> Response | None:
    """Watch a folder no more. Its pictures stay."""
    await threads.writes.run(watching.delete, watch.id)
    return None


@router.post("/{id}/pause")
async def pause_watch(watching: WatchingDep, threads: ThreadsDep, watch: WatchDep) -> WatchOut:
    """Pause a watched folder: nothing of it is applied until it is resumed."""
    return WatchOut.of(await threads.writes.run(partial(watching.set_paused, watch.id, paused=True)))


@router.post("/{id}/resume")
async def resume_watch(watching: WatchingDep, threads: ThreadsDep, watch: WatchDep) -> WatchOut:
    """Resume a watched folder. It begins with a scan."""
    return WatchOut.of(await threads.writes.run(partial(watching.set_paused, watch.id, paused=False)))


@router.post("/{id}/scan")
async def scan_watch(watching: WatchingDep, threads: ThreadsDep, watch: WatchDep) -> WatchOut:
    """Scan a folder of the server now."""
    return WatchOut.of(await threads.writes.run(watching.scan_now, watch.id))


@router.post("/{id}/confirm")
async def confirm_watch(watching: WatchingDep, threads: ThreadsDep, watch: WatchDep) -> WatchOut:
    """Confirm the deletions that are held: the files are gone, and their pictures shall be deleted."""
    return WatchOut.of(await threads.writes.run(watching.store.confirm, watch.id))


@router.get("/{id}/files")
async def list_watched_files(
    watching: WatchingDep,
    threads: ThreadsDep,
    watch: WatchDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
    status: Annotated[Literal["failed"] | None, Query(description="Only files that are no pictures.")] = None,
) -> WatchedFilePage:
    """List the files of a watched folder as they were when they were applied."""
    after = decode_place(cursor)
    list_page = partial(watching.store.list_page, watch, after, limit + 1, failed=status is not None)
    found, pictures = await threads.reads.run(list_page)
    files = []
    for file in found[:limit]:
        picture = pictures.get(file.image_key or 0)
        files.append(WatchedFileOut.of(file, picture.id if picture else None))
    last = found[limit - 1] if len(found) > limit else None
    return WatchedFilePage(files=files, next_cursor=None if last is None else encode_place(last.folder, last.name))


def encode_place(folder: str, name: str) -> str:
    """A position in the list of files, opaque to callers."""
    return base64.urlsafe_b64encode(json.dumps([folder, name]).encode()).decode()


def decode_place(cursor: str | None) -> tuple[str, str]:
    """Raises BadRequest for a cursor that no list has given."""
    if cursor is None:
        return "", ""
    try:
        folder, name = json.loads(base64.urlsafe_b64decode(cursor))
        f"{folder}{name}".encode()
    except (ValueError, TypeError, RecursionError):
        raise BadRequest("the cursor is not one that a listing has given") from None
    return str(folder), str(name)


@router.post("/{id}/changes")
async def apply_changes(watching: WatchingDep, threads: ThreadsDep, watch: WatchDep, body: ChangesIn) -> ChangesOut:
    """Apply what became of files of a folder that a client watches. The same changes again change nothing."""
    require_client(watch)
    changes = [one.to_change() for one in body.changes]
    result = await threads.writes.run(watching.store.apply, watch.id, changes) if changes else ChangesResult()
    if body.report is not None:
        await threads.writes.run(watching.store.report, watch, body.report.to_report())
    return ChangesOut.of(result)


FORM = describe_form(FilesForm)


@router.post("/{id}/files", openapi_extra=FORM)
async def send_files(
    request: Request, library: LibraryDep, watching: WatchingDep, threads: ThreadsDep, watch: WatchDep
) -> ChangesOut:
    """Send files of a folder that a client watches, with their changes."""
    require_client(watch)
    async with open_incoming_folder(library, threads) as folder:
        asked, _ = await receive_form(request, folder, FilesForm, MAX_FILES)
        if len(asked.change) != len(asked.files) or any(one.kind != "put" for one in asked.change):
            raise Validation("send a change of the kind put for each file, in the same order")
        changes = [one.to_change() for one in asked.change]
        received = {change.path: file.path for change, file in zip(changes, asked.files, strict=True)}
        return ChangesOut.of(await threads.writes.run(watching.store.apply, watch.id, changes, received))


def require_client(watch: Watch) -> None:
    """Raise Validation for a folder that the server reads itself."""
    if watch.kind != CLIENT:
        raise Validation("the server reads this folder itself; nobody sends its files")
