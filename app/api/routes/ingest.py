"""Pictures that the server gets by itself: from URLs, folders of its machine and the other kinds of source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import anyio
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.dependencies import (
    OptionalCollectionDep,
    ServiceDep,
    ThreadPoolsDep,
    open_incoming_folder,
    validate_collection,
)
from app.api.errors import format_validation_errors
from app.api.idempotency import IdempotencyKeyHeader, begin_idempotent
from app.api.routes.jobs import PriorityQuery, job_response
from app.api.schemas import JobOut
from app.core.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType, Validation, map_os_errors
from app.core.types import Job, Priority, SourceSpec
from app.service.service import Service
from app.sources.base import SourcePolicy
from app.sources.registry import SOURCE_FORMS, parse_source, write_url_list
from app.storage.jobs import JobOptions

router = APIRouter(prefix="/v1/images", tags=["jobs"])

LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
MAX_LINE_BYTES = 64 << 10  # an item with the longest URL, caption, tags and metadata takes less


class UrlIn(BaseModel):
    """A picture by its URL, and what is to be said about it."""

    model_config = ConfigDict(extra="forbid")

    url: str
    id: str | None = None
    caption: str | None = None
    tags: list[str] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)


class IngestIn(BaseModel):
    """What to get, and from where."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[str, Field(description=f"One of: {SOURCE_FORMS}.")]
    items: Annotated[list[UrlIn], Field(description="The URLs.")] = Field(default_factory=list)
    collection: str | None = None
    columns: Annotated[dict[str, str], Field(description="table: the columns of image, url, caption, id and tags.")] = (
        Field(default_factory=dict)
    )
    embeddings_of: Annotated[
        str | None, Field(description="clip-retrieval: the fingerprint of the space that the embeddings there are in.")
    ] = None
    pictures: Annotated[
        str | None, Field(description="clip-retrieval: the folder where the pictures lie, if it is another one now.")
    ] = None
    key_as_id: Annotated[bool, Field(description="webdataset: the key of a sample is the id of its picture.")] = False


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": IngestIn.model_json_schema(ref_template="#/components/schemas/{model}")},
            LINES[0]: {"schema": {"type": "string", "description": "One item a line, as in `items`."}},
        },
    }
}
BODY["requestBody"]["content"]["application/json"]["schema"].pop("$defs")
BODY["requestBody"]["content"]["application/json"]["schema"]["properties"]["items"]["items"] = UrlIn.model_json_schema()


@router.post("/ingest", status_code=202, openapi_extra=BODY, response_model=JobOut)
async def ingest(
    request: Request,
    service: ServiceDep,
    lanes: ThreadPoolsDep,
    collection: OptionalCollectionDep,
    priority: PriorityQuery = Priority.NORMAL,
    key: IdempotencyKeyHeader = None,
) -> Any:
    """Take pictures by URL (JSON with `items`, or one item a line), or from a `source` that the server reads, by a job.

    URLs are off unless the operator allows them (`SIGHTLINE_FETCH`); places on the server are those below
    `SIGHTLINE_FOLDERS`, buckets those of `SIGHTLINE_BUCKETS`. What has not changed since it was taken last is left out.
    """
    settings = service.settings
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in ("application/json", *LINES):
        raise UnsupportedMediaType(f"send application/json or {LINES[0]}")
    async with open_incoming_folder(service, lanes) as folder:
        body = folder / "body"
        if kind != "application/json":
            parse_source("urls", {}, service.allowed)
        most = settings.max_json_bytes if kind == "application/json" else settings.max_upload_bytes
        await save_body(request, body, most)
        async with begin_idempotent(request, service, lanes, partial(hash_file, body)) as repeat:
            if (replay := repeat.replay) is not None:
                return replay
            begun = JobOptions(priority, repeat.noting(job_response))
            if kind == "application/json":
                given = await lanes.writes.run(parse_body, body)
                collection = validate_collection(given.collection or collection)
                job = await lanes.writes.run(start_ingest, service, collection, folder, given, begun)
            else:
                collection = validate_collection(collection)
                count = await lanes.writes.run(write_item_lines, folder, body, settings.max_urls)
                job = await lanes.writes.run(service.bulks.add_urls, collection, folder, count, begun)
    return JobOut.of(job)


