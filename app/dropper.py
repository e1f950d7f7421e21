"""Sweeps away what dropped collections left, a few rows at a time, in a thread of its own.

A collection is gone for everybody as soon as its name is; this is the rest: rows, files and snapshots. It ends where
it was when the server is killed, and goes on at the next start.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.errors import Validation, brief, translated
from app.library import Library
from app.store import collections, dropping
from app.types import DEFAULT_COLLECTION

log = logging.getLogger(__name__)

ROWS = 100  # of each kind, and pictures with their files, that one commit removes
RETRY_SECONDS = 5.0
PAUSE_SECONDS = 0.002  # between two commits, so that others get the write lock


class Dropper:
    """The one that sweeps, of a server. `forget` returns when the indexes of a label are closed; its
    snapshots lie in `snapshots`."""

    def __init__(self, library: Library, snapshots: Path, forget: Callable[[str], None]) -> None:
        self._library = library
        self._snapshots = snapshots
        self._forget = forget
        self._moved = threading.Condition()
        self._asked = True  # whether to look for what is going; a kill may have left some
        self._closing = False
        self._sweeping: set[str] = set()
        self.fault: str | None = None  # why it does not get on; it goes on trying
        self._thread = threading.Thread(target=self._run, name="dropper", daemon=True)

    def start(self) -> None:
        """Begin with what is left from before."""
        self._thread.start()

    def close(self) -> None:
        """End after the commit that is under way."""
        with self._moved:
            self._closing = True
            self._moved.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def drop(self, name: str, wait: float) -> None:
        """Drop a collection: nobody finds anything of it when this returns.

        That is when nothing is left of it, or after `wait` seconds. Raises NotFound, and Validation for the one that
        is always there.
        """
        if name == DEFAULT_COLLECTION:
            raise Validation(f"the collection {name!r} is always there; delete its pictures and texts instead")
        label, uploads = self._library.database.write(lambda c: dropping.mark(c, name))
        for job, n in uploads:
            self._library.media.discard_upload(job, n)
        with self._moved:
            self._sweeping.add(label)
            self._asked = True
            self._moved.notify_all()
            self._moved.wait_for(lambda: label not in self._sweeping or self._closing, wait)

    def _run(self) -> None:
        while True:
            with self._moved:
                self._moved.wait_for(lambda: self._asked or self._closing)
                if self._closing:
                    return
                self._asked = False
            try:
                for label in self._library.database.read(dropping.going):
                    self._sweep(label)
                self._tidy()
                self.fault = None
            except Exception as error:  # a full disk, say: nobody sees what is left meanwhile
                self.fault = f"dropped collections are not swept away yet: {brief(error)}"
                log.warning("%s", self.fault, exc_info=True)
                with self._moved:
                    self._moved.wait_for(lambda: self._closing, RETRY_SECONDS)
                    self._asked = True

    def _sweep(self, label: str) -> None:
        """Remove everything of one label; ends early when we are closing."""
        self._forget(label)
        unused = self._library.media.delete
        while not self._closing and self._library.database.write(lambda c: dropping.sweep(c, label, ROWS, unused)):
            with self._moved:
                self._moved.wait_for(lambda: self._closing, PAUSE_SECONDS)
        if self._closing:
            return
        with translated(), suppress(FileNotFoundError):
            shutil.rmtree(self._snapshots / label)
        self._library.database.write(lambda c: dropping.finish(c, label))
        log.info("the dropped collection %s is swept away", collections.name_of(label))
        with self._moved:
            self._sweeping.discard(label)
            self._moved.notify_all()

    def _tidy(self) -> None:
        """Remove snapshots that belong to no collection."""
        if not self._snapshots.is_dir():
            return
        folders = {folder.name for folder in self._snapshots.iterdir() if collections.MARK in folder.name}
        for label in folders - {one.label for one in self._library.database.read(collections.every)}:
            shutil.rmtree(self._snapshots / label, ignore_errors=True)
