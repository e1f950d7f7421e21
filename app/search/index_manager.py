"""The indexes that are open: one for each (collection, target), each kept equal to its log.

An index is opened when it is first asked for, and whoever asks waits for it; nobody else does. One thread follows
the logs of all (`index.follower_loop`), so an open index costs its memory alone, and for that there is a bound: past
it those
that were asked for longest ago are saved and closed. One that is in use is never closed. A `Builder` gives large ones
a base; when that goes bad on the disk, the index is opened anew while searches are turned away.

With an engine (Milvus) the vectors are there, and it may be out of reach: that is told, never answered around.

Whoever searches takes an index by `use` once, and keeps that one until the answer is put together.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.core.errors import NotFound, Overloaded, SightlineError, StartupError, describe_error
from app.core.metrics import ProcessMetrics
from app.core.types import DEFAULT_COLLECTION, EmbeddingSpace, Target
from app.search.index_builder import BuildFailed, BuildStopped, IndexBuilder, SegmentBuild
from app.storage.database import Database
from app.storage.tables import collections, embeddings
from index import snapshot
from index.errors import IndexClosed, RemoteUnavailable, SegmentDamaged
from index.factory import IndexConfig, OpenedIndex, create_milvus_client, drop_remote_index, open_index, open_segmented
from index.follower import Follower
from index.follower_loop import BATCHES_PER_STEP, FollowerLoop
from index.milvus_client import MilvusClient
from index.protocol import RemoteIndex, SizedIndex, VectorIndex
from index.segmented import RebuildPolicy, SegmentedIndex
from index.snapshot_scheduler import SnapshotPolicy
from index.types import LogEntry, Op

log = logging.getLogger(__name__)

TARGETS: tuple[Target, ...] = ("images", "texts")
UNLIMITED_MEMORY = 1 << 62
OPEN_SECONDS = 20.0  # how long a search waits for an index that another one is opening
MAX_WAITERS = 16  # searches that wait for the same index to be opened; more are told to come again
MEMORY_CHECK_SECONDS = 1.0  # between two looks at the memory of all
MEMORY_MARGIN = 0.9  # so much of the memory stays in use when some are closed: not for each opening one


def open_milvus_client(where: str, token: str) -> MilvusClient | None:
    """The engine that the settings name; None where the indexes are in this process. Raises StartupError."""
    try:
        return create_milvus_client(where, token)
    except ValueError as error:
        raise StartupError(f"--index (SIGHTLINE_INDEX): {error}") from None


class IndexManager:
    """Opens, follows and closes the indexes of one data directory. Any thread may call any method.

    Snapshots lie in `folder`, under the labels of collections and their targets. `memory` is the bound in bytes,
    `policy` says when an index gets a base. With `engine` they are there, under the birth of the data directory, so
    that several can share one.
    """

    def __init__(
        self,
        database: Database,
        space: EmbeddingSpace,
        folder: Path,
        engine: MilvusClient | None = None,
        policy: RebuildPolicy | None = None,
        memory: int = UNLIMITED_MEMORY,
        metrics: ProcessMetrics | None = None,
    ) -> None:
        self._database = database
        self._space = space
        self._engine = engine
        self._memory = memory
        self._moved = threading.Condition()  # guards what follows
        self._open: dict[IndexKey, IndexHandle] = {}
        self._busy: dict[IndexKey, int] = {}  # being opened or closed, and how many searches wait for that
        self._dropped: set[str] = set()
        self._total = 0  # bytes of all that are open, as they were at the last look
        self._fault: str | None = None  # of the thread that closes
        self._full = False  # whether to look at the memory now
        self._closing = False
        self._driver: FollowerLoop[IndexKey] = FollowerLoop(database.watch_commits(), GrownLogs(database))
        self._builder = IndexBuilder(database.path, policy, damaged=self._reopen, metrics=metrics)
        self._opener = IndexOpener(database, space, folder, self._builder, self._driver.wake, engine)
        self._keeper = threading.Thread(target=self._keep, name="indexes", daemon=True)
        self._driver.start()
        self._keeper.start()

    def open(self, name: str) -> None:
        """Open both indexes of a collection, so that no search has to wait for them."""
        for target in TARGETS:
            with self.use(name, target):
                pass

    @contextmanager
    def use(self, name: str, target: Target) -> Iterator[VectorIndex]:
        """The index of a collection, opened if need be, and not closed before the `with` ends.

        It holds all that its log held when this was called, if it had to be opened. Raises NotFound, and Overloaded
        where another search has been opening it for long, while a damaged one is built again, or where its engine
        cannot be asked inside the `with`.
        """
        one = self._take((self._label(name), target))
        try:
            with map_remote_errors():
                yield one.index
        except SegmentDamaged:
            raise Overloaded(f"the index of {target} was damaged on the disk and is being built again") from None
        finally:
            self._give(one)

    def settle(self, name: str, target: Target, seq: int, timeout: float) -> bool:
        """Whether a search that begins now sees the log up to `seq`, after `timeout` seconds at most.

        One that is not open does: it is opened for that search. An engine that is known to be away is not waited for.
        """
        if self._engine is not None and self._engine.away:
            return False
        key = (self._label(name), target)
        began = time.monotonic()
        with self._moved:
            if not self._moved.wait_for(lambda: key not in self._busy, timeout):
                return False
            one = self._open.get(key)
        if one is None:
            return True
        if isinstance(one.index, RemoteIndex) and one.index.fault is not None:
            return False
        return one.follower.wait_for(seq, began + timeout - time.monotonic()) or self._is_closed(key, one)

    def forget(self, label: str) -> None:
        """Close what is open of a collection that is being dropped, and open it no more. Waits for its searches."""
        with self._moved:
            self._dropped.add(label)
            self._moved.wait_for(lambda: not any(key[0] == label for key in self._busy))
            keys = [key for key in self._open if key[0] == label]
        for key in keys:
            self._shut(key, lambda one: self._moved.wait_for(lambda: one.users == 0), save=False)
        with self._moved:  # one may have been closed for its memory at the same time
            self._moved.wait_for(lambda: not any(key[0] == label for key in self._busy))
        for target in TARGETS:
            self._opener.discard((label, target))

    def away(self) -> list[str]:
        """Why searches cannot be answered until an engine is back; empty when they can."""
        with self._moved:
            found = [(key[1], one.index) for key, one in self._open.items()]
        return [
            f"the index of {target}: {index.fault}"
            for target, index in found
            if isinstance(index, RemoteIndex) and index.fault is not None
        ]

    def faults(self) -> list[str]:
        """Why searches cannot be answered; empty when they can."""
        with self._moved:
            ended = [key for key, one in self._open.items() if not one.follower.alive()]
        if not self._driver.alive() or not self._keeper.is_alive() or not self._builder.alive():
            return ["the indexes have stopped following"]
        return [
            f"the index of {target} of {collections.name_from_label(label)} has stopped following"
            for label, target in ended
        ]

    def troubles(self) -> list[str]:
        """What goes wrong in the background while searches are answered; it is tried again by itself."""
        with self._moved:
            followed = [(key, one.follower) for key, one in self._open.items()]
        found = [self._fault] if self._fault else []
        for (label, target), follower in followed:
            named = f"{target} of {collections.name_from_label(label)}"
            if follower.error is not None:
                found.append(f"the index of {named} does not follow its log: {describe_error(follower.error)}")
            if follower.save_error is not None:
                found.append(f"no snapshot of the index of {named}: {describe_error(follower.save_error)}")
        return found + self._builder.faults()

    def stats(self, name: str) -> dict[Target, dict[str, object]]:
        """Kind, size and lag of each index of a collection; kind `closed` where it is not open."""
        label = self._label(name)
        return {target: self._stats((label, target)) for target in TARGETS}

    def totals(self) -> dict[Target, dict[str, float]]:
        """Numbers of all open indexes of each target: their sums, and the largest lag."""
        with self._moved:
            found = list(self._open.items())
        totals: dict[Target, dict[str, float]] = {target: dict.fromkeys(TOTALS, 0.0) for target in TARGETS}
        for (_, target), one in found:
            with suppress(IndexClosed):  # since
                add_to_totals(totals[target], one)
        return totals

    def memory(self) -> dict[str, int]:
        """How many indexes are open and what they hold in bytes."""
        with self._moved:
            found = list(self._open.values())
        return {"open": len(found), "bytes": sum(one.bytes() for one in found)}

    def close(self) -> None:
        """Save and close every index."""
        with self._moved:
            self._closing = True
            self._moved.notify_all()
        self._builder.close()
        self._keeper.join()
        self._driver.close()
        with self._moved:
            self._moved.wait_for(lambda: not self._busy)
            left, self._open = self._open, {}
        for one in left.values():
            one.follower.close()
            one.index.close()

    def _label(self, name: str) -> str:
        if name == DEFAULT_COLLECTION:
            return name
        collection = self._database.read(lambda c: collections.get(c, name))
        if collection is None:
            raise NotFound(f"there is no collection {name!r}")
        return collection.label

    def _take(self, key: IndexKey) -> IndexHandle:
        """The open index, with one more user."""
        with self._moved:
            self._wait(key)
            if key not in self._open:
                self._make_room()
                self._wait(key)  # somebody else may have begun meanwhile
            self._check(key)
            one = self._open.get(key)
            if one is None:
                self._busy[key] = 0
            else:
                one.users += 1
                one.used = time.monotonic()
                return one
        try:
            one = self._opener(key, lambda: self._check(key))
            one.users, one.used = 1, time.monotonic()
            with self._moved:
                self._open[key] = one
                self._total += one.bytes()
                self._full = self._full or self._total > self._memory
            self._driver.attach(key, one.follower)
            if one.site is not None:
                self._builder.take(one.site)
        finally:
            with self._moved:
                del self._busy[key]
                self._moved.notify_all()
        return one

    def _wait(self, key: IndexKey) -> None:
        """Until it is neither being opened nor closed. Raises Overloaded where that takes long, or many wait.

        Not all threads that search may wait for one collection: the others' searches need some.
        """
        if key not in self._busy:
            return
        if self._busy[key] < MAX_WAITERS:
            self._busy[key] += 1
            if self._moved.wait_for(lambda: key not in self._busy, OPEN_SECONDS):
                return
        raise Overloaded(f"the index of {collections.name_from_label(key[0])!r} is being opened; try again")

    def _make_room(self) -> None:
        """Wait for the keeper where there is too much that it can close, so that nobody opens faster than it closes."""
        if self._total > self._memory:
            self._full = True
            self._moved.notify_all()
            self._moved.wait_for(lambda: not self._full or self._closing, OPEN_SECONDS)

    def _check(self, key: IndexKey) -> None:
        if self._closing:
            raise Overloaded("the service is stopping")
        if key[0] in self._dropped:
            raise NotFound(f"there is no collection {collections.name_from_label(key[0])!r}")

    def _is_closed(self, key: IndexKey, one: IndexHandle) -> bool:
        """Whether it was closed while we waited for it: the next search opens it anew."""
        with self._moved:
            return self._open.get(key) is not one

    def _stats(self, key: IndexKey) -> dict[str, object]:
        with self._moved:
            one = self._open.get(key)
            if one is not None:
                one.users += 1  # so that it is not closed meanwhile
        if one is None:
            label, target = key
            space = self._space.fingerprint
            count, head = self._database.read(
                lambda c: (
                    embeddings.count_vectors(c, label, space, target),
                    embeddings.get_last_seq(c, label, space, target),
                )
            )
            return {"kind": "closed", "ntotal": count, "applied_seq": head, "lag": 0}
        try:
            return describe_index(one)
        finally:
            self._give(one)

    def _give(self, one: IndexHandle) -> None:
        """One user less."""
        with self._moved:
            one.users -= 1
            self._moved.notify_all()

    def _reopen(self, site: SegmentBuild) -> None:
        """Drop a damaged base, and the index with it; build both again. On the builder's thread."""
        key = site.collection, site.target
        with self._moved:
            one = self._open.get(key)
        if one is None or one.site is not site or site.config.bases is None:
            return
        snapshot.discard(site.config.bases)
        self._shut(key, lambda one: self._moved.wait_for(lambda: one.users == 0), save=False)
        with suppress(SightlineError):  # the next search tries again
            self._give(self._take(key))

    def _keep(self) -> None:
        """Close what is too much, whenever one was opened and now and then: an open one may grow."""
        while True:
            with self._moved:
                self._moved.wait_for(lambda: self._full or self._closing, MEMORY_CHECK_SECONDS)
                if self._closing:
                    return
                idle = self._too_many()
            try:
                for key in idle:
                    self._shut(key, lambda one: one.users == 0, save=True)
                self._fault = None
            except Exception as error:  # that index is gone from here; the next look takes the others
                self._fault = f"an index was not closed as it should be: {describe_error(error)}"
                log.exception("%s", self._fault)
            with self._moved:
                self._full = False
                self._moved.notify_all()

    def _too_many(self) -> list[IndexKey]:
        """Which to close so that the rest fits with some room: those asked for longest ago, never one in use or the
        very last."""
        self._total = sum(one.bytes() for one in self._open.values())
        if self._total <= self._memory:
            return []
        chosen: list[IndexKey] = []
        rest = self._total
        for key in sorted(self._open, key=lambda key: self._open[key].used)[:-1]:
            if rest <= self._memory * MEMORY_MARGIN:
                break
            if self._open[key].users == 0:
                chosen.append(key)
                rest -= self._open[key].bytes()
        return chosen

    def _shut(self, key: IndexKey, free: Callable[[IndexHandle], object], *, save: bool) -> None:
        """Close one if it is `free`; meanwhile it counts as busy, so that nobody opens it a second time."""
        with self._moved:
            one = self._open.get(key)
            if one is None or key in self._busy or not free(one) or self._open.get(key) is not one:
                return
            del self._open[key]
            self._total -= one.bytes()
            self._busy[key] = 0
        try:
            if one.site is not None:
                self._builder.release(one.site)
            self._driver.detach(key)
            one.follower.close(save=save)
            one.index.close()
        finally:
            with self._moved:
                del self._busy[key]
                self._moved.notify_all()


