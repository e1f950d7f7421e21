"""What routes are given: the service, the lanes, a collection, a bounded k.

Dependencies are coroutines: FastAPI would send each plain function to a thread, at every request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Query, Request

from app.api.concurrency import ThreadPools
from app.core.errors import BadRequest, NotFound, Validation
from app.core.types import DEFAULT_COLLECTION, Target
from app.service.service import Service
from app.storage.filters.model import Filter
from app.storage.filters.parser import parse_filter_json

COLLECTION_NAME = re.compile(r"[a-z0-9_-]{1,64}")
# The collections that this request's key is bound to; None for all. The gate sets it anew for every request.
ALLOWED_COLLECTIONS: ContextVar[frozenset[str] | None] = ContextVar("granted", default=None)


async def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


async def _lanes(request: Request) -> ThreadPools:
    lanes = request.app.state.lanes
    assert isinstance(lanes, ThreadPools)
    return lanes


async def _collection(
    collection: Annotated[str, Query(description="Which collection.")] = DEFAULT_COLLECTION,
) -> str:
    return validate_collection(collection)


async def _named(collection: Annotated[str | None, Query(description="Which collection.")] = None) -> str | None:
    return None if collection is None else validate_collection(collection)


ServiceDep = Annotated[Service, Depends(_service)]
ThreadPoolsDep = Annotated[ThreadPools, Depends(_lanes)]
CollectionDep = Annotated[str, Depends(_collection)]
# Where the body may name it, too: it is `default` only if neither does, and is checked then.
OptionalCollectionDep = Annotated[str | None, Depends(_named)]
FilterQuery = Annotated[str | None, Query(description="Only what this lets through, as JSON: docs/reference/filters.")]


def validate_collection(name: str | None) -> str:
    """A collection's name, `default` for None; every name that a request brings passes here.

    Raises Validation for what cannot be one, and NotFound for what this request's key is not bound to.
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
    """The filter of an address or a form. Raises Validation."""
    return None if text is None else parse_filter_json(text, target)


def validate_k(k: int, service: Service) -> int:
    """How many hits. Raises Validation when it is out of bounds."""
    most = service.settings.max_k
    if not 1 <= k <= most:
        raise Validation(f"k must be from 1 to {most}, got {k}")
    return k


def validate_query(text: str, service: Service) -> str:
    """The words of a query. Raises Validation when there are none, or too many."""
    most = service.settings.max_text_chars
    if not text.strip():
        raise Validation("the query is empty")
    if len(text) > most:
        raise Validation(f"a text may have {most} characters, this has {len(text)}")
    return text


def encode_cursor(key: int) -> str:
    """A position in a listing, opaque to callers."""
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> int | None:
    """The position that a cursor stands for. Raises BadRequest for one that we did not give."""
    if cursor is None:
        return None
    try:
        key = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        key = -1
    if not 0 <= key < 1 << 63:  # what SQLite can count to
        raise BadRequest("the cursor is not one of ours")
    return key


@asynccontextmanager
async def open_incoming_folder(service: Service, lanes: ThreadPools) -> AsyncIterator[Path]:
    """A folder for what one request brings, gone when it has been answered."""
    library = service.library
    folder = await lanes.writes.run(library.create_upload_dir)
    try:
        yield folder
    finally:
        await lanes.writes.run(library.delete_upload_dir, folder)
