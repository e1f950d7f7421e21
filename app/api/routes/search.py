"""Searches by words, pictures, ids and vectors, and zero-shot classification."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from app.api.dependencies import (
    CollectionDep,
    FilterQuery,
    OptionalCollectionDep,
    ServiceDep,
    ThreadPoolsDep,
    open_incoming_folder,
    parse_filter_parameter,
    validate_collection,
    validate_k,
    validate_query,
)
from app.api.errors import format_validation_errors
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
)
from app.core.errors import BadRequest, PayloadTooLarge, SightlineError, Validation
from app.search.query_syntax import parse_weighted_query
from app.search.searcher import QueryPart, SearchQuery, SearchResult, result_or_error
from app.service.service import Service
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
    service: ServiceDep,
    lanes: ThreadPoolsDep,
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
    only = parse_filter_parameter(filter, target)
    parts = [QueryPart(text=text, weight=weight) for text, weight in parse_weighted_query(validate_query(q, service))]
    question = SearchQuery(parts, target, validate_k(k, service), collection, only, exact)
    found = await lanes.queries.run(service.searcher.search, question)
    return search_response(service, found, target)


@queries.post("/search")
async def search_parts(
    service: ServiceDep, lanes: ThreadPoolsDep, collection: OptionalCollectionDep, body: SearchIn
) -> SearchOut:
    """Find by several parts at once: words, pictures, ids and vectors, each with its weight."""
    searcher = service.searcher
    sent = any(part.image is not None for part in body.query)
    async with open_incoming_folder(service, lanes) if sent else nullcontext() as folder:
        question = await lanes.writes.run(parse_search, service, body, collection, folder)
        found = await lanes.queries.run(searcher.search, question)
    return search_response(service, found, body.target)


@pictures.post("/search/image", openapi_extra=SEARCH_FORM)
async def search_picture(
    request: Request,
    service: ServiceDep,
    lanes: ThreadPoolsDep,
    collection: OptionalCollectionDep,
    k: int = 10,
    target: Target = "images",
    filter: FilterQuery = None,
) -> SearchOut:
    """Find pictures like the one sent, or the texts that fit it."""
    searcher = service.searcher
    async with open_incoming_folder(service, lanes) as folder:
        form = await receive_form(request, folder, max_files=1)
        k = validate_k(parse_int(form.one("k"), k), service)
        target = parse_target(form.one("target"), target)
        only = parse_filter_parameter(form.one("filter") or filter, target)
        collection = validate_collection(form.one("collection") or collection)
        question = SearchQuery([QueryPart(picture=form.file().path)], target, k, collection, only)
        found = await lanes.queries.run(searcher.search, question)
    return search_response(service, found, target)


@pictures.post("/classify", openapi_extra=CLASSIFY_FORM)
async def classify(
    request: Request, service: ServiceDep, lanes: ThreadPoolsDep, collection: OptionalCollectionDep
) -> ClassifyOut:
    """Say which of the labels fits a picture, sent along or here already (JSON with `image_id`)."""
    searcher = service.searcher
    async with open_incoming_folder(service, lanes) as folder:
        if request.headers.get("content-type", "").split(";")[0].strip().lower() == "application/json":
            body = await read_classify_body(request, service.settings.max_json_bytes)
            part = QueryPart(image_id=body.image_id)
            labels, template = body.labels, body.template
            collection = validate_collection(body.collection or collection)
        else:
            form = await receive_form(request, folder, max_files=1)
            part = QueryPart(picture=form.file().path)
            labels, template = form.all("labels"), form.one("template") or "{}"
            collection = validate_collection(form.one("collection") or collection)
        check_labels(labels, template, service)
        found = await lanes.queries.run(searcher.classify, collection, part, labels, template)
    return ClassifyOut(labels=[LabelOut(label=label, probability=share) for label, share in found])


def search_response(service: Service, found: SearchResult, target: Target) -> SearchOut:
    """The hits as the contract words them."""
    return SearchOut.model_validate(
        {
            "hits": [HitOut.of(hit) for hit in found.hits],
            "took_ms": found.took_ms,
            "model": service.engine.encoder.space.model,
            "target": target,
            "searched": found.searched,
        }
    )


def parse_search(service: Service, search: SearchIn, collection: str | None, folder: Path | None) -> SearchQuery:
    """The question of a body, checked; without a collection of its own it is about `collection`. Raises Validation."""
    only = None if search.filter is None else parse_filter(search.filter, search.target)
    collection = validate_collection(search.collection or collection)
    k = validate_k(search.k, service)
    parts = parse_parts(service, search.query, folder)
    hard = search.params or ParamsIn()
    return SearchQuery(parts, search.target, k, collection, only, search.exact, hard.nprobe, hard.refine_k)


def parse_parts(service: Service, query: Sequence[PartIn], folder: Path | None) -> list[QueryPart]:
    """The parts of a query, checked; pictures are written to `folder` (None when there are none). Raises Validation."""
    parts = []
    for n, part in enumerate(query):
        kind = part.kind()
        if kind == "text":
            parts.append(QueryPart(text=validate_query(part.text or "", service), weight=part.weight))
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


def check_labels(labels: Sequence[str], template: str, service: Service) -> None:
    """Raise Validation unless labels and template can be asked about."""
    if not 1 <= len(labels) <= MAX_LABELS:
        raise Validation(f"send 1 to {MAX_LABELS} labels, got {len(labels)}")
    if "{}" not in template and "{label}" not in template:
        raise Validation("template must hold {} where the label goes")
    for label in labels:
        validate_query(label, service)
        validate_query(template + label, service)


async def read_classify_body(request: Request, most: int) -> ClassifyIn:
    """The JSON body of a classification. Raises BadRequest, Validation, PayloadTooLarge."""
    if len(body := await request.body()) > most:
        raise PayloadTooLarge(f"a JSON body may have {most} bytes")
    try:
        return ClassifyIn.model_validate(json.loads(body))
    except ValidationError as error:
        raise Validation(format_validation_errors(error.errors())) from None
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None


batches = APIRouter(prefix="/v1", tags=["search"])

BATCH_FACTOR = 10  # one call may ask for as much as so many of the largest searches: hits and parts
MAX_BATCH_PARTS = 32 * BATCH_FACTOR


@batches.post("/search/batch", response_model=BatchOut)
async def search_batch(
    service: ServiceDep, lanes: ThreadPoolsDep, collection: OptionalCollectionDep, body: BatchIn
) -> Response:
    """Up to 100 searches; the answers come in their order, each like that of a search, or why there is none."""
    check_batch_size(body, service)
    sent = any(part.image is not None for search in body.searches for part in search.query)
    async with open_incoming_folder(service, lanes) if sent else nullcontext() as folder:
        questions = await lanes.writes.run(parse_batch, service, body, collection, folder)
        content = await lanes.queries.run(run_batch, service, questions)
    return Response(content, media_type="application/json")


def check_batch_size(body: BatchIn, service: Service) -> None:
    """Raise Validation for a call that asks for more than is reasonable in one."""
    most = BATCH_FACTOR * service.settings.max_k
    if (hits := sum(search.k for search in body.searches)) > most:
        raise Validation(f"the searches of one call may ask for {most} hits, these ask for {hits}")
    if (parts := sum(len(search.query) for search in body.searches)) > MAX_BATCH_PARTS:
        raise Validation(f"the searches of one call may have {MAX_BATCH_PARTS} parts, these have {parts}")


def parse_batch(
    service: Service, body: BatchIn, collection: str | None, folder: Path | None
) -> list[SearchQuery | SightlineError]:
    """The question of each search, or what is wrong with it."""
    questions = []
    for n, search in enumerate(body.searches):
        below = folder / str(n) if folder else None
        if below:
            below.mkdir()
        questions.append(result_or_error(lambda s=search, f=below: parse_search(service, s, collection, f)))  # type: ignore[misc]
    return questions


def run_batch(service: Service, questions: list[SearchQuery | SightlineError]) -> bytes:
    """The body of the answer. Made here, in a thread: thousands of records would hold the event loop up."""
    found = iter(service.searcher.search_all([one for one in questions if isinstance(one, SearchQuery)]))
    answers: list[SearchOut | RefusedOut] = []
    for question in questions:
        outcome = next(found) if isinstance(question, SearchQuery) else question
        if isinstance(question, SearchQuery) and isinstance(outcome, SearchResult):
            answers.append(search_response(service, outcome, question.target))
        elif isinstance(outcome, SightlineError):
            answers.append(RefusedOut(error=ErrorOut(code=outcome.code, detail=outcome.detail)))
    return BatchOut(answers=answers).model_dump_json().encode()
