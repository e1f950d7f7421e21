"""Collections: create, list, describe and delete them."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.api.dependencies import DeleterDep, LibraryDep, ThreadsDep, is_collection_allowed, validate_collection
from app.api.schemas import CollectionIn, CollectionOut, CollectionsOut, SpaceOut, UnicodeText
from app.core.types import CollectionInfo

router = APIRouter(prefix="/v1/collections", tags=["collections"])


class CollectionPatch(BaseModel):
    """What may be changed of a collection."""

    model_config = ConfigDict(extra="forbid")

    description: UnicodeText


@router.get("")
async def list_collections(library: LibraryDep, threads: ThreadsDep) -> CollectionsOut:
    """Every collection with its counts and space."""
    found = await threads.reads.run(library.list_collections)
    return CollectionsOut(
        collections=[collection_response(contents) for contents in found if is_collection_allowed(contents.name)]
    )


@router.post("", status_code=201)
async def make_collection(library: LibraryDep, threads: ThreadsDep, body: CollectionIn) -> CollectionOut:
    """Make an empty collection. 409 `id_conflict` when there is one of this name."""
    return collection_response(
        await threads.writes.run(library.create_collection, validate_collection(body.name), body.description)
    )


@router.get("/{name}")
async def get_collection(library: LibraryDep, threads: ThreadsDep, name: str) -> CollectionOut:
    """One collection with its counts and space."""
    return collection_response(await threads.reads.run(library.get_collection, validate_collection(name)))


@router.patch("/{name}")
async def describe_collection(
    library: LibraryDep, threads: ThreadsDep, name: str, body: CollectionPatch
) -> CollectionOut:
    """Change a collection's description."""
    name = validate_collection(name)
    return collection_response(await threads.writes.run(library.update_collection, name, body.description))


@router.delete("/{name}", status_code=204)
async def delete_collection(deleter: DeleterDep, threads: ThreadsDep, name: str) -> None:
    """Delete a collection with all that is in it; its running jobs end as `cancelled`. Not `default`."""
    await threads.writes.run(deleter.delete, validate_collection(name))


def collection_response(contents: CollectionInfo) -> CollectionOut:
    space = contents.space
    return CollectionOut(
        name=contents.name,
        description=contents.description,
        images=contents.images,
        texts=contents.texts,
        space=SpaceOut(fingerprint=space.fingerprint, model=space.model, d=space.d) if space else None,
        created_at=contents.created_at,
    )
