"""Collections. This version keeps one, `default`; each record already says which one it belongs to."""

from __future__ import annotations

import apsw
from fastapi import APIRouter

from app.api.depends import LanesDep, ServiceDep, checked_collection
from app.api.schemas import CollectionIn, CollectionOut, CollectionsOut, SpaceOut
from app.errors import NotFound, Validation
from app.store import collections, embeddings, images, texts
from app.store.collections import Collection

router = APIRouter(prefix="/v1/collections", tags=["collections"])

ONLY_ONE = "this version keeps the collection 'default' alone; it can be neither joined by others nor deleted"


@router.get("")
async def list_collections(service: ServiceDep, lanes: LanesDep) -> CollectionsOut:
    """Every collection with its counts and space."""

    def work(c: apsw.Connection) -> list[CollectionOut]:
        return [described(c, collection) for collection in collections.every(c)]

    return CollectionsOut(collections=await lanes.reads.run(service.database.read, work))


@router.post("", status_code=201)
async def make_collection(body: CollectionIn) -> CollectionOut:
    """Not offered yet."""
    raise Validation(ONLY_ONE)


@router.get("/{name}")
async def get_collection(service: ServiceDep, lanes: LanesDep, name: str) -> CollectionOut:
    """One collection with its counts and space."""
    checked_collection(name)

    def work(c: apsw.Connection) -> CollectionOut:
        collection = collections.get(c, name)
        if collection is None:
            raise NotFound(f"there is no collection {name!r}")
        return described(c, collection)

    return await lanes.reads.run(service.database.read, work)


@router.delete("/{name}", status_code=204)
async def delete_collection(name: str) -> None:
    """Not offered yet."""
    raise Validation(ONLY_ONE)


def described(c: apsw.Connection, collection: Collection) -> CollectionOut:
    """A collection as the contract words it."""
    space = embeddings.space(c, collection.space) if collection.space else None
    return CollectionOut(
        name=collection.name,
        description=collection.description,
        images=sum(images.counts(c, collection.name).values()),
        texts=texts.count(c, collection.name),
        space=SpaceOut(fingerprint=space.fingerprint, model=space.model, d=space.d) if space else None,
        created_at=collection.created_at,
    )
