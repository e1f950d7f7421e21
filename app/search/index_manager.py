"""IndexManager: the open indexes, one for each (collection, target), each kept equal to its log.

The first search that needs an index opens it and waits; searches of other indexes do not. One thread follows the logs
of all (`index.follower_loop`), so an open index costs only its memory. That is bounded: past the bound the manager
saves and closes those that no search used for longest, never one in use. It also closes one whose log is not the same
any more: the database was restored, or its standby has taken over without the last entries. An `IndexBuilder` gives
large ones a sealed segment; when that is damaged on the disk, the manager opens the index anew and refuses searches
meanwhile.

With a Milvus client the vectors are there. While the server does not answer, every search says so.

A search takes an index by `use` once, and keeps that one until its answer is complete.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.core.errors import NotFound, Overloaded, SightlineError, StartupError, describe_error
from app.core.metrics import ProcessMetrics
from app.core.types import DEFAULT_COLLECTION, EmbeddingSpace, Target
from app.search.index_builder import BuildCancelled, BuildFailed, IndexBuilder
from app.search.index_handle import TOTALS, EmbeddingLog, IndexHandle, IndexKey
from app.storage.database import Database
from app.storage.membership import SINGLE_SERVER, Membership
from app.storage.sql import Connection
from app.storage.tables import collections, embeddings
from index import snapshot
from index.errors import IndexClosed, RemoteUnavailable, SegmentDamaged
from index.factory import IndexConfig, drop_remote_index, open_index
from index.follower import Follower
from index.follower_loop import FollowerLoop
from index.milvus_client import MilvusAddress, MilvusClient
from index.protocol import OpenedIndex, RemoteIndex, VectorIndex
from index.segmented import RebuildPolicy
from index.snapshot_scheduler import SnapshotPolicy
from index.types import Embeddings

log = logging.getLogger(__name__)

TARGETS: tuple[Target, ...] = ("images", "texts")
UNLIMITED_MEMORY = 1 << 62
OPEN_SECONDS = 20.0  # how long a search waits for an index that another one is opening
MAX_WAITERS = 16  # searches that wait for the same index to be opened; more are refused
MEMORY_CHECK_SECONDS = 1.0
MEMORY_MARGIN = 0.9  # so much of the memory stays in use when some are closed: not for each one that is opened
BUILD_BEFORE_FOLLOWING = 200_000
"""From so many log entries that no snapshot holds, a segment is built before the index follows: in memory they would
take 2 KB each (at d = 512), and a build takes a third of the time."""
MIN_SNAPSHOT_ENTRIES = 1_000
FEEDING = "milvus"  # the duty of writing an index, before its name
SHARED_POLICY = SnapshotPolicy(entries=1, idle=0.1, share=0.5)  # other servers read how far Milvus is
SNAPSHOT_POLICY = SnapshotPolicy(least=MIN_SNAPSHOT_ENTRIES)  # replaying fewer takes milliseconds and needs no file
FAULT_SECONDS = 20.0  # how long an opening retries a log that cannot be read


def open_milvus_client(where: str, token: str) -> MilvusClient | None:
    """A client of the server that the settings name, not yet connected; None for `local`. Raises StartupError."""
    try:
        return None if where == "local" else MilvusClient(MilvusAddress.parse(where, token))
    except ValueError as error:
        raise StartupError(f"--index (SIGHTLINE_INDEX): {error}") from None


@contextmanager
def map_remote_errors() -> Iterator[None]:
    """Turn RemoteUnavailable into Overloaded: the same request may succeed later."""
    try:
        yield
    except RemoteUnavailable as error:
        raise Overloaded(str(error)) from error


class GrownLogs:
    """Tells which logs have grown since the last call; None where the database has lost the end of some."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seq, self._mark = database.read(self._find_end)

    def __call__(self) -> list[IndexKey] | None:
        (last, newest), mark, grown = self._database.read(
            lambda c: (
                self._find_end(c),
                embeddings.find_newest_mark(c, self._mark),
                embeddings.list_grown_logs(c, self._seq),
            )
        )
        self._seq, self._mark = last if mark is None else max(self._seq, last), newest
        return None if mark is None else grown

    def _find_end(self, c: Connection) -> tuple[int, str]:
        return embeddings.get_last_seq_of_all(c), embeddings.find_newest_mark(c) or ""


