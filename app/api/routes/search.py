"""Searches by words, pictures, ids and vectors, and zero-shot classification."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.api.dependencies import (
    CollectionDep,
    FilterQuery,
    LibraryDep,
    OptionalCollectionDep,
    SearchDep,
    SettingsDep,
    ThreadsDep,
    open_incoming_folder,
    parse_filter_parameter,
    parse_json,
    validate_collection,
    validate_k,
    validate_query,
)
from app.api.multipart import receive_form
from app.api.schemas import (
    BatchIn,
    BatchOut,
    ClassifyIn,
    ClassifyOut,
    ErrorOut,
    HitOut,
    LabelOut,
    ParamsIn,
    PartIn,
    RefusedOut,
    SearchIn,
    SearchOut,
    Target,
    WarningOut,
)
from app.core.errors import PayloadTooLarge, SightlineError, Validation
from app.core.settings import Settings
from app.search.query_syntax import parse_weighted_query
from app.search.searcher import QueryPart, SearchQuery, SearchResult, result_or_error
from app.service.search_service import SearchService
from app.storage.filters.parser import parse_filter

router = APIRouter(prefix="/v1", tags=["search"])
pictures = APIRouter(prefix="/v1", tags=["search"])
queries = APIRouter(prefix="/v1", tags=["search"])

MAX_LABELS = 1_000


def _form(**fields: dict[str, Any]) -> dict[str, Any]:
    properties = {"file": {"type": "string", "format": "binary"}, **fields}
    schema = {"type": "object", "required": ["file"], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


SEARCH_FORM = _form(
    k={"type": "integer"},
    target={"enum": ["images", "texts"]},
    filter={"type": "string", "description": "A filter as JSON."},
    collection={"type": "string"},
)
CLASSIFY_FORM = _form(labels={"type": "array", "items": {"type": "string"}}, template={"type": "string"})
CLASSIFY_FORM["requestBody"]["content"]["application/json"] = {"schema": ClassifyIn.model_json_schema()}


@router.get("/search")
async def search_words(
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    q: Annotated[
        str, Query(description='What to look for; words after a minus are turned away from ("beach -people").')
    ],
    k: Annotated[int, Query(description="How many hits.")] = 10,
    target: Target = "images",
    filter: FilterQuery = None,
    exact: Annotated[bool, Query(description="Compare with every vector, whatever the index could save.")] = False,
) -> SearchOut:
    """Find pictures, or texts, by words."""
    parsed = parse_filter_parameter(filter, target)
    words = parse_weighted_query(validate_query(q, settings))
    parts = [QueryPart(text=text, weight=weight, field="q") for text, weight in words]
    query = SearchQuery(parts, target, validate_k(k, settings), collection, parsed, exact)
    found = await threads.queries.run(search.searcher.search, query)
    return search_response(search, found, target)


@queries.post("/search")
async def search_parts(
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    body: SearchIn,
) -> SearchOut:
    """Find by several parts at once: words, pictures, ids and vectors, each with its weight."""
    searcher = search.searcher
    has_pictures = any(part.image is not None for part in body.query)
    async with open_incoming_folder(library, threads) if has_pictures else nullcontext() as folder:
        query = await threads.writes.run(parse_search, settings, body, collection, folder)
        found = await threads.queries.run(searcher.search, query)
    return search_response(search, found, body.target)


@pictures.post("/search/image", openapi_extra=SEARCH_FORM)
async def search_picture(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    k: int = 10,
    target: Target = "images",
    filter: FilterQuery = None,
) -> SearchOut:
    """Find pictures like the one sent, or the texts that fit it."""
    searcher = search.searcher
    async with open_incoming_folder(library, threads) as folder:
        form = await receive_form(request, folder, max_files=1)
        k = validate_k(parse_int(form.one("k"), k), settings)
        target = parse_target(form.one("target"), target)
        parsed = parse_filter_parameter(form.one("filter") or filter, target)
        collection = validate_collection(form.one("collection") or collection)
        query = SearchQuery([QueryPart(picture=form.file().path)], target, k, collection, parsed)
        found = await threads.queries.run(searcher.search, query)
    return search_response(search, found, target)


@pictures.post("/classify", openapi_extra=CLASSIFY_FORM)
async def classify(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
) -> ClassifyOut:
    """Say which of the labels fits a picture, sent along or stored already (JSON with `image_id`)."""
    searcher = search.searcher
    async with open_incoming_folder(library, threads) as folder:
        if request.headers.get("content-type", "").split(";")[0].strip().lower() == "application/json":
            body = await read_classify_body(request, settings.max_json_bytes)
            part = QueryPart(image_id=body.image_id)
            labels, template = body.labels, body.template
            collection = validate_collection(body.collection or collection)
        else:
            form = await receive_form(request, folder, max_files=1)
            part = QueryPart(picture=form.file().path)
            labels, template = form.all("labels"), form.one("template") or "{}"
            collection = validate_collection(form.one("collection") or collection)
        check_labels(labels, template, settings)
        found = await threads.queries.run(searcher.classify, collection, part, labels, template)
        warnings = await threads.queries.run(searcher.warn_of_labels, labels, template)
    return ClassifyOut(
        labels=[LabelOut(label=label, probability=share) for label, share in found],
        warnings=[WarningOut.of(warning) for warning in warnings],
    )


def search_response(search: SearchService, found: SearchResult, target: Target) -> SearchOut:
    return SearchOut.model_validate(
        {
            "hits": [HitOut.of(hit) for hit in found.hits],
            "took_ms": found.took_ms,
            "model": search.model.encoder.space.model,
            "target": target,
            "searched": found.searched,
            "warnings": [WarningOut.of(warning) for warning in found.warnings],
        }
    )


def parse_search(settings: Settings, body: SearchIn, collection: str | None, folder: Path | None) -> SearchQuery:
    """The query of a body, checked; `collection` is searched when the body names none. Raises Validation."""
    parsed = None if body.filter is None else parse_filter(body.filter, body.target)
    collection = validate_collection(body.collection or collection)
    k = validate_k(body.k, settings)
    parts = parse_parts(settings, body.query, folder)
    params = body.params or ParamsIn()
    return SearchQuery(parts, body.target, k, collection, parsed, body.exact, params.nprobe, params.refine_k)


def parse_parts(settings: Settings, query: Sequence[PartIn], folder: Path | None) -> list[QueryPart]:
    """The parts of a query, checked; pictures are written to `folder` (None when there are none). Raises Validation."""
    parts = []
    for n, part in enumerate(query):
        kind = part.kind()
        if kind == "text":
            text = validate_query(part.text or "", settings)
            parts.append(QueryPart(text=text, weight=part.weight, field=f"query.{n}.text"))
        elif folder is not None and kind == "image":
            path = folder / str(n)
            path.write_bytes(decode_base64_image(part.image or ""))
            parts.append(QueryPart(picture=path, weight=part.weight))
        else:
            parts.append(
                QueryPart(image_id=part.image_id, text_id=part.text_id, vector=part.vector, weight=part.weight)
            )
    return parts


def decode_base64_image(text: str) -> bytes:
    """The bytes of base64 or of a data URI. Raises Validation."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise Validation("a data URI must be base64: data:image/png;base64,...")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Validation("image is not valid base64") from None


