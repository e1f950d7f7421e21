"""What routes depend on: the parts of the service, the thread pools, and the checked values that several routes share.

Dependencies are coroutines: FastAPI would send each plain function to a thread, at every request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BaseModel, ValidationError

from app.api.admission import work
from app.api.concurrency import ThreadPools
from app.api.errors import format_validation_errors
from app.api.json_body import STORED_PICTURES, JsonScan
from app.api.openapi import COLLECTION_PATTERN, CollectionText
from app.core.errors import BadRequest, NotFound, Validation
from app.core.settings import Settings
from app.core.strict_json import load_json
from app.core.types import DEFAULT_COLLECTION, Target
from app.decode.pool import DecodePool
from app.service.camera_data import CameraDataReader
from app.service.duplicates import DuplicateService
from app.service.embeddings import EmbeddingService
from app.service.enrichment import EnrichmentService
from app.service.explain import ExplainService
from app.service.heads import HeadService
from app.service.image_waiter import ImageWaiter
from app.service.labels import LabelService
from app.service.maintenance import CollectionDeleter
from app.service.questions import QuestionService
from app.service.saved_searches import SavedSearchService
from app.service.search_service import SearchService
from app.service.service import Service
from app.service.watching import WatchManager
from app.sources.base import SourcePolicy
from app.storage.filters.model import Filter
from app.storage.filters.parser import parse_filter
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.videos import VideoLibrary

M = TypeVar("M", bound=BaseModel)

COLLECTION_NAME = re.compile(COLLECTION_PATTERN)
# The collections that this request's key is bound to; None for all. AccessControl sets it anew for every request.
ALLOWED_COLLECTIONS: ContextVar[frozenset[str] | None] = ContextVar("allowed_collections", default=None)


async def get_service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


def get_part(part: Callable[[Service], Any]) -> Any:
    """A dependency on one part of the service."""

    async def get(request: Request) -> Any:
        return part(request.app.state.service)

    return Depends(get)


async def get_threads(request: Request) -> ThreadPools:
    threads = request.app.state.threads
    assert isinstance(threads, ThreadPools)
    return threads


async def get_collection(
    collection: Annotated[CollectionText, Query(description="Which collection.")] = DEFAULT_COLLECTION,
) -> str:
    return validate_collection(collection)


async def get_optional_collection(
    collection: Annotated[CollectionText | None, Query(description="Which collection.")] = None,
) -> str | None:
    return None if collection is None else validate_collection(collection)


ServiceDep = Annotated[Service, Depends(get_service)]
SettingsDep = Annotated[Settings, get_part(lambda service: service.settings)]
LibraryDep = Annotated[Library, get_part(lambda service: service.library)]
JobsDep = Annotated[JobService, get_part(lambda service: service.jobs)]
CameraDataDep = Annotated[CameraDataReader, get_part(lambda service: service.camera_data)]
DuplicatesDep = Annotated[DuplicateService, get_part(lambda service: service.duplicates)]
EmbeddingsDep = Annotated[EmbeddingService, get_part(lambda service: service.embeddings)]
EnrichmentDep = Annotated[EnrichmentService, get_part(lambda service: service.enrichment)]
ExplainDep = Annotated[ExplainService, get_part(lambda service: service.explain)]
HeadsDep = Annotated[HeadService, get_part(lambda service: service.heads)]
LabelsDep = Annotated[LabelService, get_part(lambda service: service.labels)]
SavedSearchesDep = Annotated[SavedSearchService, get_part(lambda service: service.saved_searches)]
SearchDep = Annotated[SearchService, get_part(lambda service: service.search)]
QuestionsDep = Annotated[QuestionService, get_part(lambda service: service.questions)]
SourcePolicyDep = Annotated[SourcePolicy, get_part(lambda service: service.source_policy)]
DeleterDep = Annotated[CollectionDeleter, get_part(lambda service: service.deleter)]
WatchingDep = Annotated[WatchManager, get_part(lambda service: service.watching)]
ImageWaiterDep = Annotated[ImageWaiter, get_part(lambda service: service.image_waiter)]
DecodePoolDep = Annotated[DecodePool, get_part(lambda service: service.pool)]
VideosDep = Annotated[VideoLibrary, get_part(lambda service: VideoLibrary(service.library))]
ThreadsDep = Annotated[ThreadPools, Depends(get_threads)]
CollectionDep = Annotated[str, Depends(get_collection)]
# Where the body may name the collection, too: it is `default` only if neither does, and is checked then.
OptionalCollectionDep = Annotated[str | None, Depends(get_optional_collection)]
DryRunQuery = Annotated[bool | None, Query(description="Delete nothing, and say what would be deleted (false).")]
FilterQuery = Annotated[
    str | None,
    Query(
        description="Only what matches this filter, as JSON: docs/reference/filters.",
        examples=['{"must": []}'],
    ),
]


def validate_collection(name: str | None) -> str:
    """A collection's name, `default` for None; every name that a request brings passes here.

    Raises Validation for what is no name, and NotFound for a collection that this request's key is not bound to.
    """
    if name is None:
        name = DEFAULT_COLLECTION
    if not COLLECTION_NAME.fullmatch(name):
        raise Validation("a collection's name has 1 to 64 of a-z, 0-9, _ and -")
    if not is_collection_allowed(name):
        raise NotFound(f"there is no collection {name!r}")  # as if it were not there
    return name


def is_collection_allowed(collection: str) -> bool:
    """Whether this request's key is good for the collection."""
    bound = ALLOWED_COLLECTIONS.get()
    return bound is None or collection in bound


