"""Collections: create, list, describe and delete them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field

from app.api.dependencies import (
    DeleterDep,
    DryRunQuery,
    HeadsDep,
    LibraryDep,
    ThreadsDep,
    is_collection_allowed,
    validate_collection,
)
from app.api.openapi import CollectionText, describe_field
from app.api.schemas.collections import CollectionIn, CollectionOut, CollectionsOut, SpaceOut
from app.api.schemas.fields import HeadId, RequestModel, UnicodeText, example
from app.api.schemas.images import DeleteOut
from app.api.strict_route import new_router
from app.core.types import DEFAULT_COLLECTION, CollectionInfo
from app.service.maintenance import require_deletable

DeletableName = Annotated[CollectionText, describe_field(**{"not": {"const": DEFAULT_COLLECTION}})]

router = new_router("/v1/collections", "collections")


class CollectionPatch(RequestModel):
    """What may be changed of a collection."""

    model_config = ConfigDict(json_schema_extra=example(description="The birds of 2026"))

    description: UnicodeText


@router.get("")
async def list_collections(library: LibraryDep, threads: ThreadsDep) -> CollectionsOut:
    """List the collections, with their counts and spaces."""
    found = await threads.reads.run(library.list_collections)
    return CollectionsOut(
        collections=[collection_response(contents) for contents in found if is_collection_allowed(contents.name)]
    )


@router.post("", status_code=201)
async def create_collection(library: LibraryDep, threads: ThreadsDep, body: CollectionIn) -> CollectionOut:
    """Create an empty collection. 409 `id_conflict` when there is one of this name."""
    return collection_response(
        await threads.writes.run(library.create_collection, validate_collection(body.name), body.description)
    )


@router.get("/{name}")
async def get_collection(library: LibraryDep, threads: ThreadsDep, name: CollectionText) -> CollectionOut:
    """Get one collection, with its counts and space."""
    return collection_response(await threads.reads.run(library.get_collection, validate_collection(name)))


@router.patch("/{name}")
async def update_collection(
    library: LibraryDep, threads: ThreadsDep, name: CollectionText, body: CollectionPatch
) -> CollectionOut:
    """Change a collection's description."""
    name = validate_collection(name)
    return collection_response(await threads.writes.run(library.update_collection, name, body.description))


class HeadChoice(RequestModel):
    """The head that a collection is to use."""

    model_config = ConfigDict(json_schema_extra=example(head="0f3a9c41d27be865"))

    head: HeadId | None = Field(description="One that this collection was taught; null takes it off.")


@router.put("/{name}/head")
async def use_head(service: HeadsDep, threads: ThreadsDep, name: CollectionText, body: HeadChoice) -> CollectionOut:
    """Use a head that the collection was taught, or none. The next search follows; no vector changes."""
    return collection_response(await threads.writes.run(service.use, validate_collection(name), body.head))


@router.delete("/{name}", status_code=204, response_model=None, responses={200: {"model": DeleteOut[CollectionOut]}})
async def delete_collection(
    library: LibraryDep, deleter: DeleterDep, threads: ThreadsDep, name: DeletableName, dry_run: DryRunQuery = None
) -> Response | None:
    """Delete a collection with all that is in it. Its running jobs end as `cancelled`; `default` stays."""
    name = validate_collection(name)
    if dry_run:
        require_deletable(name)
        collection = collection_response(await threads.reads.run(library.get_collection, name))
        return JSONResponse(DeleteOut.dry_run(collection).model_dump())
    await threads.writes.run(deleter.delete, name)
    return None


def collection_response(contents: CollectionInfo) -> CollectionOut:
    space = contents.space
    return CollectionOut(
        name=contents.name,
        description=contents.description,
        images=contents.images,
        texts=contents.texts,
        space=SpaceOut(fingerprint=space.fingerprint, model=space.model, d=space.d) if space else None,
        head=contents.head,
        created_at=contents.created_at,
    )
