"""Bulk uploads, and the jobs that import them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.api.admission import UPLOAD
from app.api.auth import AccessDep
from app.api.concurrency import ThreadPools
from app.api.dependencies import (
    ALLOWED_COLLECTIONS,
    JobsDep,
    LibraryDep,
    OptionalCollectionDep,
    SearchDep,
    SettingsDep,
    ThreadsDep,
    decode_cursor,
    encode_cursor,
    is_collection_allowed,
    merge_query,
    open_incoming_folder,
    validate_collection,
)
from app.api.idempotency import IdempotencyDep, hash_form
from app.api.job_events import JobEvents
from app.api.multipart import FormFile, describe_form, receive_form
from app.api.openapi import CollectionText, text_answer
from app.api.read_after_write import WriteToken, set_token
from app.api.schemas.images import BulkForm
from app.api.schemas.jobs import ItemOut, ItemPage, JobOut, JobsOut
from app.api.strict_route import new_router
from app.core.errors import NotFound, PayloadTooLarge, Validation
from app.core.types import ItemStatus, Job, JobState, Priority
from app.decode.headers import ARCHIVE_HEAD, detect_archive
from app.storage.idempotency import ResponseSlot
from app.storage.jobs import JobOptions, JobService, ReceivedFile

bulk = new_router("/v1/images", "upload", UPLOAD)
router = new_router("/v1/jobs", "jobs")

LOOK_SECONDS = 2.0  # without an event, after which a stream looks whether somebody still reads it, and may
REPORT = "application/x-ndjson"
PAGE = 1000  # items of a report that are read at once
PriorityQuery = Annotated[
    Literal["high", "normal", "low"] | None,
    Query(description="Whose pictures come first while several jobs wait (normal)."),
]
JobQuery = Annotated[str | None, Query(description="Add to this job of the same collection, in place of a new one.")]
FORM = describe_form(BulkForm)


async def find_job(jobs: JobsDep, threads: ThreadsDep, id: str) -> Job:
    job = await threads.reads.run(jobs.get, id)
    if not is_collection_allowed(job.collection):
        raise NotFound(f"there is no job {id!r}")
    return job


async def get_job_events(request: Request) -> JobEvents:
    events = request.app.state.job_events
    assert isinstance(events, JobEvents)
    return events


JobDep = Annotated[Job, Depends(find_job)]
JobEventsDep = Annotated[JobEvents, Depends(get_job_events)]


@bulk.post("/bulk", status_code=202, openapi_extra=FORM, response_model=JobOut)
async def upload_images(
    request: Request,
    library: LibraryDep,
    jobs: JobsDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    idempotency: IdempotencyDep,
    priority: PriorityQuery = None,
    job: JobQuery = None,
) -> Any:
    """Add any number of pictures and archives (zip, tar, tar.gz). A job imports them."""
    async with open_incoming_folder(library, threads) as folder:
        asked, form = await receive_form(request, folder, BulkForm, settings.max_archive_members)
        asked = merge_query(asked, collection=collection, priority=priority)
        collection = validate_collection(asked.collection)
        files = await threads.writes.run(collect_uploads, form.files, settings.max_archive_bytes)
        async with idempotency.begin(partial(hash_form, form), Job, job_response) as call:
            if (replay := call.replay) is not None:
                return replay
            options = make_options(asked.priority, call.slot, job, asked.left_out)
            begun = await threads.writes.run(jobs.add_files, collection, files, options)
    return JobOut.of(begun)


@router.get("")
async def list_jobs(
    jobs: JobsDep,
    threads: ThreadsDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    collection: Annotated[CollectionText | None, Query(description="Only those of this collection.")] = None,
    state: Annotated[JobState | None, Query(description="Only those in this state.")] = None,
) -> JobsOut:
    """List jobs, newest first."""
    named = None if collection is None else validate_collection(collection)
    found = await threads.reads.run(jobs.list_recent, limit, ALLOWED_COLLECTIONS.get(), named, state)
    return JobsOut(jobs=[JobOut.of(job) for job in found])


@router.get("/{id}")
async def get_job(request: Request, search: SearchDep, threads: ThreadsDep, job: JobDep) -> JobOut:
    """Get a job. It says how far it is, how fast, and how long it will take."""
    confirmed = await threads.reads.run(search.confirm_job, job)
    set_token(request, WriteToken.of_job(confirmed))
    return JobOut.of(confirmed)


@router.get("/{id}/items", response_model=ItemPage, responses={200: text_answer(REPORT)})
async def list_job_items(
    request: Request,
    jobs: JobsDep,
    threads: ThreadsDep,
    job: JobDep,
    status: ItemStatus | None = None,
    warned: Annotated[bool, Query(description="Only items with warnings.")] = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
    format: Annotated[Literal["json", "ndjson"] | None, Query(description="Instead of the header Accept.")] = None,
) -> Any:
    """List the items of a job. `status=failed` shows just those that need a look.

    All of them at once, one a line, for `Accept: application/x-ndjson`; `limit` means nothing there.
    """
    after = decode_cursor(cursor) or 0
    if format == "ndjson" or (format is None and REPORT in request.headers.get("accept", "")):
        name = {"Content-Disposition": f'attachment; filename="job-{job.id}.ndjson"'}
        return StreamingResponse(
            stream_items(jobs, threads, job, status, after, warned=warned), media_type=REPORT, headers=name
        )
    found = await threads.reads.run(jobs.list_items, job.id, status, after, limit + 1, warned=warned)
    page = found[:limit]
    return ItemPage(
        items=[ItemOut.of(item) for _, item in page],
        next_cursor=encode_cursor(page[-1][0]) if len(found) > limit else None,
    )


@router.post("/{id}/pause")
async def pause_job(jobs: JobsDep, threads: ThreadsDep, job: JobDep) -> JobOut:
    """Pause a job. Workers finish what they have begun."""
    return JobOut.of(await threads.writes.run(jobs.pause, job.id))


@router.post("/{id}/resume")
async def resume_job(jobs: JobsDep, threads: ThreadsDep, job: JobDep) -> JobOut:
    """Resume a paused job."""
    return JobOut.of(await threads.writes.run(jobs.resume, job.id))


@router.post("/{id}/cancel")
async def cancel_job(jobs: JobsDep, threads: ThreadsDep, job: JobDep) -> JobOut:
    """Cancel a job. What is ready stays; what still waits fails with `cancelled`, and can be retried."""
    return JobOut.of(await threads.writes.run(jobs.cancel, job.id))


@router.post("/{id}/retry")
async def retry_job(jobs: JobsDep, threads: ThreadsDep, job: JobDep) -> JobOut:
    """Retry the failed items of a job. Those whose bytes are stored, and those whose bytes never came (URLs, files).

    A warning says how many stay failed because their bytes were refused.
    """
    return JobOut.of(await threads.writes.run(jobs.retry, job.id))


async def count_stream(request: Request, events: JobEventsDep) -> AsyncIterator[None]:
    """One stream of its caller. Raises RateLimited, Overloaded."""
    with events.count(request.scope["caller"]):
        yield


@router.get("/{id}/events", response_class=EventSourceResponse, dependencies=[Depends(count_stream)])
async def follow_job(
    request: Request, events: JobEventsDep, access: AccessDep, job: JobDep
) -> AsyncIterator[ServerSentEvent]:
    """Follow a job as server-sent events. At most two a second; the last one at its end."""
    async with aclosing(events.follow(job, LOOK_SECONDS)) as followed:
        async for now in followed:
            if await request.is_disconnected() or not access.still_admits(request.scope, job.collection):
                return
            if now is not None:
                yield ServerSentEvent(data=now, event="job")


async def stream_items(
    jobs: JobService, threads: ThreadPools, job: Job, status: ItemStatus | None, after: int, *, warned: bool
) -> AsyncIterator[bytes]:
    """Every item as a line of JSON in ASCII: no line holds a character that a terminal or an editor would act on."""
    while found := await threads.reads.run(jobs.list_items, job.id, status, after, PAGE, warned=warned):
        yield b"".join(json.dumps(ItemOut.of(item).model_dump()).encode() + b"\n" for _, item in found)
        after = found[-1][0]
    await threads.reads.run(jobs.get, job.id)  # if it was deleted meanwhile, the report is cut off: it is not whole


def make_options(
    priority: str | None, slot: ResponseSlot | None, job: str | None, left_out: Mapping[str, int] | None = None
) -> JobOptions:
    """What a request says of its job. Raises Validation."""
    if job is not None and priority is not None:
        raise Validation("priority belongs to a new job; a job that exists keeps its own")
    return JobOptions(Priority(priority or "normal"), slot, job, left_out or {})


def job_response(job: Job) -> tuple[int, JobOut]:
    """The answer to the request that began a job."""
    return 202, JobOut.of(job)


def collect_uploads(files: Sequence[FormFile], max_archive_bytes: int) -> list[ReceivedFile]:
    """What to import of a form. Raises Validation when there is no file, PayloadTooLarge past the limit."""
    if not files:
        raise Validation("the request brings no files; send them in the field 'files'")
    received = []
    for file in files:
        with open(file.path, "rb") as opened:
            archive = detect_archive(opened.read(ARCHIVE_HEAD)) is not None
        if archive and file.bytes > max_archive_bytes:
            raise PayloadTooLarge(f"an archive may have {max_archive_bytes} bytes")
        received.append(ReceivedFile(file.filename or file.path.name, file.path, archive))
    return received
