"""Pictures: add, list, get, change, delete, and their bytes."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import anyio
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from app.api.concurrency import ThreadPools
from app.api.dependencies import (
    CollectionDep,
    FilterQuery,
    OptionalCollectionDep,
    ServiceDep,
    ThreadPoolsDep,
    decode_cursor,
    encode_cursor,
    open_incoming_folder,
    parse_filter_parameter,
    validate_collection,
)
from app.api.idempotency import IdempotencyKeyHeader, begin_idempotent, hash_form
from app.api.multipart import Form, receive_form
from app.api.schemas import DeleteIn, DeleteOut, ImageOut, ImagePage, ImagePatch
from app.core.errors import BlobMissing, Validation, map_os_errors
from app.core.types import Image, Preprocessing, Status
from app.decode.picture import decode_picture
from app.service.service import Service
from app.storage.attributes import ImageAttributes
from app.storage.filters.parser import parse_filter
from app.storage.library import Added

router = APIRouter(prefix="/v1/images", tags=["images"])
uploads = APIRouter(prefix="/v1/images", tags=["images"])

MEDIA_TYPES = {f: f"image/{f}" for f in ("jpeg", "png", "webp", "gif", "avif")}
THUMBNAILS = (64, 128, 256, 320, 512, 1024)  # sizes that are made; others are rounded up
WAIT_STEP = 0.02
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
    """Bytes that somebody has, by their SHA-256."""

    model_config = ConfigDict(extra="forbid")

    sha256: Annotated[list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]], Field(max_length=1000)]
    collection: str | None = None


class KnownOut(BaseModel):
    """Those of them that are here already."""

    sha256: list[str]


@uploads.post("", status_code=202, openapi_extra=FORM, response_model=ImageOut, responses={200: {"model": ImageOut}})
async def add_image(
    request: Request,
    response: Response,
    service: ServiceDep,
    lanes: ThreadPoolsDep,
    collection: OptionalCollectionDep,
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds to wait until it is ready.")] = 0.0,
    replace: Annotated[bool, Query(description="Replace the bytes that this id has.")] = False,
    key: IdempotencyKeyHeader = None,
) -> Any:
    """Add one picture. 202 when it is safely stored, 200 when it is ready, or was here already."""
    async with open_incoming_folder(service, lanes) as folder:
        form = await receive_form(request, folder, max_files=1)
        file = form.file()
        collection = validate_collection(form.one("collection") or collection)
        said = parse_attributes(form, file.filename)
        async with begin_idempotent(request, service, lanes, partial(hash_form, form)) as repeat:
            if (replay := repeat.replay) is not None:
                return replay
            note = repeat.noting(upload_response)
            added = await lanes.writes.run(service.library.add, collection, file.path, said, replace, note)
            image = added.image if added.duplicate else await wait_until_ready(service, lanes, added.image, wait)
            settled = await lanes.reads.run(service.settled, [image])
            if added.duplicate or (image.status is Status.READY and settled):
                response.status_code = 200
            answer = ImageOut.of(image, duplicate=added.duplicate, settled=settled)
            await repeat.final(response.status_code or 202, answer)
    return answer


@router.get("")
async def list_images(
    service: ServiceDep,
    lanes: ThreadPoolsDep,
    collection: CollectionDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: str | None = None,
    filter: FilterQuery = None,
) -> ImagePage:
    """Pictures, newest first."""
    before, only = decode_cursor(cursor), parse_filter_parameter(filter, "images")
    lane = lanes.reads if only is None else lanes.queries  # it may have to look at every row
    found = await lane.run(service.library.page, collection, limit + 1, before, only)
    page = found[:limit]
    settled = await lanes.reads.run(service.settled, page)
    return ImagePage(
        images=[ImageOut.of(image, settled=settled) for image in page],
        next_cursor=encode_cursor(page[-1].key) if len(found) > limit else None,
    )


@router.post("/known")
async def known_images(
    service: ServiceDep, lanes: ThreadPoolsDep, collection: OptionalCollectionDep, body: KnownIn
) -> KnownOut:
    """Which bytes are pictures of the collection already, so that they need not be sent."""
    collection = validate_collection(body.collection or collection)
    return KnownOut(sha256=await lanes.reads.run(service.library.known, collection, body.sha256))


@router.post("/delete")
async def delete_images(
    service: ServiceDep, lanes: ThreadPoolsDep, collection: OptionalCollectionDep, body: DeleteIn
) -> DeleteOut:
    """Delete the pictures that a filter lets through; those that come meanwhile stay."""
    collection = validate_collection(body.collection or collection)
    filter = parse_filter(body.chosen(), "images")
    if filter.matches_everything and not body.all:
        raise Validation('filter: this one has no condition; to delete every picture, send {"all": true}')
    library = service.library
    keys, examples = await lanes.queries.run(library.matching, collection, filter)
    if body.dry_run:
        settled = await lanes.reads.run(service.settled, examples)
        shown = [ImageOut.of(image, settled=settled) for image in examples]
        return DeleteOut(matched=len(keys), deleted=0, examples=shown)
    deleted = await lanes.writes.run(library.delete_matching, collection, filter, keys)
    return DeleteOut(matched=len(keys), deleted=deleted, examples=[])


@router.get("/{id}")
async def get_image(service: ServiceDep, lanes: ThreadPoolsDep, collection: CollectionDep, id: str) -> ImageOut:
    """One picture."""
    image = await lanes.reads.run(service.library.get, collection, id)
    return ImageOut.of(image, settled=await lanes.reads.run(service.settled, [image]))


@router.patch("/{id}")
async def update_image(
    service: ServiceDep, lanes: ThreadPoolsDep, collection: CollectionDep, id: str, patch: ImagePatch
) -> ImageOut:
    """Change caption, tags or metadata; what is not sent stays."""
    sent = patch.model_fields_set

    def change(image: Image) -> ImageAttributes:
        return ImageAttributes(
            caption=patch.caption if "caption" in sent else image.caption,
            tags=tuple(patch.tags or ()) if "tags" in sent else image.tags,
            metadata=(patch.metadata or {}) if "metadata" in sent else image.metadata,
        )

    image = await lanes.writes.run(service.library.update, collection, id, change)
    return ImageOut.of(image, settled=await lanes.reads.run(service.settled, [image]))


@router.delete("/{id}", status_code=204)
async def delete_image(service: ServiceDep, lanes: ThreadPoolsDep, collection: CollectionDep, id: str) -> None:
    """Delete a picture: no search sent after this answer finds it."""
    await lanes.writes.run(service.library.delete, collection, id)


@router.get("/{id}/file", response_class=FileResponse)
async def get_file(service: ServiceDep, lanes: ThreadPoolsDep, collection: CollectionDep, id: str) -> FileResponse:
    """The bytes as they were sent."""
    image, path = await lanes.reads.run(service.library.file, collection, id)
    return file_response(path, MEDIA_TYPES[image.format], f"{image.id}.{image.format}", attachment=True)


@router.get("/{id}/thumbnail", response_class=FileResponse)
async def get_thumbnail(
    service: ServiceDep,
    lanes: ThreadPoolsDep,
    collection: CollectionDep,
    id: str,
    size: Annotated[int | None, Query(ge=16, le=1024, description="Longest side, in pixels.")] = None,
) -> FileResponse:
    """A small JPEG of a JPEG, a small WebP of all others, without their metadata."""
    path = await lanes.queries.run(ensure_thumbnail, service, collection, id, size)
    kind = "jpeg" if path.suffix == ".jpg" else "webp"
    return file_response(path, MEDIA_TYPES[kind], f"{id}{path.suffix}", attachment=False)


def upload_response(added: Added) -> tuple[int, ImageOut]:
    """The answer of an upload at the moment when it is stored."""
    return (200 if added.duplicate else 202), ImageOut.of(added.image, duplicate=added.duplicate, settled=False)


def ensure_thumbnail(service: Service, collection: str, id: str, size: int | None) -> Path:
    """The path of a thumbnail, made now if it is not there. Raises BlobMissing, Rejected, NotFound."""
    image, source = service.library.file(collection, id)
    usual = service.settings.thumbnail_size
    wanted = usual if size is None else min((s for s in (*THUMBNAILS, usual) if s >= size), default=THUMBNAILS[-1])
    path = service.library.blobs.thumbnail(image.sha256, image.format)
    if wanted != usual:
        path = path.with_stem(f"{image.sha256}-{wanted}")
    if not path.exists():
        with map_os_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
        limits = service.pool.picture_limits
        service.pool.submit(decode_picture, source, Preprocessing(size=16), limits, path, wanted).result()
    return path


class ImageFileResponse(FileResponse):
    """A file whose refusals (of a range, or because it has just gone) have the shape of all others."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and message["status"] >= 400:
                size = Headers(raw=message["headers"]).get("content-range")
                headers = {"Content-Range": size} if size else None
                raise HTTPException(message["status"], "this range of the file cannot be served", headers)
            begun = True
            await send(message)

        try:
            await super().__call__(scope, receive, sending)
        except RuntimeError as error:  # Starlette's word for a file that is not there
            if begun:
                raise
            raise BlobMissing("the file of this picture is missing; run `sightline verify`") from error


def file_response(path: Path, media_type: str, name: str, *, attachment: bool) -> FileResponse:
    """A file with headers that keep a browser from doing anything but show it as a picture."""
    kind = "attachment" if attachment else "inline"
    return ImageFileResponse(
        path,
        media_type=media_type,
        headers={
            "Content-Disposition": f"{kind}; filename*=UTF-8''{quote(name)}",
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "Cache-Control": "private, max-age=60",
        },
    )


def parse_attributes(form: Form, filename: str) -> ImageAttributes:
    """What a form says about its picture; the library checks its bounds. Raises Validation."""
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


async def wait_until_ready(service: Service, lanes: ThreadPools, image: Image, seconds: float) -> Image:
    """The picture once it is ready or failed, or as it is when the time is over."""
    deadline = time.monotonic() + seconds
    while image.status in (Status.QUEUED, Status.PROCESSING) and time.monotonic() < deadline:
        await anyio.sleep(WAIT_STEP)
        image = await lanes.reads.run(service.library.get, image.collection, image.id)
    return image