def describe_index(one: IndexHandle) -> dict[str, object]:
    """What is shown of an open index."""
    followed: dict[str, object] = {"applied_seq": one.follower.applied_seq, "lag": one.follower.lag}
    if isinstance(one.index, RemoteIndex):
        followed["ghosts"] = one.index.ghosts
    if not isinstance(one.index, SegmentedIndex) or one.site is None:
        return {"kind": one.index.kind, "ntotal": one.index.ntotal, **followed}
    facts, base = one.index.facts(), one.index.base
    return {
        "kind": facts.kind,
        "ntotal": facts.ntotal,
        **followed,
        "base": facts.base,
        "tail": facts.tail,
        "tombstones": facts.tombstones,
        "built_seq": base.manifest.applied_seq if base else None,
        "built_at": base.manifest.created_at if base else None,
        "building": one.site.building,
        "build_error": one.site.error,
        "probes": facts.probes,
        "rerank": facts.rerank,
        "effort": facts.effort,
    }


IndexKey = tuple[str, Target]  # label of a collection, and which of its indexes

TOTALS = ("open", "vectors", "lag", "bytes", "tail", "tombstones", "building")  # numbers of open indexes
OVERHEAD = 32 << 10  # bytes of an open index besides its vectors
BUILD_BEFORE_FOLLOWING = 200_000
"""So many log entries that no snapshot holds go into a base before anybody follows: in memory they would take 2 KB each
(at d = 512), and one third of the time."""
MIN_SNAPSHOT_ENTRIES = 1_000
SNAPSHOT_POLICY = SnapshotPolicy(
    least=MIN_SNAPSHOT_ENTRIES
)  # fewer are replayed in milliseconds: thousands of small ones need no files
FAULT_SECONDS = 20.0  # how long a log that cannot be read is tried again before the opening is given up


