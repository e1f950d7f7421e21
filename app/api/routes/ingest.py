"""Pictures that the server reads itself: from URLs, folders of its machine and the other sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import anyio
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.admission import UPLOAD, content_type, work
from app.api.dependencies import (
    ALLOWED_COLLECTIONS,
    JobsDep,
    LibraryDep,
    OptionalCollectionDep,
    SearchDep,
    SettingsDep,
    SourcePolicyDep,
    ThreadsDep,
    merge_query,
    open_incoming_folder,
    parse_body,
    parse_json,
    validate_collection,
)
from app.api.idempotency import IdempotencyDep
from app.api.openapi import describe_field
from app.api.routes.jobs import JobQuery, PriorityQuery, job_response, make_options
from app.api.schemas.fields import CollectionName, Metadata, RequestModel, ShortText, Tags, example
from app.api.schemas.jobs import JobOut
from app.api.strict_route import new_router
from app.core.errors import BadRequest, UnsupportedMediaType, Validation, map_os_errors
from app.core.files import sha256_file
from app.core.types import Job, SourceSpec
from app.sources.base import SourcePolicy
from app.sources.registry import SOURCE_FORMS, SOURCE_TYPES, parse_source, write_url_list

router = new_router("/v1/images", "upload", UPLOAD)

SOURCE_PATTERN = f"^(urls$|({'|'.join(kind for kind in SOURCE_TYPES if kind != 'urls')}):)"
LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
MAX_ITEMS = 100_000  # a JSON body holds fewer
MAX_COLUMNS = 100
LINE = '{"url": "https://example.org/cat.jpg", "caption": "a cat"}'
MAX_LINE_BYTES = 64 << 10  # an item with the longest URL, caption, tags and metadata takes less


class UrlIn(RequestModel):
    """A picture by its URL, and its attributes."""

    url: ShortText
    id: ShortText | None = None
    caption: ShortText | None = None
    tags: Tags = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)


class IngestIn(RequestModel):
    """What to import, and from where."""

    model_config = ConfigDict(
        json_schema_extra=example(source="urls", items=[{"url": "https://example.org/cat.jpg", "caption": "a cat"}])
    )

    source: Annotated[ShortText, Field(description=f"One of: {SOURCE_FORMS}."), describe_field(pattern=SOURCE_PATTERN)]
    items: Annotated[list[UrlIn], Field(max_length=MAX_ITEMS, fail_fast=True, description="The URLs.")] = Field(
        default_factory=list
    )
    collection: CollectionName = None
    priority: Literal["high", "normal", "low"] | None = None
    columns: Annotated[
        dict[ShortText, ShortText],
        Field(
            max_length=MAX_COLUMNS,
            description="table: the columns of image, url, path, caption, id and tags; an empty name for none.",
        ),
    ] = Field(default_factory=dict)
    embeddings_of: Annotated[
        ShortText | None,
        Field(description="clip-retrieval: the fingerprint of the space that the embeddings there are in."),
    ] = None
    pictures: Annotated[
        ShortText | None,
        Field(description="clip-retrieval: the folder where the pictures lie, if it is another one now."),
    ] = None
    exclude: Annotated[
        list[ShortText],
        Field(max_length=100, description="folder: patterns of names and paths to leave out, like `*.png`."),
    ] = Field(default_factory=list)
    key_as_id: Annotated[bool, Field(description="webdataset: the key of a sample is the id of its picture.")] = False


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": IngestIn.model_json_schema(ref_template="#/components/schemas/{model}")},
            LINES[0]: {
                "schema": {"type": "string", "description": "One item a line, as in `items`.", "examples": [LINE]}
            },
        },
    }
}
BODY["requestBody"]["content"]["application/json"]["schema"].pop("$defs")
BODY["requestBody"]["content"]["application/json"]["schema"]["properties"]["items"]["items"] = UrlIn.model_json_schema()


@router.post("/ingest", status_code=202, openapi_extra=BODY, response_model=JobOut)
async def import_images(
    request: Request,
    library: LibraryDep,
    jobs: JobsDep,
    search: SearchDep,
    settings: SettingsDep,
    policy: SourcePolicyDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    idempotency: IdempotencyDep,
    priority: PriorityQuery = None,
    job: JobQuery = None,
) -> Any:
    """Import pictures by URL, or from a place on the server. A job does it.

    URLs come as JSON with `items`, or one item a line. They are off unless the operator allows them
    (`SIGHTLINE_FETCH`). A place on the server is a `source` below `SIGHTLINE_FOLDERS`, a bucket one of
    `SIGHTLINE_BUCKETS`. A job leaves out what has not changed since the last one.
    """
    kind = content_type(request)
    if kind not in ("application/json", *LINES):
        raise UnsupportedMediaType(f"send the header 'Content-Type: application/json' (or {LINES[0]}, an item a line)")
    is_json = kind == "application/json"
    async with open_incoming_folder(library, threads) as folder:
        body = folder / "body"
        if not is_json:
            parse_source("urls", {}, policy)  # refuse before the body is read
        await save_body(request, body)
        async with idempotency.begin(lambda: bytes.fromhex(sha256_file(body)), Job, job_response) as call:
            if (replay := call.replay) is not None:
                return replay
            options = make_options(priority, call.slot, job)
            if is_json:
                asked = await work(request, parse_body, IngestIn, body.read_bytes())
                asked = merge_query(asked, collection=collection, priority=priority)
                options = make_options(asked.priority, call.slot, job)
                collection = validate_collection(asked.collection)
                spec = await threads.writes.run(parse_source_spec, asked, restrict_policy(policy))
                if (space := spec.options.get("embeddings_of")) is not None:
                    search.require_space(space)
                if spec.kind != "urls":
                    begun = await threads.writes.run(jobs.add_source, collection, spec, options)
                    return JobOut.of(begun)
                count = await threads.writes.run(write_items, folder, asked.items, settings.max_urls)
            else:
                collection = validate_collection(collection)
                count = await threads.writes.run(write_item_lines, folder, body, settings.max_urls)
            begun = await threads.writes.run(jobs.add_urls, collection, folder, count, options)
    return JobOut.of(begun)


async def save_body(request: Request, path: Path) -> None:
    """Write the body to a file."""
    with map_os_errors():
        async with await anyio.open_file(path, "wb") as file:
            async for part in request.stream():
                await file.write(part)


def restrict_policy(policy: SourcePolicy) -> SourcePolicy:
    """What this request's key may read of it."""
    bound = ALLOWED_COLLECTIONS.get()
    return policy if bound is None else policy.restrict(bound)


