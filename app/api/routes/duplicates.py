"""Duplicates: the groups that a search of a collection has found, and that search."""

from __future__ import annotations

import base64
import math
from typing import Annotated

from fastapi import Query

from app.api.dependencies import CollectionDep, DuplicatesDep, ThreadsDep
from app.api.schemas.duplicates import DuplicateGroupOut, DuplicateOut, DuplicateScanOut, DuplicatesOut
from app.api.schemas.images import ImageOut, WarningOut
from app.api.schemas.jobs import JobOut
from app.api.strict_route import new_router
from app.core.errors import BadRequest, Validation
from app.search.duplicates import DEFAULT_THRESHOLDS, MAX_THRESHOLDS, DuplicateKind
from app.service.duplicates import DuplicateGroup, DuplicatePage, ScanState

router = new_router("/v1/duplicates", "duplicates")

MAX_SHOWN = 100  # pictures of a group
THRESHOLD = (
    "How far a picture may be from the best of its group. exact: bits of 64, up to 16 (10);"
    " near: 1 - cosine, up to 0.3 (0.2)."
)


@router.get("")
async def list_duplicates(
    service: DuplicatesDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    kind: Annotated[
        DuplicateKind, Query(description="The same picture (exact), or one that looks nearly like it (near).")
    ] = "near",
    threshold: Annotated[float | None, Query(description=THRESHOLD)] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many groups.")] = 20,
    cursor: str | None = None,
) -> DuplicatesOut:
    """List groups of duplicates. `POST /v1/duplicates` searches for them; this call only reads what was found."""
    chosen = choose_threshold(kind, threshold)
    query = f"{collection}|{kind}|{chosen:g}"
    before = decode_cursor(cursor, query)
    page = await threads.queries.run(service.list_groups, collection, kind, chosen, limit, before, MAX_SHOWN)
    return DuplicatesOut(
        collection=collection,
        kind=kind,
        threshold=chosen,
        groups=[group_response(group) for group in page.groups],
        total=page.total,
        extra=page.extra,
        next_cursor=None if page.next is None else encode_cursor(page.next, query),
        scan=scan_response(page.scan),
        warnings=list_warnings(page),
    )


@router.post("", status_code=202)
async def find_duplicates(service: DuplicatesDep, threads: ThreadsDep, collection: CollectionDep) -> JobOut:
    """Search a collection for duplicates. A job compares the pictures that no search has compared with all others."""
    return JobOut.of(await threads.writes.run(service.start, collection))


def choose_threshold(kind: DuplicateKind, threshold: float | None) -> float:
    """Raises Validation for what is no distance, and beyond what a search keeps."""
    if threshold is None:
        return DEFAULT_THRESHOLDS[kind]
    most = MAX_THRESHOLDS[kind]
    if not math.isfinite(threshold) or not 0 <= threshold <= most:
        raise Validation(f"threshold must be from 0 to {most:g} for the kind {kind!r}, got {threshold:g}")
    return threshold


def encode_cursor(key: int, query: str) -> str:
    """A position in the listing of one query."""
    return base64.urlsafe_b64encode(f"{query}|{key}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, query: str) -> int | None:
    """Raises BadRequest for a cursor that no listing has given, and for that of another query."""
    if cursor is None:
        return None
    try:
        asked, _, key = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().rpartition("|")
        before = int(key)
    except ValueError:
        raise BadRequest("the cursor is not one that a listing has given") from None
    if asked != query:
        raise BadRequest("the cursor belongs to a listing of another collection, kind or threshold")
    return before


def group_response(group: DuplicateGroup) -> DuplicateGroupOut:
    shown = [
        DuplicateOut(id=image.id, distance=round(distance, 6), image=ImageOut.of(image))
        for image, distance in group.images
    ]
    return DuplicateGroupOut(images=shown, size=group.size)


def scan_response(scan: ScanState) -> DuplicateScanOut:
    return DuplicateScanOut(
        finished_at=scan.finished_at, compared=scan.compared, waiting=scan.waiting, job_id=scan.job_id
    )


def list_warnings(page: DuplicatePage) -> list[WarningOut]:
    scan = page.scan
    if scan.job_id is not None:
        detail = f"the job {scan.job_id} searches for duplicates; the list is whole when it has ended"
        return [WarningOut(code="scan_running", detail=detail)]
    if not scan.compared and scan.finished_at is None:
        detail = "nobody has searched this collection for duplicates yet; POST /v1/duplicates does"
        return [WarningOut(code="not_scanned", detail=detail)]
    if scan.waiting:
        detail = f"{scan.waiting} pictures came after the last search; POST /v1/duplicates compares them"
        return [WarningOut(code="scan_outdated", detail=detail)]
    return []
