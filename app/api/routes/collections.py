"""Collections: made, listed and dropped."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.api.dependencies import LanesDep, ServiceDep, checked_collection, granted
from app.api.schemas import CollectionIn, CollectionOut, CollectionsOut, SpaceOut, Valid
from app.core.types import Contents

router = APIRouter(prefix="/v1/collections", tags=["collections"])


class CollectionPatch(BaseModel):
    """What may be changed of a collection."""

    model_config = ConfigDict(extra="forbid")

    description: Valid


@router.get("")
async def list_collections(service: ServiceDep, lanes: LanesDep) -> CollectionsOut:
    """Every collection with its counts and space."""
    found = await lanes.reads.run(service.library.collections)
    return CollectionsOut(collections=[described(contents) for contents in found if granted(contents.name)])


@router.post("", status_code=201)
async def make_collection(service: ServiceDep, lanes: LanesDep, body: CollectionIn) -> CollectionOut:
    """Make an empty collection. 409 `id_conflict` when there is one of this name."""
    return described(
        await lanes.writes.run(service.library.make_collection, checked_collection(body.name), body.description)
    )


@router.get("/{name}")
async def get_collection(service: ServiceDep, lanes: LanesDep, name: str) -> CollectionOut:
    """One collection with its counts and space."""
    return described(await lanes.reads.run(service.library.collection, checked_collection(name)))


@router.patch("/{name}")
async def describe_collection(service: ServiceDep, lanes: LanesDep, name: str, body: CollectionPatch) -> CollectionOut:
    """Change a collection's description."""
    name = checked_collection(name)
    return described(await lanes.writes.run(service.library.describe_collection, name, body.description))


@router.delete("/{name}", status_code=204)
async def delete_collection(service: ServiceDep, lanes: LanesDep, name: str) -> None:
    """Drop a collection with all that is in it; its running jobs end as `cancelled`. Not `default`."""
    await lanes.writes.run(service.drop, checked_collection(name))


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
