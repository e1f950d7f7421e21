"""Texts that pictures can be asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from app.api.dependencies import (
    CollectionDep,
    OptionalCollectionDep,
    ServiceDep,
    ThreadPoolsDep,
    decode_cursor,
    encode_cursor,
    validate_collection,
    validate_query,
)
from app.api.idempotency import IdempotencyKeyHeader, begin_idempotent
from app.api.schemas import TextOut, TextsIn, TextsOut
from app.core.types import Text
from app.service.service import Service
from app.storage.idempotency import Note

router = APIRouter(prefix="/v1/texts", tags=["texts"])


class TextPage(BaseModel):
    """Texts, newest first."""

    texts: list[TextOut]
    next_cursor: str | None


@router.post("", response_model=TextsOut)
async def put_texts(
    request: Request,
    service: ServiceDep,
    lanes: ThreadPoolsDep,
    collection: OptionalCollectionDep,
    body: TextsIn,
    key: IdempotencyKeyHeader = None,
) -> Any:
    """Store up to 1,000 texts; a known id gets the new words. They can be found when this answers."""
    for item in body.texts:
        validate_query(item.text, service)
    collection = validate_collection(body.collection or collection)
    async with begin_idempotent(request, service, lanes, lambda: body.model_dump_json().encode()) as repeat:
        if (replay := repeat.replay) is not None:
            return replay
        stored = await lanes.queries.run(
            store_texts, service, collection, body, repeat.noting(lambda texts: (200, texts_response(texts)))
        )
    return texts_response(stored)


@router.get("")
async def list_texts(
    service: ServiceDep,
    lanes: ThreadPoolsDep,
    collection: CollectionDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: str | None = None,
) -> TextPage:
    """Texts, newest first."""
    found = await lanes.reads.run(service.library.list_texts, collection, limit + 1, decode_cursor(cursor))
    page = found[:limit]
    return TextPage(
        texts=[TextOut.of(text) for text in page],
        next_cursor=encode_cursor(page[-1].key) if len(found) > limit else None,
    )


@router.get("/{id}")
async def get_text(service: ServiceDep, lanes: ThreadPoolsDep, collection: CollectionDep, id: str) -> TextOut:
    """One text."""
    return TextOut.of(await lanes.reads.run(service.library.get_text, collection, id))


@router.delete("/{id}", status_code=204)
async def delete_text(service: ServiceDep, lanes: ThreadPoolsDep, collection: CollectionDep, id: str) -> None:
    """Delete a text: no search sent after this answer finds it."""
    await lanes.writes.run(service.library.delete_text, collection, id)


def texts_response(texts: Sequence[Text]) -> TextsOut:
    """The answer."""
    return TextsOut(texts=[TextOut.of(text) for text in texts])


def store_texts(service: Service, collection: str, body: TextsIn, note: Note[list[Text]] | None = None) -> list[Text]:
    """Encode, store, and wait until the index has them."""
    engine = service.engine
    vectors = engine.searcher.encode_texts([item.text for item in body.texts])
    items = [(item.id, item.text, item.metadata) for item in body.texts]
    stored, seq = service.library.put_texts(collection, engine.encoder.space.fingerprint, items, vectors, note)
    service.settle(collection, "texts", seq)
    return stored
