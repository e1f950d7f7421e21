"""Pictures: add, list, get, change, delete, and their bytes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.admission import PICTURE
from app.api.arrangement import (
    FacetSizeQuery,
    FacetsOut,
    FacetsQuery,
    OrderQuery,
    decode_place,
    encode_place,
    facets_out,
    parse_facets,
    parse_list_order,
    split_fields,
)
from app.api.concurrency import ThreadPools
from app.api.dependencies import (
    CollectionDep,
    DecodePoolDep,
    DryRunQuery,
    FilterQuery,
    ImageWaiterDep,
    LibraryDep,
    OptionalCollectionDep,
    SearchDep,
    SettingsDep,
    ThreadsDep,
    decode_cursor,
    encode_cursor,
    merge_query,
    open_incoming_folder,
    parse_filter_parameter,
    validate_collection,
)
from app.api.errors import failed_problem, respond
from app.api.files import OpenFileResponse
from app.api.idempotency import IdempotencyDep, hash_form
from app.api.multipart import describe_form, receive_form
from app.api.openapi import ANY_FILE, bytes_answer
from app.api.read_after_write import AfterDep, WriteToken, set_token
from app.api.schemas.fields import REPLACE, WAIT, CollectionName, RequestModel, example
from app.api.schemas.images import (
    DeleteIn,
    DeleteOut,
    ImageOut,
    ImagePage,
    ImagePatch,
    UploadForm,
    UploadOut,
    VectorOut,
    WarningOut,
)
from app.api.strict_route import new_router
from app.core.errors import (
    BlobMissing,
    ImageTooLarge,
    Overloaded,
    StorageFull,
    StorageUnavailable,
    UnsupportedMediaType,
    Validation,
    map_os_errors,
)
from app.core.picture_formats import find_download, list_file_types
from app.core.types import AnswerWarning, Image, Preprocessing, Status
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile
from app.decode.video_header import is_video_file
from app.service.image_waiter import UNFINISHED, ImageWaiter
from app.service.search_service import SearchService, as_unconfirmed
from app.storage.attributes import ImageAttributes, check_tags
from app.storage.filters.model import Field as ValueField
from app.storage.filters.model import Filter
from app.storage.filters.parser import parse_filter
from app.storage.filters.values import Order
from app.storage.library import AddResult, Library

router = new_router("/v1/images", "images")
uploads = new_router("/v1/images", "upload", PICTURE)

FORM = describe_form(UploadForm)
THUMBNAIL_SIZES = (64, 128, 256, 320, 512, 1024, 2048)  # others are rounded up
DROPPED = ("generated_caption",)  # fields of a change that may be null alone
LOOKS = 10  # for the file of a picture that is replaced at the same time
MAX_VECTORS = 100  # of a list: a megabyte of JSON
VECTORS = "Also give the vector of each picture; limit is 100 at most."
VIDEO = "this is a video; send it to POST /v1/videos (or /v1/images/bulk), which answer with a job"
MAX_NAME_CHARS = 255  # of the sender's file name, which is display text only


class KnownIn(RequestModel):
    """The SHA-256 digests of files that a client has."""

    model_config = ConfigDict(json_schema_extra=example(sha256=["0" * 64]))

    sha256: Annotated[list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]], Field(max_length=1000)]
    collection: CollectionName = None


class KnownOut(BaseModel):
    """Those of them that are stored already, and what of caption, tags and metadata each of these lacks."""

    sha256: list[str]
    lacks: dict[str, list[str]]


@uploads.post("", status_code=202, openapi_extra=FORM, response_model=UploadOut, responses={200: {"model": UploadOut}})
async def upload_image(
    request: Request,
    response: Response,
    library: LibraryDep,
    search: SearchDep,
    waiter: ImageWaiterDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    idempotency: IdempotencyDep,
    wait: Annotated[float | None, Query(ge=0, le=60, description=WAIT)] = None,
    replace: Annotated[bool | None, Query(description=REPLACE)] = None,
) -> Any:
    """Add one picture. 202 when it is safely stored, 200 when it is ready, or was stored already.

    422 with the code of its error, and its id, when it failed within `wait`.
    """
    async with open_incoming_folder(library, threads) as folder:
        asked, form = await receive_form(request, folder, UploadForm, max_files=1)
        asked = merge_query(asked, collection=collection, wait=wait, replace=replace)
        collection = validate_collection(asked.collection)
        file, replaces = asked.file, bool(asked.replace)
        async with idempotency.begin(partial(hash_form, form), AddResult, upload_response) as call:
            if (replay := call.replay) is not None:
                return replay
            attributes = attributes_of(asked)
            added = await threads.writes.run(
                add_picture, library, collection, file.path, attributes, replaces, call.slot
            )
            image = added.image
            if not added.duplicate:
                image = await wait_until_ready(waiter, library, threads, image, asked.wait or 0.0)
            image = await threads.reads.run(search.confirm_image, image)
            set_token(request, WriteToken.of_image(image))
            if image.status is Status.FAILED and image.error is not None:
                failed = failed_problem(request, image.id, image.error)
                await call.finish(added, failed.status, failed)
                return respond(failed)
            if added.duplicate or image.status is Status.READY:
                response.status_code = 200
            answer = upload_out(image, added, warn_of_tags(asked.tags))
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
    order_by: OrderQuery = None,
    facets: FacetsQuery = None,
    facet_size: FacetSizeQuery = 10,
    *,
    after: AfterDep,
    vectors: Annotated[bool, Query(description=VECTORS)] = False,
) -> ImagePage:
    """List pictures, newest first, or in another order."""
    order, parsed = parse_list_order(order_by), parse_filter_parameter(filter, "images")
    fields = parse_facets(split_fields(facets), "images")
    if vectors and limit > MAX_VECTORS:
        raise Validation(f"a list with vectors has {MAX_VECTORS} pictures at most; set limit, got {limit}")
    await after.wait(collection, "images")
    list_page = prepare_page(library, collection, limit, cursor, parsed, order)
    pool = threads.reads if parsed is None and order is None else threads.queries  # it may have to look at every row
    found, next_cursor = await pool.run(list_page)
    page = await threads.reads.run(search.confirm_images, found)
    stored = await threads.reads.run(library.get_vectors, page) if vectors else {}
    is_short = not cursor and next_cursor is None
    return ImagePage(
        images=[ImageOut.of(image, vector=stored.get(image.key)) for image in page],
        next_cursor=next_cursor,
        warnings=await explain_filter(library, threads, collection, parsed) if is_short else [],
        total=await pool.run(library.count_images, collection, parsed) if count else None,
        facets=await threads.queries.run(count_listed, search, collection, fields, facet_size, parsed),
    )


def add_picture(library: Library, collection: str, path: Path, *given: Any) -> AddResult:
    """`Library.add`; says of a video where it must be sent."""
    try:
        return library.add(collection, path, *given)
    except (UnsupportedMediaType, ImageTooLarge):
        with map_os_errors(), open(path, "rb") as file:
            if is_video_file(file):
                raise UnsupportedMediaType(VIDEO) from None
        raise


def prepare_page(
    library: Library, collection: str, limit: int, cursor: str | None, filter: Filter | None, order: Order | None
) -> Callable[[], tuple[list[Image], str | None]]:
    """A call that gives a page of a list, and the cursor of the next one. Raises BadRequest."""
    if order is None:
        before = decode_cursor(cursor)

        def list_newest() -> tuple[list[Image], str | None]:
            found = library.list_images(collection, limit + 1, before, filter)
            return found[:limit], encode_cursor(found[limit - 1].key) if len(found) > limit else None

        return list_newest
    after = decode_place(order, cursor)

    def list_ordered() -> tuple[list[Image], str | None]:
        found = library.list_ordered(collection, limit + 1, order, after, filter)
        place = found[limit - 1][0] if len(found) > limit else None
        return [image for _, image in found[:limit]], encode_place(order, place) if place else None

    return list_ordered


def count_listed(
    search: SearchService, collection: str, fields: Sequence[ValueField], size: int, filter: Filter | None
) -> FacetsOut | None:
    """The facets of a list, of pictures that are not ready too; None if there are none to count."""
    if not fields:
        return None
    return facets_out(search.facets.count(collection, "images", fields, size, filter, is_search=False))


@router.post("/known")
async def find_known_images(
    library: LibraryDep, threads: ThreadsDep, collection: OptionalCollectionDep, body: KnownIn
) -> KnownOut:
    """Say which files are pictures of the collection already. A client need not send them."""
    collection = validate_collection(merge_query(body, collection=collection).collection)
    known = await threads.reads.run(library.find_known, collection, body.sha256)
    return KnownOut(sha256=list(known), lacks={digest: lacks for digest, lacks in known.items() if lacks})


@router.post("/delete")
async def delete_images(
    library: LibraryDep,
    search: SearchDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    body: DeleteIn,
    dry_run: DryRunQuery = None,
) -> DeleteOut[ImageOut]:
    """Delete the pictures that match a filter. Pictures that are added meanwhile stay."""
    body = merge_query(body, collection=collection, dry_run=dry_run)
    collection = validate_collection(body.collection)
    filter = parse_filter(body.selected_filter(), "images")
    if filter.matches_everything and not body.all:
        raise Validation('filter: this one has no condition; to delete every picture, send {"all": true}')
    keys, examples = await threads.queries.run(library.find_matching, collection, filter)
    warnings = await explain_filter(library, threads, collection, filter)
    if body.dry_run:
        shown = [ImageOut.of(image) for image in await threads.reads.run(search.confirm_images, examples)]
        return DeleteOut(matched=len(keys), deleted=0, examples=shown, warnings=warnings)
    deleted = await threads.writes.run(library.delete_matching, collection, filter, keys)
    return DeleteOut(matched=len(keys), deleted=deleted, examples=[], warnings=warnings)


async def explain_filter(
    library: Library, threads: ThreadsDep, collection: str, filter: Filter | None
) -> list[WarningOut]:
    """What is odd about a filter that let through less than asked for."""
    if filter is None or not filter.compared:
        return []
    return [WarningOut.of(one) for one in await threads.queries.run(library.explain_filter, collection, filter)]


@router.get("/{id}")
async def get_image(
    request: Request, library: LibraryDep, search: SearchDep, threads: ThreadsDep, collection: CollectionDep, id: str
) -> ImageOut:
    """Get one picture."""
    image = await threads.reads.run(lambda: search.confirm_image(library.get(collection, id)))
    set_token(request, WriteToken.of_image(image))
    return ImageOut.of(image)


@router.patch("/{id}")
async def update_image(
    library: LibraryDep,
    search: SearchDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    id: str,
    patch: ImagePatch,
) -> ImageOut:
    """Change caption, tags or metadata, reject auto-tags, or delete a generated caption. What is not sent stays."""
    sent = patch.model_fields_set

    def change(image: Image) -> ImageAttributes:
        return ImageAttributes(
            caption=patch.caption if "caption" in sent else image.caption,
            tags=tuple(patch.tags or ()) if "tags" in sent else image.tags,
            metadata=(patch.metadata or {}) if "metadata" in sent else image.metadata,
        )

    check_tags(patch.rejected_tags or ())
    drops = [name for name in DROPPED if name in sent]
    rejected = (patch.rejected_tags or []) if "rejected_tags" in sent else None
    image = await threads.writes.run(library.update, collection, id, change, drops, rejected)
    return ImageOut.of(await threads.reads.run(search.confirm_image, image))


@router.delete("/{id}", status_code=204, response_model=None, responses={200: {"model": DeleteOut[ImageOut]}})
async def delete_image(
    library: LibraryDep,
    search: SearchDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    id: str,
    dry_run: DryRunQuery = None,
) -> Response | None:
    """Delete a picture. No search sent after this answer finds it."""
    if dry_run:
        image = await threads.reads.run(lambda: search.confirm_image(library.get(collection, id)))
        return JSONResponse(DeleteOut.dry_run(ImageOut.of(image)).model_dump())
    await threads.writes.run(library.delete, collection, id)
    return None


@router.get("/{id}/vector")
async def get_image_vector(library: LibraryDep, threads: ThreadsDep, collection: CollectionDep, id: str) -> VectorOut:
    """Get the stored vector of a picture."""
    image, vector, space = await threads.reads.run(library.get_vector, collection, id)
    return VectorOut(id=image.id, vector=vector, d=len(vector), space=space.fingerprint, model=space.model)


@router.get("/{id}/file", response_class=FileResponse, responses={200: bytes_answer(*list_file_types(), ANY_FILE)})
async def get_image_file(
    library: LibraryDep, settings: SettingsDep, threads: ThreadsDep, collection: CollectionDep, id: str
) -> Response:
    """Get the bytes of a picture as they were sent. Browsers do not show HEIC, TIFF, JPEG XL, JPEG 2000 and RAW files;
    a thumbnail of 2048 pixels is for them. A server with presigned reads redirects to the bucket (307)."""
    if settings.media_reads == "presigned" and (url := await threads.reads.run(library.sign_file, collection, id)):
        return redirect_to_bucket(url)
    image, file = await threads.reads.run(library.open_file, collection, id)
    media_type, suffix = find_download(image.format, image.source)
    return file_response(file, media_type, f"{image.id}{suffix}", f'"{image.sha256}"', attachment=True)


@router.get(
    "/{id}/thumbnail",
    response_class=FileResponse,
    responses={200: bytes_answer("image/jpeg", "image/webp", ANY_FILE)},
)
async def get_image_thumbnail(
    library: LibraryDep,
    pool: DecodePoolDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    id: str,
    size: Annotated[int | None, Query(ge=16, le=2048, description="Longest side, in pixels.")] = None,
) -> FileResponse:
    """Get a thumbnail. It is a JPEG of a JPEG, HEIC or RAW file, a WebP of all others, without their metadata."""
    usual = settings.thumbnail_size
    _, file = await threads.queries.run(open_thumbnail, library, pool, collection, id, size or usual, usual)
    path = Path(file.name)
    kind = "jpeg" if path.suffix == ".jpg" else "webp"
    made_at = int(os.fstat(file.fileno()).st_mtime)  # a thumbnail that is made again may look otherwise
    etag = f'W/"{path.stem}-{made_at}"'
    return file_response(file, f"image/{kind}", f"{id}{path.suffix}", etag, attachment=False)


def upload_response(added: AddResult) -> tuple[int, ImageOut]:
    """The answer of an upload at the moment when it is stored."""
    return (200 if added.duplicate else 202), upload_out(as_unconfirmed(added.image), added)


def upload_out(image: Image, added: AddResult, warnings: Sequence[AnswerWarning] = ()) -> UploadOut:
    record = ImageOut.of(image, duplicate=added.duplicate)
    filled, kept = list(added.filled), list(added.kept)
    found = [WarningOut.of(one) for one in (*added.warnings, *warnings)]
    return UploadOut(**dict(record), filled=filled, kept=kept, warnings=found)


def warn_of_tags(tags: Sequence[str]) -> list[AnswerWarning]:
    """A warning about what is one tag, and was perhaps meant as several."""
    if len(tags) != 1 or "," not in tags[0]:
        return []
    detail = "this is one tag with a comma in it; send the field tags once for each tag"
    return [AnswerWarning("tag_with_comma", detail, "tags")]


def open_thumbnail(
    library: Library, pool: DecodePool, collection: str, id: str, size: int, usual: int
) -> tuple[Image, BinaryIO]:
    """A picture and its open thumbnail, made now if it is not there; `usual` is the size that every picture gets.

    Raises BlobMissing, Rejected, NotFound, Overloaded.
    """
    made = min((one for one in (*THUMBNAIL_SIZES, usual) if one >= size), default=THUMBNAIL_SIZES[-1])
    for _ in range(LOOKS):
        image = library.check_file(collection, id)
        path = library.thumbnail_path(image)
        if made != usual:
            path = path.with_stem(f"{image.sha256}-{made}")
        if (found := library.blobs.fetch_thumbnail(path)) is not None:
            return image, found
        with suppress(FileNotFoundError, BlobMissing):  # the picture is replaced or deleted meanwhile: look again
            return image, make_thumbnail(library, pool, image, path, made)
    raise Overloaded("this picture is replaced again and again; try again")


def make_thumbnail(library: Library, pool: DecodePool, image: Image, path: Path, size: int) -> BinaryIO:
    """Make a thumbnail and open it. Raises FileNotFoundError, BlobMissing, Rejected."""
    with map_os_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with library.blobs.fetch(image.sha256) as source:
            given = (source.path, Preprocessing(size=16), pool.picture_limits, OutputFile(path), size)
            pool.submit(decode_picture, *given).result()
        file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
        with suppress(StorageUnavailable, StorageFull):  # another request makes it again
            library.blobs.keep_thumbnail(path)
        return file
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


def redirect_to_bucket(url: str) -> RedirectResponse:
    """An answer that no cache keeps, as the URL is good for a short time only."""
    return RedirectResponse(url, 307, headers={"Cache-Control": "no-store"})


def attributes_of(asked: UploadForm) -> ImageAttributes:
    """The attributes of the picture in a form; the library checks their limits."""
    source = asked.file.filename[:MAX_NAME_CHARS] or None
    return ImageAttributes(asked.id, asked.caption, tuple(asked.tags), asked.metadata, source)


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
