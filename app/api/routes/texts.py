"""Texts: store, list, get and delete them. A search finds them like pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from app.api.admission import BATCHES, take_seat
from app.api.dependencies import (
    CollectionDep,
    DryRunQuery,
    LibraryDep,
    OptionalCollectionDep,
    SearchDep,
    SettingsDep,
    ThreadsDep,
    decode_cursor,
    encode_cursor,
    merge_query,
    validate_collection,
    validate_query,
)
from app.api.idempotency import IdempotencyDep
from app.api.read_after_write import WriteToken, set_token
from app.api.schemas.images import DeleteOut, WarningOut
from app.api.schemas.texts import TextOut, TextsIn, TextsOut
from app.api.strict_route import new_router
from app.core.errors import ModelUnavailable
from app.core.types import AnswerWarning, Text
from app.service.search_service import LoadedModel, SearchService
from app.storage.idempotency import ResponseSlot
from app.storage.library import Library

router = new_router("/v1/texts", "texts")

FEW_TEXTS = 8  # of a call that does not wait for others of its caller


class TextPage(BaseModel):
    """Texts, newest first."""

    texts: list[TextOut]
    next_cursor: str | None


@router.post("", response_model=TextsOut)
async def put_texts(
    request: Request,
    search: SearchDep,
    library: LibraryDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    idempotency: IdempotencyDep,
    body: TextsIn,
) -> Any:
    """Store up to 1,000 texts. A known id gets the new words; a search sent after this answer finds them."""
    for item in body.texts:
        validate_query(item.text, settings)
    body = merge_query(body, collection=collection)
    collection = validate_collection(body.collection)
    async with idempotency.begin(
        lambda: body.model_dump_json().encode(), list[Text], lambda texts: (200, texts_response(texts))
    ) as call:
        if (replay := call.replay) is not None:
            return replay
        warnings = await threads.queries.run(warn_of_texts, search, body)
        async with take_seat(request, BATCHES if len(body.texts) > FEW_TEXTS else None):
            stored = await threads.queries.run(store_texts, search, library, collection, body, call.slot)
        set_token(request, WriteToken(await threads.reads.run(search.read_position)))
        answer = texts_response(stored, warnings)
        await call.finish(stored, 200, answer)
    return answer


@router.get("")
async def list_texts(
    library: LibraryDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: str | None = None,
) -> TextPage:
    """List texts, newest first."""
    found = await threads.reads.run(library.list_texts, collection, limit + 1, decode_cursor(cursor))
    page = found[:limit]
    return TextPage(
        texts=[TextOut.of(text) for text in page],
        next_cursor=encode_cursor(page[-1].key) if len(found) > limit else None,
    )


@router.get("/{id}")
async def get_text(library: LibraryDep, threads: ThreadsDep, collection: CollectionDep, id: str) -> TextOut:
    """Get one text."""
    return TextOut.of(await threads.reads.run(library.get_text, collection, id))


@router.delete("/{id}", status_code=204, response_model=None, responses={200: {"model": DeleteOut[TextOut]}})
async def delete_text(
    library: LibraryDep, threads: ThreadsDep, collection: CollectionDep, id: str, dry_run: DryRunQuery = None
) -> Response | None:
    """Delete a text. No search sent after this answer finds it."""
    if dry_run:
        text = TextOut.of(await threads.reads.run(library.get_text, collection, id))
        return JSONResponse(DeleteOut.dry_run(text).model_dump())
    await threads.writes.run(library.delete_text, collection, id)
    return None


def texts_response(texts: Sequence[Text], warnings: Sequence[AnswerWarning] = ()) -> TextsOut:
    return TextsOut(
        texts=[TextOut.of(text) for text in texts], warnings=[WarningOut.of(warning) for warning in warnings]
    )


def warn_of_texts(search: SearchService, body: TextsIn) -> list[AnswerWarning]:
    """What is odd about the texts that were sent."""
    reader = search.model.searcher.reader
    return [warning for n, item in enumerate(body.texts) for warning in reader.warn(item.text, f"texts.{n}.text")]


def store_texts(
    search: SearchService, library: Library, collection: str, body: TextsIn, slot: ResponseSlot | None = None
) -> list[Text]:
    """Encode the texts, store them, and wait until the index has them."""
    model = search.model
    try:
        return store_with_model(model, search, library, collection, body, slot)
    except ModelUnavailable:
        search.wait_for_other_model(model)  # it has just changed
        return store_with_model(search.model, search, library, collection, body, slot)


def store_with_model(
    model: LoadedModel,
    search: SearchService,
    library: Library,
    collection: str,
    body: TextsIn,
    slot: ResponseSlot | None,
) -> list[Text]:
    vectors = model.searcher.encode_texts([item.text for item in body.texts])
    items = [(item.id, item.text, item.metadata) for item in body.texts]
    truncated = [model.searcher.reader.is_truncated(item.text) for item in body.texts]
    stored, seq = library.put_texts(collection, model.encoder.space.fingerprint, items, vectors, slot, truncated)
    search.wait_until_applied(collection, "texts", seq)
    return stored
