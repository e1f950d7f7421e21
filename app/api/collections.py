"""Collections. This version keeps one, `default`; each record already says which one it belongs to."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.depends import LanesDep, ServiceDep, checked_collection, granted
from app.api.schemas import CollectionIn, CollectionOut, CollectionsOut, SpaceOut
from app.errors import Validation
from app.types import Contents

router = APIRouter(prefix="/v1/collections", tags=["collections"])

ONLY_ONE = "this version keeps the collection 'default' alone; it can be neither joined by others nor deleted"


@router.get("")
async def list_collections(service: ServiceDep, lanes: LanesDep) -> CollectionsOut:
    """Every collection with its counts and space."""
    found = await lanes.reads.run(service.library.collections)
    return CollectionsOut(collections=[described(contents) for contents in found if granted(contents.name)])


@router.post("", status_code=201)
async def make_collection(body: CollectionIn) -> CollectionOut:
    """Not offered yet."""
    raise Validation(ONLY_ONE)


@router.get("/{name}")
async def get_collection(service: ServiceDep, lanes: LanesDep, name: str) -> CollectionOut:
    """One collection with its counts and space."""
    return described(await lanes.reads.run(service.library.collection, checked_collection(name)))


@router.delete("/{name}", status_code=204)
async def delete_collection(name: str) -> None:
    """Not offered yet."""
    checked_collection(name)
    raise Validation(ONLY_ONE)


def described(contents: Contents) -> CollectionOut:
    """A collection as the contract words it."""
    space = contents.space
    return CollectionOut(
        name=contents.name,
        description=contents.description,
        images=contents.images,
        texts=contents.texts,
        space=SpaceOut(fingerprint=space.fingerprint, model=space.model, d=space.d) if space else None,
        created_at=contents.created_at,
    )
