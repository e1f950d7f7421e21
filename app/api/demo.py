"""The demo gallery, taken in by the server itself: for an empty page that offers something to try."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from fastapi import APIRouter, BackgroundTasks

from app import samples
from app.api.depends import CollectionDep, LanesDep, ServiceDep, incoming
from app.api.schemas import JobOut, TextIn, TextsIn
from app.api.texts import put
from app.bulks import Upload
from app.errors import NotFound, SightlineError, StartupError, translated
from app.service import Service
from app.types import Job

router = APIRouter(prefix="/v1/demo", tags=["jobs"])
log = logging.getLogger(__name__)

TEXTS_A_TIME = 500


@router.post("", status_code=202)
async def add_demo(service: ServiceDep, lanes: LanesDep, collection: CollectionDep, later: BackgroundTasks) -> JobOut:
    """Add the pictures of the demo gallery by a job, as if they had been sent, and its texts beside it."""
    gallery = installed()
    _ = service.searcher  # texts need the model: while it loads, nothing is begun
    async with incoming(service, lanes) as folder:
        job = await lanes.writes.run(add_gallery, service, collection, gallery, folder)
    later.add_task(lanes.queries.run, add_texts, service, collection, gallery)
    return JobOut.of(job)


def installed() -> Path:
    """The folder of the gallery. Raises NotFound when this installation has none."""
    try:
        return samples.gallery()
    except StartupError:
        raise NotFound("the demo gallery is not installed with this server") from None


def add_gallery(service: Service, collection: str, gallery: Path, folder: Path) -> Job:
    """Take a copy of the archive in; it is expanded and read as any other."""
    path = folder / samples.ARCHIVE
    with translated():
        shutil.copyfile(gallery / samples.ARCHIVE, path)
    return service.bulks.add(collection, [Upload(samples.ARCHIVE, path, archive=True)])


def add_texts(service: Service, collection: str, gallery: Path) -> None:
    """Store the gallery's texts. They were promised to nobody: when that fails, the log says why."""
    try:
        texts = [TextIn.model_validate(text) for text in samples.texts(gallery / samples.TEXTS)]
        for start in range(0, len(texts), TEXTS_A_TIME):
            put(service, collection, TextsIn(texts=texts[start : start + TEXTS_A_TIME]))
    except SightlineError as error:
        log.warning("the demo's texts are missing: %s", error.detail)