def parse_int(text: str | None, default: int) -> int:
    """A whole number of a form. Raises Validation."""
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise Validation("k must be a whole number") from None


def parse_target(text: str | None, default: Target) -> Target:
    """The target of a form. Raises Validation."""
    if text is None:
        return default
    if text == "images":
        return "images"
    if text == "texts":
        return "texts"
    raise Validation("target must be images or texts")


def check_labels(labels: Sequence[str], template: str, settings: Settings) -> None:
    """Raise Validation unless a classification is possible with these labels and this template."""
    if not 1 <= len(labels) <= MAX_LABELS:
        raise Validation(f"send 1 to {MAX_LABELS} labels, got {len(labels)}")
    if "{}" not in template and "{label}" not in template:
        raise Validation("template must hold {} where the label goes")
    for label in labels:
        validate_query(label, settings)
        validate_query(template + label, settings)


async def read_classify_body(request: Request, most: int) -> ClassifyIn:
    """The JSON body of a classification. Raises BadRequest, Validation, PayloadTooLarge."""
    if len(body := await request.body()) > most:
        raise PayloadTooLarge(f"a JSON body may have {most} bytes")
    return parse_json(ClassifyIn, body)


batches = APIRouter(prefix="/v1", tags=["search"])

BATCH_FACTOR = 10  # a batch may ask for as many hits and parts as this many of the largest searches
MAX_BATCH_PARTS = 32 * BATCH_FACTOR


@batches.post("/search/batch", response_model=BatchOut)
async def search_batch(
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    body: BatchIn,
) -> Response:
    """Up to 100 searches; the answers come in their order, each like that of a search, or why there is none."""
    check_batch_size(body, settings)
    has_pictures = any(part.image is not None for one in body.searches for part in one.query)
    async with open_incoming_folder(library, threads) if has_pictures else nullcontext() as folder:
        batch = await threads.writes.run(parse_batch, settings, body, collection, folder)
        content = await threads.queries.run(run_batch, search, batch)
    return Response(content, media_type="application/json")


def check_batch_size(body: BatchIn, settings: Settings) -> None:
    """Raise Validation for a batch that asks for too much."""
    most = BATCH_FACTOR * settings.max_k
    if (hits := sum(search.k for search in body.searches)) > most:
        raise Validation(f"the searches of one call may ask for {most} hits, these ask for {hits}")
    if (parts := sum(len(search.query) for search in body.searches)) > MAX_BATCH_PARTS:
        raise Validation(f"the searches of one call may have {MAX_BATCH_PARTS} parts, these have {parts}")


def parse_batch(
    settings: Settings, body: BatchIn, collection: str | None, folder: Path | None
) -> list[SearchQuery | SightlineError]:
    """The query of each search, or what is wrong with it."""
    batch = []
    for n, one in enumerate(body.searches):
        below = folder / str(n) if folder else None
        if below:
            below.mkdir()
        batch.append(result_or_error(lambda s=one, f=below: parse_search(settings, s, collection, f)))  # type: ignore[misc]
    return batch


def run_batch(search: SearchService, batch: list[SearchQuery | SightlineError]) -> bytes:
    """The body of the answer. Made here, in a thread: thousands of records would block the event loop."""
    found = iter(search.searcher.search_all([one for one in batch if isinstance(one, SearchQuery)]))
    answers: list[SearchOut | RefusedOut] = []
    for query in batch:
        outcome = next(found) if isinstance(query, SearchQuery) else query
        if isinstance(query, SearchQuery) and isinstance(outcome, SearchResult):
            answers.append(search_response(search, outcome, query.target))
        elif isinstance(outcome, SightlineError):
            answers.append(RefusedOut(error=ErrorOut(code=outcome.code, detail=outcome.detail)))
    return BatchOut(answers=answers).model_dump_json().encode()
