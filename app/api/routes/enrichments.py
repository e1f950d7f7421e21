"""Second passes over pictures: what they found, and requests to do them again."""

from __future__ import annotations

from dataclasses import asdict

from app.api.dependencies import (
    CollectionDep,
    EnrichmentDep,
    OptionalCollectionDep,
    ThreadsDep,
    merge_query,
    validate_collection,
)
from app.api.schemas.enrichments import EnrichIn, EnrichmentOut, EnrichmentsOut
from app.api.schemas.jobs import JobOut
from app.api.strict_route import new_router
from app.core.errors import Validation
from app.storage.filters.parser import parse_filter

router = new_router("/v1", "images")


@router.get("/images/{id}/enrichments")
async def get_enrichments(
    service: EnrichmentDep, threads: ThreadsDep, collection: CollectionDep, id: str
) -> EnrichmentsOut:
    """Get how far each second pass is with a picture. `ocr` has the lines of text that it read."""
    states = await threads.reads.run(service.get, collection, id)
    return EnrichmentsOut(id=id, enrichments={kind: EnrichmentOut(**asdict(one)) for kind, one in states.items()})


@router.post("/enrichments", status_code=202)
async def enrich_again(
    service: EnrichmentDep, threads: ThreadsDep, collection: OptionalCollectionDep, body: EnrichIn
) -> JobOut:
    """Let pictures wait for a second pass again, before all others. The job ends when they wait."""
    collection = validate_collection(merge_query(body, collection=collection).collection)
    filter = parse_filter(body.selected_filter(), "images")
    if filter.matches_everything and not body.all:
        raise Validation('filter: this one has no condition; to take every picture, send {"all": true}')
    asked = None if body.all else filter
    return JobOut.of(
        await threads.writes.run(service.request, collection, body.kind, asked, failed_only=body.failed_only)
    )
