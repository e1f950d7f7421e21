"""Bulk uploads and the jobs that take them in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.api.depends import (
    GRANTED,
    LanesDep,
    NamedDep,
    ServiceDep,
    checked_collection,
    decoded_cursor,
    encoded_cursor,
    granted,
    incoming,
)
from app.api.form import Form, receive
from app.api.schemas import ItemOut, ItemPage, JobOut, JobsOut
from app.bulks import Upload
from app.decode.formats import ARCHIVE_HEAD, is_archive
from app.errors import NotFound, PayloadTooLarge, Validation
from app.service import Service
from app.types import ItemStatus, Job, JobState

bulk = APIRouter(prefix="/v1/images", tags=["jobs"])
router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

EVENT_SECONDS = 0.5
RUNNING = (JobState.QUEUED, JobState.RUNNING)
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "collection": {"type": "string"},
                    },
                }
            }
        },
    }
}


async def _job(service: ServiceDep, lanes: LanesDep, id: str) -> Job:
    job = await lanes.reads.run(service.bulks.get, id)
    if not granted(job.collection):
        raise NotFound(f"there is no job {id!r}")
    return job


JobDep = Annotated[Job, Depends(_job)]


@bulk.post("/bulk", status_code=202, openapi_extra=FORM)
async def add_bulk(request: Request, service: ServiceDep, lanes: LanesDep, collection: NamedDep) -> JobOut:
    """Add any number of pictures and archives (zip, tar, tar.gz). They are taken in by a job."""
    async with incoming(service, lanes) as folder:
        form = await receive(request, folder, service.settings.max_archive_members)
        collection = checked_collection(form.one("collection") or collection)
        uploads = await lanes.writes.run(received, service, form)
        job = await lanes.writes.run(service.bulks.add, collection, uploads)
    return JobOut.of(job)


@router.get("")
async def list_jobs(
    service: ServiceDep,
    lanes: LanesDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    collection: Annotated[str | None, Query(description="Only those of this collection.")] = None,
) -> JobsOut:
    """Jobs, newest first."""
    named = None if collection is None else checked_collection(collection)
    found = await lanes.reads.run(service.bulks.recent, limit, GRANTED.get(), named)
    return JobsOut(jobs=[JobOut.of(job) for job in found])


@router.get("/{id}")
async def get_job(service: ServiceDep, lanes: LanesDep, job: JobDep) -> JobOut:
    """One job: how far it is, how fast, and how long it will take."""
    return JobOut.of(job, settled=await lanes.reads.run(service.settled_job, job))


@router.get("/{id}/items")
async def list_items(
    service: ServiceDep,
    lanes: LanesDep,
    job: JobDep,
    status: ItemStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> ItemPage:
    """What became of each item; `status=failed` shows just those that need a look."""
    after = decoded_cursor(cursor) or 0
    found = await lanes.reads.run(service.bulks.items, job.id, status, after, limit + 1)
    page = found[:limit]
    return ItemPage(
        items=[ItemOut.of(item) for _, item in page],
        next_cursor=encoded_cursor(page[-1][0]) if len(found) > limit else None,
    )


@router.post("/{id}/cancel")
async def cancel_job(service: ServiceDep, lanes: LanesDep, job: JobDep) -> JobOut:
    """End a job. What is ready stays; what still waits fails with `cancelled`, and a retry takes it up again."""
    return JobOut.of(await lanes.writes.run(service.bulks.cancel, job.id))


@router.post("/{id}/retry")
async def retry_job(service: ServiceDep, lanes: LanesDep, job: JobDep) -> JobOut:
    """Take up the failed items once more, those whose bytes are here: what was refused at the door has none."""
    return JobOut.of(await lanes.writes.run(service.bulks.retry, job.id))


@router.get("/{id}/events", response_class=EventSourceResponse)
async def follow_job(
    request: Request, service: ServiceDep, lanes: LanesDep, job: JobDep
) -> AsyncIterator[ServerSentEvent]:
    """The job as server-sent events, at most two a second; the last one at its end."""
    told: JobOut | None = None
    while True:
        now = JobOut.of(job, settled=await lanes.reads.run(service.settled_job, job))
        if now != told:
            yield ServerSentEvent(data=now, event="job")
            told = now
        if now.state not in RUNNING or await request.is_disconnected():
            return
        await asyncio.sleep(EVENT_SECONDS)
        job = await lanes.reads.run(service.bulks.get, job.id)


def received(service: Service, form: Form) -> list[Upload]:
    """The files of a form as uploads. Raises Validation when there is none, PayloadTooLarge past the limits."""
    files = [file for file in form.files if file.field in ("files", "file")]
    if not files:
        raise Validation("the request brings no files; send them in the field 'files'")
    uploads = []
    for file in files:
        with open(file.path, "rb") as opened:
            archive = is_archive(opened.read(ARCHIVE_HEAD)) is not None
        most = service.settings.max_archive_bytes
        if archive and file.bytes > most:
            raise PayloadTooLarge(f"an archive may have {most} bytes")
        uploads.append(Upload(file.filename or file.path.name, file.path, archive))
    return uploads