def start_ingest(service: Service, collection: str, folder: Path, given: IngestIn, begun: JobOptions) -> Job:
    """Begin the job that is asked for; `folder` takes its list of URLs."""
    asked = parse_source_spec(given, service.allowed)
    if (space := asked.options.get("embeddings_of")) is not None:
        service.require_space(space)
    if asked.kind != "urls":
        return service.bulks.add_source(collection, asked, begun)
    count = write_items(folder, given.items, service.settings.max_urls)
    return service.bulks.add_urls(collection, folder, count, begun)


def hash_file(body: Path) -> bytes:
    """The digest of a body."""
    with open(body, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


async def save_body(request: Request, path: Path, most: int) -> None:
    """The body into a file. Raises PayloadTooLarge."""
    size = 0
    with map_os_errors():
        async with await anyio.open_file(path, "wb") as file:
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise PayloadTooLarge(f"this body may have {most} bytes; send longer lists as {LINES[0]}")
                await file.write(part)


def parse_source_spec(given: IngestIn, allowed: SourcePolicy) -> SourceSpec:
    """The source that is asked for, with its options: the other fields. Raises Validation, UrlNotAllowed."""
    options = given.model_dump(exclude={"source", "items", "collection"}, exclude_defaults=True)
    asked = parse_source(given.source, options, allowed)
    if given.items and asked.kind != "urls":
        raise Validation("items belong to the source urls")
    return asked


def parse_body(body: Path) -> IngestIn:
    """The JSON of a body. Raises BadRequest, Validation."""
    try:
        return IngestIn.model_validate(json.loads(body.read_bytes()))
    except ValidationError as error:
        raise Validation(format_validation_errors(error.errors())) from None
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None


def write_items(folder: Path, items: Iterable[UrlIn], most: int) -> int:
    """Write the items as the list of a job; returns how many there are. Raises Validation."""
    return write_url_list(
        folder, ({"name": item.url, **item.model_dump(exclude_defaults=True)} for item in items), most
    )


def write_item_lines(folder: Path, body: Path, most: int) -> int:
    """Like `listed`, for one item a line. Raises Validation that names the line."""
    with open(body, "rb") as file:
        return write_items(folder, parse_lines(file), most)


def parse_lines(lines: BinaryIO) -> Iterator[UrlIn]:
    """The items of lines; empty lines are left out. Raises Validation."""
    n = 0
    while line := lines.readline(MAX_LINE_BYTES + 1):
        n += 1
        if len(line) > MAX_LINE_BYTES:
            raise Validation(f"line {n} is longer than {MAX_LINE_BYTES} bytes")
        if line.strip():
            try:
                yield UrlIn.model_validate(json.loads(line))
            except ValidationError as error:
                raise Validation(f"line {n}: {format_validation_errors(error.errors())}") from None
            except (ValueError, RecursionError):
                raise Validation(f"line {n} is not JSON") from None


sources = APIRouter(prefix="/v1/sources", tags=["jobs"])


class SourcesOut(BaseModel):
    """What the operator allows `POST /v1/images/ingest` to read."""

    urls: bool
    folders: list[str]
    max_urls: int


@sources.get("")
async def get_sources(service: ServiceDep) -> SourcesOut:
    """Whether pictures are fetched by URL, how many at once, and the folders of this machine that may be read."""
    settings = service.settings
    folders = [folder for folder in settings.folders.split(":") if folder]
    return SourcesOut(urls=settings.fetch, folders=folders, max_urls=settings.max_urls)
