"""The watched folders of this machine: a thread for each keeps the pictures of its collection equal to it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.core.errors import NotFound, Rejected, SightlineError, Validation
from app.sources.base import SourcePolicy
from app.sources.local_files import copy_file, open_plain
from app.sources.watched_folder import FolderWatcher, LookResult, WatchOptions
from app.storage.library import Library
from app.storage.membership import SINGLE_SERVER, Duty, Membership
from app.storage.tables.watches import WatchedFile
from app.storage.watches import ChangesResult, FileChange, Watch, WatchReport, WatchStore

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0  # after a first failure; longer after each further one


class FolderTarget:
    """A WatchTarget in the same process. Links lead only to places that the operator allows the server to read."""

    def __init__(self, library: Library, store: WatchStore, policy: SourcePolicy, watch: Watch) -> None:
        self._library = library
        self._store = store
        self._policy = policy
        self._watch = watch
        self.max_bytes = policy.max_bytes

    def count_files(self) -> int:
        return self._store.get(self._watch.id).files

    def find_identity(self) -> str | None:
        return self._store.get(self._watch.id).identity

    def is_confirmed(self) -> bool:
        return self._store.get(self._watch.id).confirmed

    def mirrors_deletions(self) -> bool:
        return self._watch.mirrors_deletions

    def list_folders(self) -> list[str]:
        return self._store.list_folders(self._watch)

    def list_files(self, folder: str) -> list[WatchedFile]:
        return self._store.list_files(self._watch, folder)

    def find_by_inode(self, inode: int) -> list[WatchedFile]:
        return self._store.find_by_inode(self._watch, inode)

    def find_by_sha256(self, sha256: str) -> list[WatchedFile]:
        return self._store.find_by_sha256(self._watch, sha256)

    def open(self, path: Path) -> BinaryIO:
        return open_plain(self._resolve(path))

    def report(self, said: WatchReport) -> None:
        self._store.report(self._watch, said)

    def apply(self, changes: Sequence[FileChange], paths: Mapping[str, Path]) -> ChangesResult:
        result = self._store.apply(self._watch.id, changes)
        wanted = {path: paths[path] for path in result.wanted if path in paths}
        if not wanted:
            return result
        with self._copy(wanted) as copies:
            sent = [change for change in changes if change.path in copies]
            result.merge(self._store.apply(self._watch.id, sent, copies))
        result.wanted = [path for path in result.wanted if path not in copies]
        return result

    @contextmanager
    def _copy(self, wanted: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
        """Copies of the files, by their paths; without those that cannot be read, or change meanwhile."""
        folder = self._library.create_upload_dir()
        copies = {}
        try:
            for n, (name, path) in enumerate(wanted.items()):
                with suppress(Rejected, Validation):
                    copy_file(self._resolve(path), folder / str(n), self.max_bytes)
                    copies[name] = folder / str(n)
            yield copies
        finally:
            self._library.delete_upload_dir(folder)

    def _resolve(self, path: Path) -> Path:
        """The file, without links on the way. Raises Validation: a link may have replaced a folder."""
        return self._policy.folders.resolve_folder(str(path.parent)) / path.name


class _Thread:
    """The thread of one watched folder."""

    def __init__(self, library: Library, store: WatchStore, policy: SourcePolicy, watch: Watch, rescan: float) -> None:
        self.watch = watch
        self._policy = policy
        self._stopped = threading.Event()
        self._store = store
        options = WatchOptions(
            exclude=tuple(watch.options.get("exclude", ())),
            poll_seconds=watch.options.get("poll_seconds"),
            rescan_seconds=rescan,
            allow_mass_delete=watch.options.get("allow_mass_delete", False),
        )
        target = FolderTarget(library, store, policy, watch)
        self._watcher = FolderWatcher(Path(watch.place), target, options, self._stopped, self._note)
        failing = f"the watched folder {watch.id} is not read"
        self.loop = BackgroundLoop("watch-folder", self._run, failing, Backoff(RETRY_SECONDS, 12 * RETRY_SECONDS))
        self.loop.start()

    def scan_now(self) -> None:
        self._watcher.scan_now()

    def close(self) -> None:
        self._stopped.set()
        self.loop.close()

    def _run(self) -> None:
        if not self._policy.folders.allows(Path(self.watch.place)):
            fault = "the server may not read this folder; its operator lists the folders that it may read"
            self._store.report(self.watch, WatchReport("refused", fault))
            raise Validation(fault)
        try:
            self._watcher.run()
        except NotFound:
            if any(one.id == self.watch.id for one in self._store.list_all()):
                raise
            log.info("the collection of a watched folder was deleted", extra={"watch": self.watch.id})

    def _note(self, result: LookResult) -> None:
        self.loop.fault = None  # it works again
        if result:
            counts = (result.added, result.replaced, result.moved, result.deleted)
            log.info(
                "watched folder: %d new, %d changed, %d renamed, %d deleted", *counts, extra={"watch": self.watch.id}
            )


class WatchManager:
    """Starts and ends the threads of the watched folders as they are added, paused and removed.

    Of a cluster, one server reads them, of those that may read folders.
    """

    def __init__(
        self,
        library: Library,
        policy: SourcePolicy,
        rescan_seconds: float,
        membership: Membership = SINGLE_SERVER,
    ) -> None:
        self._membership = membership
        step = membership.only_leader(Duty.WATCHES, self._follow, self._end_threads)
        failing = "the watched folders are not read"
        self._following = BackgroundLoop("watched-folders", step, failing, Backoff(RETRY_SECONDS, 12 * RETRY_SECONDS))
        self.store = WatchStore(library)
        self._library = library
        self._policy = policy
        self._rescan_seconds = rescan_seconds
        self._threads: dict[str, _Thread] = {}
        self._lock = threading.Lock()
        self._is_closed = True

    def start(self) -> None:
        self._is_closed = False
        if self._membership.is_cluster:
            self._following.start()
            return
        try:
            self.refresh()
        except SightlineError as error:
            log.warning("the watched folders are not read: %s", error.detail)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self._following.close()
        self._end_threads()

    def _end_threads(self) -> None:
        with self._lock:
            threads, self._threads = list(self._threads.values()), {}
        for thread in threads:
            thread.close()

    def _follow(self) -> None:
        """Do what was asked for at any server of the cluster."""
        self.refresh()
        asked = self.store.list_asked_scans()
        for id in asked:
            if (thread := self._threads.get(id)) is not None:
                thread.scan_now()
        self.store.forget_asked_scans(asked)

    def refresh(self) -> None:
        """Run a thread for each watched folder of this machine that is not paused, and no other."""
        with self._lock:
            if self._is_closed or not self._membership.leads(Duty.WATCHES):
                return
            wanted = {one.id: one for one in self.store.list_all() if one.kind == "folder" and not one.paused}
            for id, thread in list(self._threads.items()):
                if id not in wanted or wanted[id].options != thread.watch.options:
                    del self._threads[id]
                    thread.close()
            for id, watch in wanted.items():
                if id not in self._threads:
                    given = (self._library, self.store, self._policy, watch)
                    self._threads[id] = _Thread(*given, self._rescan_seconds)

    def create(self, collection: str, kind: str, place: str, title: str, options: Mapping[str, object]) -> Watch:
        """Watch a folder. Raises NotFound, Validation."""
        watch = self.store.create(collection, kind, place, title, options)
        self.refresh()
        return watch

    def set_paused(self, id: str, *, paused: bool) -> Watch:
        """Raises NotFound."""
        watch = self.store.set_paused(id, paused=paused)
        self.refresh()
        return watch

    def delete(self, id: str) -> None:
        """Watch a folder no more; its pictures stay. Raises NotFound."""
        self.store.set_paused(id, paused=True)
        self.refresh()
        self.store.delete(id)

    def scan_now(self, id: str) -> Watch:
        """Look at every file of a folder soon. Raises NotFound, Validation where the server does not read it."""
        watch = self.store.get(id)
        thread = self._threads.get(id)
        if thread is None and self._membership.is_cluster and watch.kind == "folder" and not watch.paused:
            self.store.ask_for_scan(watch)
            return watch
        if thread is None:
            raise Validation("the server does not read this folder: it is paused, or a client sends it")
        thread.scan_now()
        return watch

    def fault(self) -> str | None:
        """How many folders of this machine are not read; their own faults name paths, which are not for everybody."""
        if self._following.fault is not None:
            return self._following.fault
        failing = sum(thread.loop.fault is not None for thread in list(self._threads.values()))
        return f"{failing} watched folders are not read; GET /v1/watches says why" if failing else None
