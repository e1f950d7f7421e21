"""Read the camera data of stored pictures: of those that an older version embedded, or of all again."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import Any

from app.core.errors import SightlineError
from app.core.types import CameraData, Image, Job
from app.decode.camera_data import camera_data_from_json
from app.decode.picture import describe_picture
from app.decode.pool import DecodePool
from app.service.tasks import TaskContext
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.sql import Connection
from app.storage.tables import collections, images

KIND = "camera_data"  # of the job
READ_AT_ONCE = 32


class CameraDataReader:
    """Reads the camera data of the pictures of one data directory."""

    def __init__(self, library: Library, jobs: JobService, pool: DecodePool) -> None:
        self._library = library
        self._jobs = jobs
        self._pool = pool

    def start(self, collection: str, again: bool) -> Job:
        """Queue the job; `again`: also for pictures that were read before. Raises NotFound, InProgress."""
        return self._jobs.add_task(collection, KIND, {"again": again})

    def run(self, context: TaskContext) -> dict[str, Any]:
        """The handler of the task. What it has read stays read when it is stopped."""
        again = bool(context.parameters.get("again"))
        database = self._library.database
        label = database.read(lambda c: collections.require(c, context.collection)).label
        total = database.read(lambda c: images.count_undescribed(c, label, again=again))
        after = done = unreadable = 0
        list_next = partial(images.list_undescribed, label=label, again=again, limit=READ_AT_ONCE)
        while rows := database.read(partial(list_next, after=after)):
            context.check()
            reading = [(image, self._begin(image)) for image in rows]
            found = [(image, data) for image, future in reading if (data := read_data(future)) is not None]
            context.write(partial(self._record, found=found, again=again))
            after, done, unreadable = rows[-1].key, done + len(rows), unreadable + len(rows) - len(found)
            context.report(done, max(total, done))
        return {"pictures": done, "unreadable": unreadable}

    def _begin(self, image: Image) -> Future[Any]:
        try:
            file = self._library.blobs.fetch(image.sha256)
            reading = self._pool.submit(describe_picture, file.path, self._pool.picture_limits)
            reading.add_done_callback(lambda _: file.close())
            return reading
        except SightlineError as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed

    def _record(self, c: Connection, found: list[tuple[Image, CameraData]], again: bool) -> None:
        present = images.get_by_keys(c, [image.key for image, _ in found])
        for image, data in found:
            if image.key in present and present[image.key].sha256 == image.sha256:
                self._library.record_camera_data(c, image.key, data, again=again)


def read_data(reading: Future[Any]) -> CameraData | None:
    """The camera data; None where the file cannot be read. Raises SightlineError where the machine is at fault."""
    try:
        return camera_data_from_json(reading.result())
    except ValueError:  # a child that was taken over may say anything
        return None
    except SightlineError as error:
        if error.retryable:
            raise
        return None
