"""What this server gets by itself, and from where, for those who may add pictures."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from app.api.depends import ServiceDep

router = APIRouter(prefix="/v1/sources", tags=["jobs"])


class SourcesOut(BaseModel):
    """What the operator allows `POST /v1/images/ingest` to read."""

    urls: bool
    folders: list[str]
    max_urls: int


@router.get("")
async def get_sources(service: ServiceDep) -> SourcesOut:
    """Whether pictures are fetched by URL, how many at once, and the folders of this machine that may be read."""
    settings = service.settings
    folders = [folder for folder in settings.folders.split(":") if folder]
    return SourcesOut(urls=settings.fetch, folders=folders, max_urls=settings.max_urls)
