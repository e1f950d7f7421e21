"""Pictures: add, list, get, change, delete, and their bytes."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.concurrency import ThreadPools
from app.api.dependencies import (
    CollectionDep,
    DecodePoolDep,
    FilterQuery,
    ImageWaiterDep,
    LibraryDep,
    OptionalCollectionDep,
    SearchDep,
    SettingsDep,
    ThreadsDep,
    decode_cursor,
    encode_cursor,
    open_incoming_folder,
    parse_filter_parameter,
    validate_collection,
)
from app.api.files import OpenFileResponse
from app.api.idempotency import IdempotencyDep, hash_form
from app.api.multipart import Form, receive_form
from app.api.schemas import DeleteIn, DeleteOut, ImageOut, ImagePage, ImagePatch
from app.core.errors import BlobMissing, Overloaded, Validation, map_os_errors
from app.core.types import Image, Preprocessing, Status
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.service.image_waiter import UNFINISHED, ImageWaiter
from app.service.search_service import as_unconfirmed
from app.storage.attributes import ImageAttributes
from app.storage.filters.parser import parse_filter
from app.storage.library import AddResult, Library

router = APIRouter(prefix="/v1/images", tags=["images"])
uploads = APIRouter(prefix="/v1/images", tags=["images"])

MEDIA_TYPES = {f: f"image/{f}" for f in ("jpeg", "png", "webp", "gif", "avif")}
THUMBNAIL_SIZES = (64, 128, 256, 320, 512, 1024)  # others are rounded up
LOOKS = 10  # for the file of a picture that is replaced at the same time
MAX_NAME_CHARS = 255  # of the sender's file name, which is display text only
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "id": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
                        "caption": {"type": "string"},
                        "tags": {"type": "array", "items": {"type": "string"}},
                        "metadata": {"type": "string", "description": "A JSON object as text."},
                        "collection": {"type": "string"},
                    },
                }
            }
        },
    }
}


class KnownIn(BaseModel):
    """The SHA-256 digests of files that a client has."""

    model_config = ConfigDict(extra="forbid")

    sha256: Annotated[list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]], Field(max_length=1000)]
    collection: str | None = None


class KnownOut(BaseModel):
    """Those of them that are stored already, and what of caption, tags and metadata each of these lacks."""

    sha256: list[str]
    lacks: dict[str, list[str]]


@uploads.post("", status_code=202, openapi_extra=FORM, response_model=ImageOut, responses={200: {"model": ImageOut}})
async def add_image(
    request: Request,
    response: Response,
    library: LibraryDep,
    search: SearchDep,
    waiter: ImageWaiterDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    idempotency: IdempotencyDep,
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds to wait until it is ready.")] = 0.0,
    replace: Annotated[bool, Query(description="Replace the bytes that this id has.")] = False,
) -> Any:
    """Add one picture. 202 when it is safely stored, 200 when it is ready, or was stored already."""
    async with open_incoming_folder(library, threads) as folder:
        form = await receive_form(request, folder, max_files=1)
        file = form.file()
        collection = validate_collection(form.one("collection") or collection)
        attributes = parse_attributes(form, file.filename)
        async with idempotency.begin(partial(hash_form, form), AddResult, upload_response) as call:
            if (replay := call.replay) is not None:
                return replay
            added = await threads.writes.run(library.add, collection, file.path, attributes, replace, call.slot)
            image = added.image
            if not added.duplicate:
                image = await wait_until_ready(waiter, library, threads, image, wait)
            image = await threads.reads.run(search.confirm_image, image)
            if added.duplicate or image.status is Status.READY:
                response.status_code = 200
            answer = ImageOut.of(image, duplicate=added.duplicate)
            await call.finish(added, response.status_code or 202, answer)
    return answer


@router.get("")
async def list_images(
    library: LibraryDep,
    search: SearchDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: str | None = None,
    filter: FilterQuery = None,
    count: Annotated[bool, Query(description="Also say how many pictures the whole listing has.")] = False,
) -> ImagePage:
    """Pictures, newest first."""
    before, parsed = decode_cursor(cursor), parse_filter_parameter(filter, "images")
    pool = threads.reads if parsed is None else threads.queries  # a filter may have to look at every row
    found = await pool.run(library.list_images, collection, limit + 1, before, parsed)
    page = await threads.reads.run(search.confirm_images, found[:limit])
    return ImagePage(
        images=[ImageOut.of(image) for image in page],
        next_cursor=encode_cursor(page[-1].key) if len(found) > limit else None,
        total=await pool.run(library.count_images, collection, parsed) if count else None,
    )


@router.post("/known")
async def known_images(
    library: LibraryDep, threads: ThreadsDep, collection: OptionalCollectionDep, body: KnownIn
) -> KnownOut:
    """Which files are pictures of the collection already, so that a client need not send them."""
    collection = validate_collection(body.collection or collection)
    known = await threads.reads.run(library.find_known, collection, body.sha256)
    return KnownOut(sha256=list(known), lacks={digest: lacks for digest, lacks in known.items() if lacks})


@router.post("/delete")
async def delete_images(
    library: LibraryDep, search: SearchDep, threads: ThreadsDep, collection: OptionalCollectionDep, body: DeleteIn
) -> DeleteOut:
    """Delete the pictures that match a filter; pictures that are added meanwhile stay."""
    collection = validate_collection(body.collection or collection)
    filter = parse_filter(body.selected_filter(), "images")
    if filter.matches_everything and not body.all:
        raise Validation('filter: this one has no condition; to delete every picture, send {"all": true}')
    keys, examples = await threads.queries.run(library.find_matching, collection, filter)
    if body.dry_run:
        shown = [ImageOut.of(image) for image in await threads.reads.run(search.confirm_images, examples)]
        return DeleteOut(matched=len(keys), deleted=0, examples=shown)
    deleted = await threads.writes.run(library.delete_matching, collection, filter, keys)
    return DeleteOut(matched=len(keys), deleted=deleted, examples=[])


@router.get("/{id}")
async def get_image(
    library: LibraryDep, search: SearchDep, threads: ThreadsDep, collection: CollectionDep, id: str
) -> ImageOut:
    """One picture."""
    return ImageOut.of(await threads.reads.run(lambda: search.confirm_image(library.get(collection, id))))


@router.patch("/{id}")
async def update_image(
    library: LibraryDep, search: SearchDep, threads: ThreadsDep, collection: CollectionDep, id: str, patch: ImagePatch
) -> ImageOut:
    """Change caption, tags or metadata; what is not sent stays."""
    sent = patch.model_fields_set

    def change(image: Image) -> ImageAttributes:
        return ImageAttributes(
            caption=patch.caption if "caption" in sent else image.caption,
            tags=tuple(patch.tags or ()) if "tags" in sent else image.tags,
            metadata=(patch.metadata or {}) if "metadata" in sent else image.metadata,
        )

    image = await threads.writes.run(library.update, collection, id, change)
    return ImageOut.of(await threads.reads.run(search.confirm_image, image))


@router.delete("/{id}", status_code=204)
async def delete_image(library: LibraryDep, threads: ThreadsDep, collection: CollectionDep, id: str) -> None:
    """Delete a picture: no search sent after this answer finds it."""
    await threads.writes.run(library.delete, collection, id)


@router.get("/{id}/file", response_class=FileResponse)
async def get_file(library: LibraryDep, threads: ThreadsDep, collection: CollectionDep, id: str) -> FileResponse:
    """The bytes as they were sent."""
    image, file = await threads.reads.run(library.open_file, collection, id)
    name = f"{image.id}.{image.format}"
    return file_response(file, MEDIA_TYPES[image.format], name, f'"{image.sha256}"', attachment=True)


@router.get("/{id}/thumbnail", response_class=FileResponse)
async def get_thumbnail(
    library: LibraryDep,
    pool: DecodePoolDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    id: str,
    size: Annotated[int | None, Query(ge=16, le=1024, description="Longest side, in pixels.")] = None,
) -> FileResponse:
    """A small JPEG of a JPEG, a small WebP of all others, without their metadata."""
    usual = settings.thumbnail_size
    _, file = await threads.queries.run(open_thumbnail, library, pool, collection, id, size or usual, usual)
    path = Path(file.name)
    kind = "jpeg" if path.suffix == ".jpg" else "webp"
    made_at = int(os.fstat(file.fileno()).st_mtime)  # a thumbnail that is made again may look otherwise
    etag = f'W/"{path.stem}-{made_at}"'
    return file_response(file, MEDIA_TYPES[kind], f"{id}{path.suffix}", etag, attachment=False)


def upload_response(added: AddResult) -> tuple[int, ImageOut]:
    """The answer of an upload at the moment when it is stored."""
    answer = ImageOut.of(as_unconfirmed(added.image), duplicate=added.duplicate)
    return (200 if added.duplicate else 202), answer


def open_thumbnail(
    library: Library, pool: DecodePool, collection: str, id: str, size: int, usual: int
) -> tuple[Image, BinaryIO]:
    """A picture and its open thumbnail, made now if it is not there; `usual` is the size that every picture gets.

    Raises BlobMissing, Rejected, NotFound, Overloaded.
    """
    made = min((one for one in (*THUMBNAIL_SIZES, usual) if one >= size), default=THUMBNAIL_SIZES[-1])
    for _ in range(LOOKS):
        image, source = library.open_file(collection, id)
        source.close()
        path = library.thumbnail_path(image)
        if made != usual:
            path = path.with_stem(f"{image.sha256}-{made}")
        with suppress(FileNotFoundError):
            return image, open(path, "rb")
        with suppress(FileNotFoundError, BlobMissing):  # the picture is replaced or deleted meanwhile: look again
            return image, make_thumbnail(library, pool, image, path, made)
    raise Overloaded("this picture is replaced again and again; try again")


def make_thumbnail(library: Library, pool: DecodePool, image: Image, path: Path, size: int) -> BinaryIO:
    """Make a thumbnail and open it. Raises FileNotFoundError, BlobMissing, Rejected."""
    with map_os_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
    source = library.blobs.path(image.sha256)
    try:
        pool.submit(decode_picture, source, Preprocessing(size=16), pool.picture_limits, path, size).result()
        return open(path, "rb")
    finally:
        library.delete_unused_files([image.sha256])  # if the picture was deleted while it was decoded


def file_response(file: BinaryIO, media_type: str, name: str, etag: str, *, attachment: bool) -> OpenFileResponse:
    """A file with headers that let a browser do nothing with it but show a picture.

    A cache must ask each time whether it still has the right bytes: another picture may get the id.
    """
    kind = "attachment" if attachment else "inline"
    headers = {
        "Content-Disposition": f"{kind}; filename*=UTF-8''{quote(name)}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-cache",
    }
    return OpenFileResponse(file, media_type, headers, etag)


def parse_attributes(form: Form, filename: str) -> ImageAttributes:
    """The attributes of a picture in a form; the library checks their limits. Raises Validation."""
    try:
        metadata = json.loads(form.one("metadata") or "{}")
    except (ValueError, RecursionError):
        raise Validation("metadata must be a JSON object") from None
    if not isinstance(metadata, dict):
        raise Validation("metadata must be a JSON object")
    return ImageAttributes(
        id=form.one("id") or None,
        caption=form.one("caption") or None,
        tags=tuple(tag for tag in form.all("tags") if tag),
        metadata=metadata,
        source=filename[:MAX_NAME_CHARS] or None,
    )


async def wait_until_ready(
    waiter: ImageWaiter, library: Library, threads: ThreadPools, image: Image, seconds: float
) -> Image:
    """The picture once it is ready or failed, or as it is after `seconds`."""
    if seconds == 0 or image.status not in UNFINISHED:
        return image
    try:
        return await asyncio.wait_for(asyncio.wrap_future(waiter.watch(image)), seconds)
    except TimeoutError:
        return await threads.reads.run(library.get, image.collection, image.id)
