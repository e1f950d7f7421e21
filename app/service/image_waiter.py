"""Waits for pictures to be ready or failed: one thread reads the rows of all who wait, and only after a commit."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.core.errors import NotFound
from app.core.types import Image, Status
from app.storage.database import Database
from app.storage.sql import Connection
from app.storage.tables import images

POLL_SECONDS = 0.005  # between two looks at SQLite's counter of commits, while somebody waits
UNFINISHED = (Status.QUEUED, Status.PROCESSING)


class ImageWaiter(BackgroundLoop):
    """Completes a future when its picture is ready or failed. Workers commit in other processes: `data_version` tells
    that they did, without reading a row."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._data_version = database.watch_commits()
        self._lock = threading.Lock()  # guards what follows
        self._waiting: dict[Future[Image], Image] = {}
        self._seen: int | None = None  # the data_version of the last read
        failing = "callers with `wait` do not see that their pictures are ready"
        super().__init__("image-waiter", self._look, failing, Backoff(0.1, 5.0))

    def watch(self, image: Image) -> Future[Image]:
        """A future of the picture once it is ready or failed; of NotFound once it is deleted. Cancel it to give up."""
        future: Future[Image] = Future()
        with self._lock:
            self._waiting[future] = image
            self._seen = None  # the row may have changed since the caller read it
        self.wake()
        return future

    def _look(self) -> float | None:
        with self._lock:
            self._waiting = {future: image for future, image in self._waiting.items() if not future.done()}
            waiting = dict(self._waiting)
            seen = self._seen
            if waiting:
                self._seen = self._data_version()
            changed = self._seen != seen
        if not waiting:
            return None
        if changed:
            try:
                complete(waiting, self._database.read(lambda c: read_again(c, waiting)))
            except BaseException:
                with self._lock:
                    self._seen = None
                raise
        return POLL_SECONDS


def read_again(c: Connection, waiting: Mapping[Future[Image], Image]) -> dict[Future[Image], Image | None]:
    """The present row of each picture; None for deleted ones. A replaced picture keeps its id, not its key."""
    found = images.get_by_keys(c, {image.key for image in waiting.values()})
    return {
        future: found.get(image.key) or images.get(c, image.collection, image.id) for future, image in waiting.items()
    }


def complete(waiting: Mapping[Future[Image], Image], now: Mapping[Future[Image], Image | None]) -> None:
    for future, image in now.items():
        if (image is not None and image.status in UNFINISHED) or not future.set_running_or_notify_cancel():
            continue
        if image is None:
            gone = waiting[future]
            future.set_exception(NotFound(f"there is no picture {gone.id!r} in {gone.collection!r}"))
        else:
            future.set_result(image)
