"""Removes in a thread of its own what killed processes left behind, once, and old jobs, now and then."""

from __future__ import annotations

import logging
import threading

from app.bulks import Bulks
from app.errors import brief
from app.library import Library
from app.store import jobs, steering

log = logging.getLogger(__name__)

GRACE = 3600.0  # seconds that what nobody uses is left alone
PRUNE_SECONDS = 3600.0  # between two looks for old jobs


class Sweeper:
    """The one that sweeps, of a server. Jobs that ended `job_days` ago are forgotten; 0 keeps them all."""

    def __init__(self, library: Library, bulks: Bulks, job_days: float) -> None:
        self._library = library
        self._bulks = bulks
        self._job_days = job_days
        self._faults: dict[str, str] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Begin. Once only."""
        self._thread.start()

    def close(self) -> None:
        """End after what is under way."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def faults(self) -> list[str]:
        """What it could not do, and tries again at the next start or later."""
        return list(self._faults.values())

    def _run(self) -> None:
        try:
            self._sweep()
        except Exception as error:  # nothing may end this thread
            self._told("left", f"what killed processes left is not swept away: {brief(error)}")
        while True:
            try:
                self._bulks.forget(self._job_days, self._closing.is_set)
                self._faults.pop("jobs", None)
            except Exception as error:
                self._told("jobs", f"old jobs are not forgotten: {brief(error)}")
            if self._closing.wait(PRUNE_SECONDS):
                return

    def _sweep(self) -> None:
        """Jobs half cancelled, uploads of no job, files of no picture."""
        database = self._library.database
        for id in database.read(steering.dropping):
            self._bulks.drop_items(id)
        waiting = database.read(jobs.sources)
        names = {f"{job}-{n}{suffix}" for job, n in waiting for suffix in ("", ".members")}
        removed = self._library.media.sweep(names, GRACE)
        removed += self._library.sweep(GRACE, self._closing.is_set)
        if removed:
            log.info("removed %d files that nothing uses", removed)

    def _told(self, what: str, fault: str) -> None:
        self._faults[what] = fault
        log.warning("%s", fault, exc_info=True)
