"""Heads: teach a collection one, list them, delete one. `PUT /v1/collections/{name}/head` chooses among them."""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.admission import BodyLimit
from app.api.dependencies import (
    DryRunQuery,
    HeadsDep,
    LibraryDep,
    OptionalCollectionDep,
    ThreadsDep,
    is_collection_allowed,
    merge_query,
    open_incoming_folder,
    validate_collection,
)
from app.api.multipart import describe_form
from app.api.openapi import CollectionText
from app.api.pair_tasks import PairsForm, PairsIn, PairTasksDep, Split
from app.api.schemas.collections import SpaceOut
from app.api.schemas.fields import CollectionName, HeadId, example
from app.api.schemas.images import DeleteOut
from app.api.schemas.jobs import JobOut
from app.api.strict_route import new_router
from app.core.errors import NotFound
from app.core.types import HeadInfo
from app.service.heads import TEACH
from app.sources.pairs import CAPTIONS

MAX_SET_BYTES = 64 << 20
SET = BodyLimit(lambda settings: settings.max_json_bytes, lambda settings: MAX_SET_BYTES)
router = new_router("/v1/heads", "collections", SET)

DryRun = Annotated[bool, Field(description="Tell the figures, and keep no head (false).")]
TakeOn = Annotated[bool, Field(description="Use the head from its end on, if it is kept (true).")]


class HeadIn(PairsIn):
    """What to teach a collection by."""

    model_config = ConfigDict(json_schema_extra=example(source=CAPTIONS))

    split: Split = "train"
    dry_run: DryRun = False
    take_on: TakeOn = True
    collection: CollectionName = None


class HeadForm(PairsForm):
    """A set of pairs to teach a collection by."""

    split: Split = "train"
    dry_run: DryRun = False
    take_on: TakeOn = True
    collection: CollectionName = None


class HeadOut(BaseModel):
    """A head that a collection was taught."""

    id: str
    collection: str
    space: SpaceOut
    is_used: bool = Field(description="Whether the collection uses it; it counts while the server has its model.")
    figures: dict[str, Any] = Field(
        description="What was measured on held-out pairs, as in the result of its job: it has an `R@k` for each k."
    )
    created_at: str

    @classmethod
    def of(cls, head: HeadInfo) -> Self:
        space = SpaceOut(fingerprint=head.space, model=head.model, d=head.d)
        figures = dict(head.figures)
        return cls(
            id=head.id,
            collection=head.collection,
            space=space,
            is_used=head.is_used,
            figures=figures,
            created_at=head.created_at,
        )


class HeadsOut(BaseModel):
    """Heads, newest first."""

    heads: list[HeadOut]


HEAD_FORM = describe_form(HeadForm, HeadIn)


@router.post("", status_code=202, openapi_extra=HEAD_FORM, response_model=JobOut)
async def teach_head(
    tasks: PairTasksDep, library: LibraryDep, threads: ThreadsDep, collection: OptionalCollectionDep
) -> Any:
    """Teach a collection a head. A job learns a linear map of texts from pairs, and keeps it only if it helps.

    The pairs are the captions of the collection, or a set that is sent along or lies on the server.
    """
    async with open_incoming_folder(library, threads) as folder:
        received = await tasks.receive(folder, HeadIn, HeadForm)
        asked = merge_query(received.asked, collection=collection)
        how = {"dry_run": asked.dry_run, "take_on": asked.take_on}
        return await tasks.begin(received, validate_collection(asked.collection), TEACH, how)


@router.get("")
async def list_heads(
    service: HeadsDep,
    threads: ThreadsDep,
    collection: Annotated[CollectionText | None, Query(description="Only those of this collection.")] = None,
) -> HeadsOut:
    """List heads, newest first."""
    named = None if collection is None else validate_collection(collection)
    found = await threads.reads.run(service.list_all, named)
    return HeadsOut(heads=[HeadOut.of(head) for head in found if is_collection_allowed(head.collection)])


@router.get("/{id}")
async def get_head(service: HeadsDep, threads: ThreadsDep, id: HeadId) -> HeadOut:
    """Get one head, with its figures."""
    return HeadOut.of(require_allowed(await threads.reads.run(service.get, id)))


@router.delete("/{id}", status_code=204, response_model=None, responses={200: {"model": DeleteOut[HeadOut]}})
async def delete_head(
    service: HeadsDep, threads: ThreadsDep, id: HeadId, dry_run: DryRunQuery = None
) -> Response | None:
    """Delete a head. A collection that uses it searches without one from now on."""
    head = require_allowed(await threads.reads.run(service.get, id))
    if dry_run:
        return JSONResponse(DeleteOut.dry_run(HeadOut.of(head)).model_dump())
    await threads.writes.run(service.delete, id)
    return None


def require_allowed(head: HeadInfo) -> HeadInfo:
    """Raise NotFound for the head of a collection that this request's key is not bound to."""
    if not is_collection_allowed(head.collection):
        raise NotFound(f"there is no head {head.id!r}")
    return head
