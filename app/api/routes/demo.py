"""The demo gallery, taken in by the server itself: for an empty page that offers something to try."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from fastapi import APIRouter, BackgroundTasks

from app.api.dependencies import CollectionDep, ServiceDep, ThreadPoolsDep, open_incoming_folder
from app.api.routes.texts import store_texts
from app.api.schemas import JobOut, TextIn, TextsIn
from app.core.errors import NotFound, SightlineError, StartupError, map_os_errors
from app.core.types import Job
from app.service import demo_gallery
from app.service.service import Service
from app.storage.jobs import ReceivedFile

router = APIRouter(prefix="/v1/demo", tags=["jobs"])
log = logging.getLogger(__name__)

TEXTS_A_TIME = 500


@router.post("", status_code=202)
async def add_demo(
    service: ServiceDep, lanes: ThreadPoolsDep, collection: CollectionDep, later: BackgroundTasks
) -> JobOut:
    """Add the pictures of the demo gallery by a job, as if they had been sent, and its texts beside it."""
    gallery = require_gallery()
    _ = service.searcher  # texts need the model: while it loads, nothing is begun
    async with open_incoming_folder(service, lanes) as folder:
        job = await lanes.writes.run(submit_gallery, service, collection, gallery, folder)
    later.add_task(lanes.queries.run, add_texts, service, collection, gallery)
    return JobOut.of(job)


def require_gallery() -> Path:
    """The folder of the gallery. Raises NotFound when this installation has none."""
    try:
        return demo_gallery.find_gallery()
    except StartupError:
        raise NotFound("the demo gallery is not installed with this server") from None


def submit_gallery(service: Service, collection: str, gallery: Path, folder: Path) -> Job:
    """Take a copy of the archive in; it is expanded and read as any other."""
    path = folder / demo_gallery.ARCHIVE
    with map_os_errors():
        shutil.copyfile(gallery / demo_gallery.ARCHIVE, path)
    return service.bulks.add_files(collection, [ReceivedFile(demo_gallery.ARCHIVE, path, archive=True)])


def add_texts(service: Service, collection: str, gallery: Path) -> None:
    """Store the gallery's texts. They were promised to nobody: when that fails, the log says why."""
    try:
        texts = [TextIn.model_validate(text) for text in demo_gallery.read_gallery_texts(gallery / demo_gallery.TEXTS)]
        for start in range(0, len(texts), TEXTS_A_TIME):
            store_texts(service, collection, TextsIn(texts=texts[start : start + TEXTS_A_TIME]))
    except SightlineError as error:
        log.warning("the demo's texts are missing: %s", error.detail)