def parse_source_spec(body: IngestIn, policy: SourcePolicy) -> SourceSpec:
    """The source with its options, which are the other fields. Raises Validation, UrlNotAllowed."""
    options = body.model_dump(exclude={"source", "items", "collection", "priority"}, exclude_defaults=True)
    spec = parse_source(body.source, options, policy)
    if body.items and spec.kind != "urls":
        raise Validation("items belong to the source urls")
    return spec


def write_items(folder: Path, items: Iterable[UrlIn], most: int) -> int:
    """Write the items as the list of a job; returns how many there are. Raises Validation."""
    lines = ({"name": item.url, **item.model_dump(exclude_defaults=True)} for item in items)
    return write_url_list(folder, lines, most)


def write_item_lines(folder: Path, body: Path, most: int) -> int:
    """Like `write_items`, for a body of one item a line. Raises Validation that names the line."""
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
                yield parse_json(UrlIn, line)
            except BadRequest:
                raise Validation(f"line {n} is not JSON") from None
            except Validation as error:
                raise Validation(f"line {n}: {error.detail}") from None


sources = new_router("/v1/sources", "upload")


class SourcesOut(BaseModel):
    """What the operator allows `POST /v1/images/ingest` to read, the limits of uploads, and the accepted formats."""

    urls: bool
    folders: list[str]
    max_urls: int
    max_upload_bytes: int
    max_archive_bytes: int
    max_archive_members: int
    max_image_bytes: int
    formats: list[str]
    videos: bool
    max_video_bytes: int


@sources.get("")
async def get_sources(settings: SettingsDep, policy: SourcePolicyDep) -> SourcesOut:
    """Say what may be imported: URLs, the folders of this machine, and the limits of uploads."""
    folders = [str(path) for path in restrict_policy(policy).folders.paths]
    limits = {name: getattr(settings, name) for name in SourcesOut.model_fields if name.startswith("max_")}
    formats, videos = sorted(settings.accepted_formats), policy.videos.refusal is None
    return SourcesOut(urls=settings.fetch, folders=folders, formats=formats, videos=videos, **limits)