@dataclass(slots=True)
class IndexHandle:
    """One open index: searches read `index`, `follower` alone changes it, the builder of `site` gives it new bases.

    `used` is when it was asked for last.
    """

    index: VectorIndex
    follower: Follower
    site: SegmentBuild | None
    users: int = 0
    used: float = 0.0

    def bytes(self) -> int:
        """What it holds in memory, about."""
        index = self.index
        if isinstance(index, RemoteIndex):
            return OVERHEAD
        return OVERHEAD + (index.nbytes if isinstance(index, SizedIndex) else index.ntotal * index.d * 4)


@contextmanager
def map_remote_errors() -> Iterator[None]:
    """Turn an engine that cannot be asked into our error: the same request may succeed later."""
    try:
        yield
    except RemoteUnavailable as error:
        raise Overloaded(str(error)) from error


class EmbeddingLog:
    """The log of one (collection, target) as a follower reads it."""

    def __init__(self, database: Database, space: EmbeddingSpace, label: str, target: Target) -> None:
        self._database = database
        self._space = space.fingerprint
        self._label = label
        self._target: Target = target

    def ahead(self, seq: int) -> int:
        """How many entries lie past `seq`."""
        return self._database.read(lambda c: embeddings.count_after(c, self._label, self._space, self._target, seq))

    def head(self) -> int:
        """The number of the last entry."""
        return self._database.read(lambda c: embeddings.get_last_seq(c, self._label, self._space, self._target))

    def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Up to `limit` entries past `after`, in order."""
        rows = self._database.read(
            lambda c: embeddings.list_after(c, self._label, self._space, self._target, after, limit)
        )
        return [
            LogEntry(seq, Op(op), key, None if vector is None else np.frombuffer(vector, dtype="<f4"))
            for seq, op, key, vector in rows
        ]


class GrownLogs:
    """Which logs have grown since it was asked last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seq = database.read(embeddings.get_last_seq_of_all)

    def __call__(self) -> list[IndexKey]:
        last, grown = self._database.read(
            lambda c: (embeddings.get_last_seq_of_all(c), embeddings.list_grown_logs(c, self._seq))
        )
        self._seq = max(self._seq, last)
        return grown


