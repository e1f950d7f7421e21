"""Videos: add one, list, get, watch and delete them. Their frames are pictures, which searches find."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, Self

from fastapi import Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field

from app.api.admission import UPLOAD
from app.api.dependencies import (
    CollectionDep,
    DryRunQuery,
    JobsDep,
    LibraryDep,
    OptionalCollectionDep,
    SettingsDep,
    ThreadsDep,
    VideosDep,
    decode_cursor,
    encode_cursor,
    merge_query,
    open_incoming_folder,
    validate_collection,
)
from app.api.idempotency import IdempotencyDep, hash_form
from app.api.multipart import File, FormModel, describe_form, receive_form
from app.api.openapi import ANY_FILE, bytes_answer
from app.api.routes.images import MAX_NAME_CHARS, file_response, redirect_to_bucket
from app.api.routes.jobs import PriorityQuery, job_response, make_options
from app.api.schemas.fields import MAX_ENTRIES, MOST_TAGS, Caption, CollectionName, FormMetadata, FormTag
from app.api.schemas.images import DeleteOut
from app.api.schemas.jobs import JobOut
from app.api.strict_route import new_router
from app.core.clock import format_wall_time
from app.core.settings import Settings
from app.core.types import Job, Video
from app.decode.video_header import MEDIA_TYPES, read_video_header
from app.service.data_dir import picture_limits
from app.service.factory import video_limits
from app.storage.attributes import ImageAttributes, check_attributes
from app.storage.jobs import ReceivedFile

router = new_router("/v1/videos", "videos")
uploads = new_router("/v1/videos", "upload", UPLOAD)


class VideoForm(FormModel):
    """A video with the attributes of its frames."""

    file: File
    caption: Annotated[Caption | None, Field(description="Of every frame.", examples=["our trip"])] = None
    tags: Annotated[
        list[FormTag],
        MOST_TAGS,
        Field(max_length=MAX_ENTRIES, description="Of every frame; a field for each tag.", examples=[["trip"]]),
    ] = Field(default_factory=list)
    metadata: FormMetadata = Field(default_factory=dict)
    collection: CollectionName = None
    priority: Annotated[Literal["high", "normal", "low"] | None, Field(examples=["normal"])] = None


FORM = describe_form(VideoForm, file_type=", ".join(MEDIA_TYPES.values()))


class VideoOut(BaseModel):
    """A video. Its frames are the pictures whose `video_id` is its id."""

    id: str = Field(description="The SHA-256 of its file.")
    collection: str
    source: str | None = Field(description="The name that it came with.")
    format: Literal["mp4", "mov", "webm", "mkv"]
    codec: str
    bytes: int
    width: int = Field(description="Upright, with square pixels.")
    height: int
    duration_ms: int
    frames: int = Field(description="How many of its frames are pictures now.")
    taken_at: str | None = Field(description="When it begins, if it tells.")
    created_at: str
    job_id: str | None
    kept: bool = Field(description="Whether its file can be had.")

    @classmethod
    def of(cls, video: Video) -> Self:
        taken_at = format_wall_time(video.taken_at, video.taken_offset) if video.taken_at else None
        fields = {name: getattr(video, name) for name in cls.model_fields if name not in ("taken_at", "kept")}
        return cls(**fields, taken_at=taken_at, kept=video.is_kept)


class VideoPage(BaseModel):
    """Videos, newest first."""

    videos: list[VideoOut]
    next_cursor: str | None


@uploads.post("", status_code=202, openapi_extra=FORM, response_model=JobOut)
async def upload_video(
    request: Request,
    library: LibraryDep,
    jobs: JobsDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    idempotency: IdempotencyDep,
    priority: PriorityQuery = None,
) -> Any:
    """Add a video (MP4, MOV, WebM, MKV). A job makes pictures of its frames.

    `POST /v1/images/bulk` takes videos as well, among pictures and archives.
    """
    async with open_incoming_folder(library, threads) as folder:
        asked, form = await receive_form(request, folder, VideoForm, max_files=1)
        asked = merge_query(asked, collection=collection, priority=priority)
        collection = validate_collection(asked.collection)
        check_attributes(
            ImageAttributes(None, asked.caption, tuple(asked.tags), asked.metadata), library.metadata_limits
        )
        received = await threads.writes.run(check_video, asked, settings)
        async with idempotency.begin(partial(hash_form, form), Job, job_response) as call:
            if (replay := call.replay) is not None:
                return replay
            options = make_options(asked.priority, call.slot, None)
            begun = await threads.writes.run(jobs.add_files, collection, [received], options)
    return JobOut.of(begun)


def check_video(asked: VideoForm, settings: Settings) -> ReceivedFile:
    """The file of a form. Raises Rejected for one that is no video, or none that this server takes."""
    file = asked.file
    with open(file.path, "rb") as opened:
        read_video_header(opened, video_limits(settings), picture_limits(settings))
    fields = {"caption": asked.caption, "tags": asked.tags, "metadata": asked.metadata}
    return ReceivedFile(file.filename[:MAX_NAME_CHARS] or file.path.name, file.path, False, fields)


@router.get("")
async def list_videos(
    videos: VideosDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: str | None = None,
) -> VideoPage:
    """List videos, newest first."""
    found = await threads.reads.run(videos.list_page, collection, limit + 1, decode_cursor(cursor))
    page = found[:limit]
    next_cursor = encode_cursor(page[-1].key) if len(found) > limit else None
    return VideoPage(videos=[VideoOut.of(one) for one in page], next_cursor=next_cursor)


@router.get("/{id}")
async def get_video(videos: VideosDep, threads: ThreadsDep, collection: CollectionDep, id: str) -> VideoOut:
    """Get one video."""
    return VideoOut.of(await threads.reads.run(videos.get, collection, id))


@router.get("/{id}/file", response_class=FileResponse, responses={200: bytes_answer(*MEDIA_TYPES.values(), ANY_FILE)})
async def get_video_file(
    videos: VideosDep, settings: SettingsDep, threads: ThreadsDep, collection: CollectionDep, id: str
) -> Response:
    """Get the bytes of a video as they were sent, or a range of them, as players ask. A server with presigned reads
    redirects to the bucket (307)."""
    if settings.media_reads == "presigned" and (url := await threads.reads.run(videos.sign_file, collection, id)):
        return redirect_to_bucket(url)
    video, file = await threads.reads.run(videos.open_file, collection, id)
    name = f"{video.id[:16]}.{video.format}"
    return file_response(file, MEDIA_TYPES[video.format], name, f'"{video.id}"', attachment=False)


@router.delete("/{id}", status_code=204, response_model=None, responses={200: {"model": DeleteOut[VideoOut]}})
async def delete_video(
    videos: VideosDep, threads: ThreadsDep, collection: CollectionDep, id: str, dry_run: DryRunQuery = None
) -> Response | None:
    """Delete a video, its file and its frames. No search sent after this answer finds them."""
    if dry_run:
        found = VideoOut.of(await threads.reads.run(videos.get, collection, id))
        return JSONResponse(DeleteOut.dry_run(found).model_dump())
    await threads.writes.run(videos.delete, collection, id)
    return None