class IndexManager:
    """Opens, follows and closes the indexes of one data directory. Any thread may call any method.

    Snapshots are in `folder`, under the labels of collections and their targets. `memory` is the bound in bytes,
    `policy` says when an index gets a sealed segment. With `milvus` the vectors are there, under the time at which the
    data directory was made, so that several can share one server.
    """

    def __init__(
        self,
        database: Database,
        space: EmbeddingSpace,
        folder: Path,
        milvus: MilvusClient | None = None,
        policy: RebuildPolicy | None = None,
        memory: int = UNLIMITED_MEMORY,
        metrics: ProcessMetrics | None = None,
        membership: Membership = SINGLE_SERVER,
    ) -> None:
        self._membership = membership
        self._database = database
        self._space = space
        self._folder = folder
        self._milvus = milvus
        self._memory = memory
        default = database.read(lambda c: collections.get(c, DEFAULT_COLLECTION))
        self._owner = default.created_at if default else ""
        self._changed = threading.Condition()  # guards what follows
        self._open: dict[IndexKey, IndexHandle] = {}
        self._busy: dict[IndexKey, int] = {}  # being opened or closed, and how many searches wait for that
        self._dropped: set[str] = set()
        self._total = 0  # bytes of all open indexes at the last check
        self._full = False  # whether to close some now
        self._closing = False
        self._loop: FollowerLoop[IndexKey] = FollowerLoop(database.watch_commits(), GrownLogs(database))
        self._builder = IndexBuilder(database.address, policy, on_damaged=self._reopen, metrics=metrics)
        self._keeper = BackgroundLoop(
            "index-memory",
            self._keep,
            "an index was not closed as it should be",
            Backoff(MEMORY_CHECK_SECONDS, MEMORY_CHECK_SECONDS),
        )
        self._loop.start()
        self._keeper.start()

    def calibrate_with(self, list_asked: Callable[[str, Target], Sequence[Embeddings]]) -> None:
        """Calibrate sealed segments with the vectors of queries that this function has of a collection's index."""
        self._builder.list_asked = lambda key: list_asked(collections.name_from_label(key[0]), key[1])

    def open(self, name: str) -> None:
        """Open both indexes of a collection, so that no search has to wait for them."""
        for target in TARGETS:
            with self.use(name, target):
                pass

    @contextmanager
    def use(self, name: str, target: Target) -> Iterator[VectorIndex]:
        """The index of a collection, opened if need be; it stays open until the `with` ends.

        An index that had to be opened holds all that its log held when this was called. Raises NotFound, and Overloaded
        where another search has been opening it for long, while a damaged one is built again, or where Milvus does not
        answer inside the `with`.
        """
        handle = self._acquire((self._label(name), target))
        try:
            with map_remote_errors():
                yield handle.index
        except SegmentDamaged:
            raise Overloaded(f"the index of {target} was damaged on the disk and is being built again") from None
        finally:
            self._release(handle)

    def wait_until_applied(self, name: str, target: Target, seq: int, timeout: float) -> bool:
        """Whether a search that begins now sees the log up to `seq`, after `timeout` seconds at most.

        The follower wakes the caller. A search of an index that is not open sees all: it opens it. A Milvus that is
        known to be away is not waited for. Raises NotFound.
        """
        if self._milvus is not None and self._milvus.is_away:
            return False
        key = (self._label(name), target)
        began = time.monotonic()
        with self._changed:
            if not self._changed.wait_for(lambda: key not in self._busy, timeout):
                return False
            handle = self._open.get(key)
        if handle is None:
            return True
        if isinstance(handle.index, RemoteIndex) and handle.index.fault is not None:
            return False
        if handle.follower.wait_until_applied(seq, began + timeout - time.monotonic()):
            return True
        with self._changed:  # closed meanwhile: the next search opens it anew
            return self._open.get(key) is not handle

    def watch_applied(self, name: str, target: Target, seq: int) -> Callable[[], bool]:
        """A function that tells, without a call or a read, whether a search that begins now sees the log up to `seq`.

        Raises NotFound.
        """
        key = (self._label(name), target)
        with self._changed:
            handle = self._open.get(key)
        if handle is None:  # a search opens it with all that its log holds
            return lambda: True
        wanted = min(seq, handle.log.last_seq())  # the log of this index may have no entry with this very number
        handle.follower.notify()
        return lambda: handle.follower.has_applied(wanted) or self._open.get(key) is not handle

    def drop(self, label: str) -> None:
        """Close the indexes of a collection that is being deleted, and open them no more. Waits for their searches."""
        with self._changed:
            self._dropped.add(label)
            self._wait_until_idle(label)
            keys = [key for key in self._open if key[0] == label]
        for key in keys:
            self._shut(key, wait=True, save=False)
        with self._changed:  # the memory check may have closed one at the same time
            self._wait_until_idle(label)
        self.drop_remote(label)

    def drop_remote(self, label: str) -> None:
        """Remove the vectors of a collection from Milvus, if they are there."""
        if self._milvus is None:
            return
        for target in TARGETS:
            try:
                drop_remote_index(self._config((label, target)), self._milvus)
            except RemoteUnavailable as error:  # they do no harm: no other collection gets this name in Milvus
                log.warning("the vectors of %s/%s stay in Milvus: %s", label, target, error)

    def list_open_collections(self) -> set[str]:
        """The names of the collections that have open indexes."""
        return {collections.name_from_label(handle.key[0]) for handle in self._list_open()}

    def catch_up(self, timeout: float) -> None:
        """Wait until every open index holds what its log holds now, so many seconds at most."""
        until = time.monotonic() + timeout
        for handle in self._list_open():
            handle.follower.wait_until_applied(handle.log.last_seq(), max(0.0, until - time.monotonic()))

    def faults(self) -> list[str]:
        """Why searches cannot be answered; empty when they can."""
        threads = (self._loop, self._keeper, self._builder)
        return [] if all(thread.is_alive() for thread in threads) else ["the indexes have stopped following"]

    def remote_faults(self) -> list[str]:
        """Why searches cannot be answered until Milvus is back; empty when they can."""
        return [
            f"the index of {handle.key[1]}: {handle.index.fault}"
            for handle in self._list_open()
            if isinstance(handle.index, RemoteIndex) and handle.index.fault is not None
        ]

    def background_faults(self) -> list[str]:
        """What fails in the background while searches are answered; each is tried again by itself."""
        found = [self._keeper.fault] if self._keeper.fault else []
        for handle in self._list_open():
            (label, target), follower = handle.key, handle.follower
            index = f"{target} of {collections.name_from_label(label)}"
            if follower.error is not None:
                found.append(f"the index of {index} does not follow its log: {describe_error(follower.error)}")
            if follower.save_error is not None:
                found.append(f"no snapshot of the index of {index}: {describe_error(follower.save_error)}")
        return found + self._builder.faults()

    def stats(self, name: str) -> dict[Target, dict[str, object]]:
        """Kind, size and lag of each index of a collection; kind `closed` where it is not open."""
        label = self._label(name)
        return {target: self._describe((label, target)) for target in TARGETS}

    def totals(self) -> dict[Target, dict[str, float]]:
        """Numbers of all open indexes of each target: their sums, and the largest lag."""
        totals: dict[Target, dict[str, float]] = {target: dict.fromkeys(TOTALS, 0.0) for target in TARGETS}
        for handle in self._list_open():
            with suppress(IndexClosed):  # meanwhile
                handle.add_to(totals[handle.key[1]])
        return totals

    def memory(self) -> dict[str, int]:
        """How many indexes are open and how many bytes they hold."""
        opened = self._list_open()
        return {"open": len(opened), "bytes": sum(handle.nbytes for handle in opened)}

    def close(self) -> None:
        """Save and close every index."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._builder.close()
        self._keeper.close()
        self._loop.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)
            left, self._open = self._open, {}
        for handle in left.values():
            handle.follower.close()
            handle.index.close()

    def _list_open(self) -> list[IndexHandle]:
        with self._changed:
            return list(self._open.values())

    def _label(self, name: str) -> str:
        if name == DEFAULT_COLLECTION:
            return name
        return self._database.read(lambda c: collections.require(c, name)).label

    def _acquire(self, key: IndexKey) -> IndexHandle:
        """The handle of an index, opened if need be, with one more user."""
        with self._changed:
            self._wait_while_busy(key)
            if key not in self._open:
                self._wait_for_memory()
                self._wait_while_busy(key)  # another thread may have begun meanwhile
            self._check_wanted(key)
            handle = self._open.get(key)
            if handle is None:
                self._busy[key] = 0
            else:
                handle.users += 1
                handle.used_at = time.monotonic()
                return handle
        try:
            handle = self._open_handle(key)
            handle.users, handle.used_at = 1, time.monotonic()
            with self._changed:
                self._open[key] = handle
                self._total += handle.nbytes
                if self._total > self._memory:
                    self._request_closing()
            self._loop.attach(key, handle.follower)
            self._builder.watch(handle)
        finally:
            with self._changed:
                del self._busy[key]
                self._changed.notify_all()
        return handle

    def _release(self, handle: IndexHandle) -> None:
        """One user less."""
        with self._changed:
            handle.users -= 1
            self._changed.notify_all()

    def _wait_while_busy(self, key: IndexKey) -> None:
        """Wait while it is opened or closed. Raises Overloaded where that takes long, or many wait.

        Not all threads that search may wait for one collection: searches of the others need some.
        """
        if key not in self._busy:
            return
        if self._busy[key] < MAX_WAITERS:
            self._busy[key] += 1
            if self._changed.wait_for(lambda: key not in self._busy, OPEN_SECONDS):
                return
        raise Overloaded(f"the index of {collections.name_from_label(key[0])!r} is being opened; try again")

    def _wait_until_idle(self, label: str) -> None:
        """Wait until no index of the collection is being opened or closed."""
        self._changed.wait_for(lambda: not any(key[0] == label for key in self._busy))

    def _wait_for_memory(self) -> None:
        """Wait while indexes can be closed for memory, so that searches open none faster than these are closed."""
        if self._total > self._memory:
            self._request_closing()
            self._changed.wait_for(lambda: not self._full or self._closing, OPEN_SECONDS)

    def _request_closing(self) -> None:
        self._full = True
        self._keeper.wake()

    def _check_wanted(self, key: IndexKey) -> None:
        if self._closing:
            raise Overloaded("the service is stopping")
        if key[0] in self._dropped:
            raise NotFound(f"there is no collection {collections.name_from_label(key[0])!r}")

    def _open_handle(self, key: IndexKey) -> IndexHandle:
        """Open an index from its snapshot, and apply the rest of its log.

        Raises Overloaded when the log cannot be read or Milvus does not answer, and NotFound when nobody wants it any
        more.
        """
        entries = EmbeddingLog(self._database, self._space, key)
        config = self._config(key)
        with map_remote_errors():
            opened = open_index(config, last_seq=entries.last_seq(), has_mark=entries.has_mark)
        if self._milvus is None and entries.count_after(opened.applied_seq) > BUILD_BEFORE_FOLLOWING:
            opened = self._build_first(key, config, entries, opened)
        if opened.refused:
            log.warning("snapshot of %s not used (%s); rebuilding from the log", config.name, opened.refused)
        policy = SNAPSHOT_POLICY
        if self._milvus is not None:
            policy = SHARED_POLICY if self._membership.is_cluster else SnapshotPolicy()
        follower = Follower(
            opened,
            entries,
            config.name,
            policy,
            may_write=lambda: self._feeds(config),
            on_outdated=self._keeper.wake,
        )
        try:
            self._catch_up(key, follower, entries.last_seq())
        except BaseException:
            follower.close(save=False)
            opened.index.close()
            raise
        return IndexHandle(key, config, entries, opened.index, follower)

    def _feeds(self, config: IndexConfig) -> bool:
        """Whether this server writes an index of Milvus: of a cluster one does that has it open."""
        return self._milvus is None or self._membership.try_lead(f"{FEEDING} {config.name} {config.space}")

    def _config(self, key: IndexKey) -> IndexConfig:
        label, target = key
        folder = self._folder / label / target
        return IndexConfig(
            f"{label}/{target}", self._space.fingerprint, self._space.d, folder, self._milvus, self._owner
        )

    def _build_first(
        self, key: IndexKey, config: IndexConfig, entries: EmbeddingLog, opened: OpenedIndex
    ) -> OpenedIndex:
        """The index with a sealed segment of all that its log holds; `opened` where the build fails."""
        log.info("building a sealed segment of %s first", config.name)
        try:
            self._builder.build(key, config, entries.read_end())
        except (BuildFailed, BuildCancelled) as error:
            log.warning("no sealed segment of %s, following without: %s", config.name, error)
            return opened
        return open_index(config, last_seq=entries.last_seq(), has_mark=entries.has_mark)

    def _catch_up(self, key: IndexKey, follower: Follower, last_seq: int) -> None:
        """Apply the log up to `last_seq` on this thread; see `_open_handle`."""
        name = f"{key[0]}/{key[1]}"
        logged_at = worked_at = time.monotonic()
        while follower.applied_seq < last_seq:
            pause = follower.step()
            self._check_wanted(key)
            now = time.monotonic()
            if follower.is_outdated:
                raise Overloaded(f"the log of {collections.name_from_label(key[0])!r} was replaced; try again")
            if isinstance(follower.error, RemoteUnavailable):
                raise Overloaded(str(follower.error))
            if follower.error is None:
                worked_at = now
            elif now - worked_at > FAULT_SECONDS:
                raise Overloaded(f"the index of {collections.name_from_label(key[0])!r} cannot be opened at present")
            else:
                time.sleep(pause or 0.0)
            if now - logged_at > 1.0:
                logged_at = now
                log.info("the index of %s is catching up: %d of %d", name, follower.applied_seq, last_seq)

    def _describe(self, key: IndexKey) -> dict[str, object]:
        with self._changed:
            handle = self._open.get(key)
            if handle is not None:
                handle.users += 1  # so that it is not closed meanwhile
        if handle is None:
            label, target = key
            space = self._space.fingerprint
            count, last_seq = self._database.read(
                lambda c: (
                    embeddings.count_vectors(c, label, space, target),
                    embeddings.get_last_seq(c, label, space, target),
                )
            )
            return {"kind": "closed", "ntotal": count, "applied_seq": last_seq, "lag": 0}
        try:
            return handle.describe()
        finally:
            self._release(handle)

    def _reopen(self, handle: IndexHandle) -> None:
        """Drop a damaged sealed segment, and the index with it; build both again. On the builder's thread."""
        with self._changed:
            if self._open.get(handle.key) is not handle:
                return
        snapshot.discard(handle.config.segment_folder)
        self._shut(handle.key, wait=True, save=False)
        with suppress(SightlineError):  # the next search tries again
            self._release(self._acquire(handle.key))

    def _keep(self) -> float:
        try:
            self._close_outdated()
        finally:
            self._close_surplus()
        return MEMORY_CHECK_SECONDS

    def _close_outdated(self) -> None:
        """Close what has followed a log that the database does not have any more. The next search opens it anew."""
        for handle in self._list_open():
            if handle.follower.is_outdated:
                if isinstance(handle.index, RemoteIndex):
                    handle.index.forget_applied()
                self._shut(handle.key, wait=True, save=False)

    def _close_surplus(self) -> None:
        """Close what is too much: after each opening, and now and then, since an open index may grow."""
        try:
            with self._changed:
                surplus = self._choose_surplus()
            for key in surplus:
                self._shut(key, wait=False, save=True)
        finally:
            with self._changed:
                self._full = False
                self._changed.notify_all()

    def _choose_surplus(self) -> list[IndexKey]:
        """Which to close so that the rest fits with some room: the least recently used, none in use, never the last."""
        self._total = sum(handle.nbytes for handle in self._open.values())
        if self._total <= self._memory:
            return []
        chosen: list[IndexKey] = []
        rest = self._total
        for key in sorted(self._open, key=lambda key: self._open[key].used_at)[:-1]:
            if rest <= self._memory * MEMORY_MARGIN:
                break
            if self._open[key].users == 0:
                chosen.append(key)
                rest -= self._open[key].nbytes
        return chosen

    def _shut(self, key: IndexKey, *, wait: bool, save: bool) -> None:
        """Close one, after its searches if `wait`, else only if it has none. Meanwhile it is busy: nobody opens it."""
        with self._changed:
            handle = self._open.get(key)
            if handle is None or key in self._busy:
                return
            if wait:
                self._changed.wait_for(lambda: handle.users == 0)
            if handle.users or self._open.get(key) is not handle:
                return
            del self._open[key]
            self._total -= handle.nbytes
            self._busy[key] = 0
        try:
            self._builder.release(handle)
            self._loop.detach(key)
            handle.follower.close(save=save)
            self._membership.release(f"{FEEDING} {handle.config.name} {handle.config.space}")
            handle.index.close()
        finally:
            with self._changed:
                del self._busy[key]
                self._changed.notify_all()