class IndexOpener:
    """Opens the indexes of one data directory, whose snapshots lie in `folder`. `wake` is told who has news.

    With an `engine` the vectors lie there, under the birth of the data directory.
    """

    def __init__(
        self,
        database: Database,
        space: EmbeddingSpace,
        folder: Path,
        builder: IndexBuilder,
        wake: Callable[[IndexKey], None],
        engine: MilvusClient | None = None,
    ) -> None:
        self._database = database
        self._space = space
        self._folder = folder
        self._builder = builder
        self._wake = wake
        self._engine = engine
        born = database.read(lambda c: collections.get(c, DEFAULT_COLLECTION))
        self._owner = born.created_at if born else ""

    def __call__(self, key: IndexKey, check: Callable[[], None]) -> IndexHandle:
        """The index from its snapshot or base, brought up to what its log holds now.

        `check` is called now and then and raises when it is wanted no more. Raises Overloaded when the log cannot be
        read, or the engine cannot be asked.
        """
        label, target = key
        entries = EmbeddingLog(self._database, self._space, label, target)
        config = self._config(key)
        if self._engine is not None:
            with map_remote_errors():
                remote = open_index(config, head=entries.head())
            return IndexHandle(remote.index, self._follow(key, remote, entries, check), None)
        opened = open_segmented(config, head=entries.head())
        if entries.ahead(opened.applied_seq) > BUILD_BEFORE_FOLLOWING:
            opened = self._built(opened, SegmentBuild(label, target, config, opened.index, entries.head))
        follower = self._follow(key, opened, entries, check)
        return IndexHandle(opened.index, follower, SegmentBuild(label, target, config, opened.index, entries.head))

    def discard(self, key: IndexKey) -> None:
        """Remove the vectors of a dropped collection from the engine, if there is one."""
        if self._engine is None:
            return
        try:
            drop_remote_index(self._config(key), self._engine)
        except RemoteUnavailable as error:  # nobody asks for them again: their name is never used a second time
            log.warning("the vectors of %s/%s stay in the engine: %s", *key, error)

    def _config(self, key: IndexKey) -> IndexConfig:
        label, target = key
        folder = self._folder / label / target
        space = self._space
        return IndexConfig(
            f"{label}/{target}", space.fingerprint, space.d, folder, engine=self._engine, owner=self._owner
        )

    def _follow(
        self, key: IndexKey, opened: OpenedIndex[VectorIndex], entries: EmbeddingLog, check: Callable[[], None]
    ) -> Follower:
        name = f"{key[0]}/{key[1]}"
        if opened.refused:
            log.warning("snapshot of %s not used (%s); rebuilding from the log", name, opened.refused)
        follower = Follower(
            opened.index,
            entries.read,
            applied_seq=opened.applied_seq,
            name=name,
            head=entries.head,
            freeze=opened.freeze,
            tend=opened.tend,
            policy=SNAPSHOT_POLICY if self._engine is None else SnapshotPolicy(),
            wake=lambda: self._wake(key),
        )
        try:
            catch_up(name, follower, entries.head(), check)
        except BaseException:
            follower.close(save=False)
            opened.index.close()
            raise
        return follower

    def _built(self, opened: OpenedIndex[SegmentedIndex], site: SegmentBuild) -> OpenedIndex[SegmentedIndex]:
        """The index anew, with a base of all that its log holds; as it is where that fails."""
        log.info("building a base of %s first", site.config.name)
        try:
            self._builder.build(site)
            return open_segmented(site.config, head=site.head())
        except (BuildFailed, BuildStopped) as error:
            log.warning("no base of %s, following without: %s", site.config.name, error)
            return opened