def parse_filter_parameter(text: str | None, target: Target) -> Filter | None:
    """The filter of an address. Raises Validation."""
    return None if text is None else parse_filter(load_json(text, "filter"), target)


def merge_query(body: M, **query: Any) -> M:
    """The body with the values of parameters of the same names. Raises Validation where both say different things."""
    sent = {name: value for name, value in query.items() if value is not None}
    for name, value in sent.items():
        said = getattr(body, name) if name in body.model_fields_set else None
        if said is not None and said != value:
            raise Validation(f"{name} is one thing in the address and another in the body; send it once")
    return body.model_copy(update=sent)


def validate_k(k: int, settings: Settings) -> int:
    """How many hits. Raises Validation when it is out of bounds."""
    if not 1 <= k <= settings.max_k:
        raise Validation(f"k must be from 1 to {settings.max_k}, got {k}")
    return k


def validate_query(text: str, settings: Settings) -> str:
    """The words of a query, or a text. Raises Validation when it is empty or too long."""
    if not text.strip():
        raise Validation("the query is empty")
    if len(text) > settings.max_text_chars:
        raise Validation(f"a text may have {settings.max_text_chars} characters, this has {len(text)}")
    return text


def parse_json(model: type[M], data: bytes) -> M:
    """JSON as a model. Raises BadRequest, Validation."""
    try:
        return model.model_validate(load_json(data, error=BadRequest))
    except ValidationError as error:
        raise Validation(format_validation_errors(error.errors())) from None


def parse_body(model: type[M], data: bytes) -> M:
    """A JSON body as a model. Raises PayloadTooLarge, BadRequest, Validation."""
    JsonScan(len(data)).feed(data)
    return parse_json(model, data)


async def receive_json(request: Request, model: type[M]) -> M:
    """The JSON body of a call that takes other bodies, too. Raises PayloadTooLarge, BadRequest, Validation."""
    return await work(request, parse_body, model, await request.body())


def encode_cursor(key: int) -> str:
    """A position in a listing, opaque to callers."""
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> int | None:
    """Raises BadRequest for a cursor that no listing has given."""
    if cursor is None:
        return None
    try:
        key = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        key = -1
    if not 0 <= key < 1 << 63:  # the largest integer of SQLite
        raise BadRequest("the cursor is not one that a listing has given")
    return key


@asynccontextmanager
async def open_incoming_folder(library: Library, threads: ThreadPools) -> AsyncIterator[Path]:
    """A folder for the files of one request; it is removed when the request is answered."""
    if stored := STORED_PICTURES.get():  # the pictures of its JSON have one
        yield next(iter(stored.values())).parent
        return
    folder = await threads.writes.run(library.create_upload_dir)
    try:
        yield folder
    finally:
        await threads.writes.run(library.delete_upload_dir, folder)
