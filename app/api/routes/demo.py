"""The demo gallery, added by the server itself: for an empty page that offers something to try."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from fastapi import BackgroundTasks

from app.api.dependencies import (
    CollectionDep,
    JobsDep,
    LibraryDep,
    SearchDep,
    ThreadsDep,
    open_incoming_folder,
)
from app.api.routes.texts import store_texts
from app.api.schemas.jobs import JobOut
from app.api.schemas.texts import TextIn, TextsIn
from app.api.strict_route import new_router
from app.core.errors import NotFound, SightlineError, StartupError, describe_error, map_os_errors
from app.core.types import Job
from app.service import demo_gallery
from app.service.search_service import SearchService
from app.storage.jobs import JobService, ReceivedFile
from app.storage.library import Library

router = new_router("/v1/demo", "upload")
log = logging.getLogger(__name__)

TEXTS_PER_CALL = 500
NOT_INSTALLED = "the demo gallery is not installed with this server"


@router.post("", status_code=202)
async def add_demo(
    library: LibraryDep,
    jobs: JobsDep,
    search: SearchDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    later: BackgroundTasks,
) -> JobOut:
    """Add the demo gallery. A job adds its pictures as if they had been sent; its texts come beside them."""
    gallery = require_gallery()
    _ = search.searcher  # texts need the model: while it loads, nothing begins
    async with open_incoming_folder(library, threads) as folder:
        job = await threads.writes.run(submit_gallery, jobs, collection, gallery, folder)
    later.add_task(threads.queries.run, add_texts, search, library, collection, gallery)
    return JobOut.of(job)


def require_gallery() -> Path:
    """The folder of the gallery. Raises NotFound when this installation has none."""
    try:
        return demo_gallery.find_gallery()
    except StartupError:
        raise NotFound(NOT_INSTALLED) from None


def submit_gallery(jobs: JobService, collection: str, gallery: Path, folder: Path) -> Job:
    """Add a copy of the archive, as any other archive."""
    path = folder / demo_gallery.ARCHIVE
    try:
        with map_os_errors():
            shutil.copyfile(gallery / demo_gallery.ARCHIVE, path)
    except FileNotFoundError:  # somebody installs another version
        raise NotFound(NOT_INSTALLED) from None
    return jobs.add_files(collection, [ReceivedFile("Demo gallery", path, archive=True)])


def add_texts(search: SearchService, library: Library, collection: str, gallery: Path) -> None:
    """Store the gallery's texts. The answer is sent already: when that fails, the log says why."""
    try:
        texts = [TextIn.model_validate(text) for text in demo_gallery.read_gallery_texts(gallery / demo_gallery.TEXTS)]
        for start in range(0, len(texts), TEXTS_PER_CALL):
            store_texts(search, library, collection, TextsIn(texts=texts[start : start + TEXTS_PER_CALL]))
    except (SightlineError, OSError) as error:
        log.warning("the demo's texts are missing: %s", describe_error(error))