def catch_up(name: str, follower: Follower, head: int, check: Callable[[], None]) -> None:
    """Apply the log up to `head` on this thread; see `Opener`."""
    told = sound = time.monotonic()
    while follower.applied_seq < head:
        again = follower.step(BATCHES_PER_STEP)
        check()
        now = time.monotonic()
        if isinstance(follower.error, RemoteUnavailable):
            raise Overloaded(str(follower.error))
        if follower.error is None:
            sound = now
        elif now - sound > FAULT_SECONDS:
            raise Overloaded(f"the index of {collections.name_from_label(name)!r} cannot be opened at present")
        else:
            time.sleep(again or 0.0)
        if now - told > 1.0:
            told = now
            log.info("the index of %s is catching up: %d of %d", name, follower.applied_seq, head)


def add_to_totals(total: dict[str, float], one: IndexHandle) -> None:
    """Add an open index to the numbers of its kind."""
    total["open"] += 1
    total["vectors"] += one.index.ntotal
    total["lag"] = max(total["lag"], one.follower.lag)
    total["bytes"] += one.bytes()
    if isinstance(one.index, SegmentedIndex) and one.site is not None:
        facts = one.index.facts()
        total["tail"] += facts.tail
        total["tombstones"] += facts.tombstones
        total["building"] += one.site.building
